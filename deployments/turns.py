"""Which waiting job starts next, and on which model.

The fair order of `core.fair_share`, with the models that there are: a job takes the first of its
models that has a free replica. The place in the queue that a user is shown is read from the same
order.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from deployments.core.errors import BackendUnavailable, VideoServiceError
from deployments.core.fair_share import FairShare
from deployments.core.job_store import Job, JobStore
from deployments.core.spec import ModelCard, VideoSpec, resolve
from deployments.fleet import Fleet
from deployments.job_run import Db


class Turns:
    """The models' lanes, one for each ready replica, and who is on them.

    Blocks while it is made: it reads from the table who was served before.
    """

    def __init__(
        self, cards: Mapping[str, ModelCard], fleet: Fleet, *, store: JobStore, db: Db
    ) -> None:
        self._cards, self._fleet = cards, fleet
        self._store, self._db = store, db
        self._fair = FairShare(store.last_served())
        self._model_of: dict[str, str] = {}
        self._places: tuple[tuple[int, int], dict[str, int]] = ((-1, 0), {})

    @property
    def lanes(self) -> int:
        """How many jobs can be generated at once; at least 1, for what loads now."""
        return max(1, sum(self._fleet.ready(name) for name in self._cards))

    def specs(self, job: Job) -> list[VideoSpec]:
        """Return what the job is on each of its models, or raise why none will ever run it."""
        specs, refusals = [], []
        for name in job.candidates:
            if name in self._cards:
                try:
                    specs.append(resolve(job.request, self._cards[name]))
                except VideoServiceError as refusal:  # it can do less than when the job came
                    refusals.append(refusal)
        if specs:
            if reason := self._fleet.hopeless([spec.model for spec in specs]):
                raise BackendUnavailable(reason)
            return specs
        if refusals:
            raise refusals[0]
        raise BackendUnavailable(f"{', '.join(job.candidates)}: not configured any more")

    def next(self, waiting: Sequence[tuple[Job, list[VideoSpec]]]) -> tuple[Job, VideoSpec] | None:
        """Return the job whose turn it is, on the model that is free for it; None while none is."""
        busy = Counter(self._model_of.values())
        able = {}
        for job, specs in waiting:
            free = (spec for spec in specs if busy[spec.model] < self._fleet.ready(spec.model))
            if (spec := next(free, None)) is not None:
                able[job.id] = (job, spec)
        return able[self._fair.next(job for job, _ in able.values()).id] if able else None

    def began(self, job: Job, model: str) -> None:
        """The model works on the job now."""
        self._model_of[job.id] = model
        self._fair.began(job.id, job.caller)

    def ended(self, job_id: str) -> None:
        """The model is done with the job; the encoder may not be."""
        self._model_of.pop(job_id, None)
        self._fair.ended(job_id)

    def order(self, waiting: Sequence[Job]) -> list[Job]:
        """Return the waiting jobs in the order in which they will start."""
        return self._fair.order(waiting, self.lanes)

    async def places(self) -> Mapping[str, int]:
        """Return when it is each waiting job's turn: 1 for the next one."""
        state = await self._db(self._store.last_change), self.lanes
        if state != self._places[0]:
            order = self._fair.order(await self._db(self._store.waiting), self.lanes)
            self._places = state, {job.id: place for place, job in enumerate(order, start=1)}
        return self._places[1]
