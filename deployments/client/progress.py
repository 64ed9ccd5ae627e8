"""A video on its way, in a terminal: a bar, or a line for each phase where there is no terminal."""

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from deployments.client.api import Video

AWAY = "The service does not answer; trying again"
PHASES = {
    "queued": "Waiting for its turn",
    "loading": "Loading the model",
    "text": "Reading the prompt",
    "denoise": "Drawing",
    "decode": "Turning the drawing into frames",
    "encode": "Writing the video file",
    "saved": "Done",
}
# A step takes from a tenth of a second to minutes: the time left is reckoned from this much of the
# past.
RECKONED_FROM_S = 600

# Shows how a video stands; None says that the service is away.
Show = Callable[[Video | None], None]


def in_words(video: Video) -> str:
    """Return what is being done now, with the place in the queue or the step."""
    words = PHASES.get(video.phase, video.phase)
    if video.status == "queued" and video.queue_position:
        return f"{words}: number {video.queue_position} in the queue"
    if video.phase == "denoise" and video.num_steps:
        return f"{words}: step {video.step} of {video.num_steps}"
    return words


@contextlib.contextmanager
def following(console: Console) -> Iterator[Show]:
    """Give what shows a video's progress on `console` until the end of the block."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        _TimeLeft(compact=True),
    )
    with _bar(console, *columns) as bar:
        task = bar.add_task(PHASES["queued"], total=100)

        def show(video: Video | None) -> None:
            if video is None:
                bar.update(task, description=AWAY)
            else:
                bar.update(
                    task,
                    description=in_words(video),
                    completed=video.progress,
                    seconds_left=video.seconds_left,
                )

        yield show


@contextlib.contextmanager
def downloading(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Give what shows a download's progress: bytes here, and in all (0: not known)."""
    if not console.is_terminal:
        yield lambda _here, _size: None
        return
    with _bar(console, DownloadColumn(binary_units=True)) as bar:
        task = bar.add_task("Fetching the file", total=None)
        yield lambda here, size: bar.update(task, completed=here, total=size or None)


def _bar(console: Console, *columns: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        *columns,
        console=console,
        transient=True,
        speed_estimate_period=RECKONED_FROM_S,
    )


class _TimeLeft(TimeRemainingColumn):
    """The service's own guess where it has one, else what the pace so far tells."""

    def render(self, task: Task) -> Text:
        seconds_left = task.fields.get("seconds_left")
        if seconds_left is None:
            return super().render(task)
        minutes, seconds = divmod(round(seconds_left), 60)
        hours, minutes = divmod(minutes, 60)
        clock = f"{minutes:02d}:{seconds:02d}"
        return Text(f"{hours}:{clock}" if hours else clock, style="progress.remaining")


def _lines(console: Console) -> Show:
    """A line whenever another phase begins, for logs."""
    last = ""

    def show(video: Video | None) -> None:
        nonlocal last
        words = AWAY if video is None else PHASES.get(video.phase, video.phase)
        if words != last:
            last = words
            console.print(words if video is None else in_words(video), markup=False)

    return show
