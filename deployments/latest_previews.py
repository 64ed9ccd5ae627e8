"""The newest preview of each run of this process. In memory alone, and gone with the run: a preview
is worth nothing to whoever was not there, so it is no part of the job's row."""

import itertools
import time

from deployments.core.events import JobPreview, Preview


class LatestPreviews:
    """One preview for each job that runs here."""

    def __init__(self) -> None:
        # From the clock, so that the numbers go on rising when another process follows this one.
        self._numbers = itertools.count(time.time_ns())
        self._latest: dict[str, JobPreview] = {}

    def show(self, job_id: str, caller: str, preview: Preview) -> None:
        """Keep a preview in the place of the job's last one."""
        self._latest[job_id] = JobPreview(
            id=job_id,
            caller=caller,
            number=next(self._numbers),
            step=preview.step,
            picture=preview.picture,
        )

    def ended(self, job_id: str) -> None:
        """Forget the job's preview: its run is over."""
        self._latest.pop(job_id, None)

    def after(self, number: int | None) -> tuple[JobPreview, ...]:
        """Return those above `number`, in the order of their numbers; None asks for none."""
        if number is None:
            return ()
        newer = [preview for preview in self._latest.values() if preview.number > number]
        return tuple(sorted(newer, key=lambda preview: preview.number))
