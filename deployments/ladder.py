"""What is done when a GPU's memory runs out during a job: the phase is run again, one rung down.

The rungs, the retry and what a job says of them. Where networks lie on each rung is a matter of
`deployments.placement`; of models nothing is known here, and torch is imported in a function only.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final, TypeVar

from deployments.core.errors import InsufficientVram
from deployments.core.events import BackendEvent, Decoded, Notice, Waiting
from deployments.core.log import logger
from deployments.core.memory import PhaseName

Result = TypeVar("Result")
# One try of a phase: yields what happens and returns what comes of it.
Attempt = Generator[BackendEvent, None, Result]

# As CUDA's libraries and the driver say it where torch's allocator is not asked, or asks the driver
# for a piece of memory to grow by.
OUT_OF_MEMORY = ("out of memory", "alloc_failed", "allocation_failed")


@dataclass(frozen=True)
class Rung:
    """A way to run a phase in less memory than the rungs above.

    Attributes:
        phases: those that it helps.
        said: how the phase was run again, as a job says it.
    """

    phases: tuple[PhaseName, ...]
    said: str


# Neither changes a bit of the frames. What does, tiles in space or time, is taken from the start by
# a request with `low_vram`, and by no other.
IN_TURNS: Final = Rung(
    ("text", "encode", "denoise", "decode"), "with the other networks off the GPU"
)
STREAMED: Final = Rung(
    ("denoise",), "with the transformer streamed block by block, which takes longer"
)

DOING: dict[PhaseName, str] = {
    "text": "while the prompt was read",
    "encode": "while the first frame was encoded",
    "denoise": "while denoising",
    "decode": "while decoding",
}


class Ladder:
    """The rungs that a job may still take. Those that it has taken stay taken until its end.

    Args:
        rungs: the highest first.
        release: called when nothing refers to the tensors of a failed attempt any more; frees
            their memory, and returns whether all of it came back.
        refusal: makes the error of a job that no rung helps.
    """

    def __init__(
        self,
        rungs: Sequence[Rung],
        release: Callable[[], bool],
        refusal: Callable[[], InsufficientVram],
    ) -> None:
        self._left, self._release, self._refusal = list(rungs), release, refusal
        self.taken: set[Rung] = set()

    def run(self, phase: PhaseName, attempt: Callable[[], Attempt[Result]]) -> Attempt[Result]:
        """Run a phase; each time that memory runs out, say so and run it again one rung down.

        Steps are told again, frames and notices are not: those of an attempt that failed are left
        out in the next one.

        Args:
            phase: which it is.
            attempt: begins the phase from its start, from the same noise.

        Raises: InsufficientVram: no rung is left.
        """
        passed_on = _PassedOn()
        while True:
            try:
                with closing(attempt()) as events:
                    return (yield from passed_on.without_repeats(events))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                # As text: a log that keeps its records would keep the error.
                logger.warning("out of memory %s: %s", DOING[phase], str(error))
            # Only now, when the error is gone: its traceback holds the attempt's tensors.
            rung = self._step_down(phase)
            yield Notice(f"The GPU's memory ran out {DOING[phase]}; this was repeated {rung.said}.")

    def _step_down(self, phase: PhaseName) -> Rung:
        came_back = self._release()
        rung = next((each for each in self._left if phase in each.phases), None)
        if rung is None or not came_back:
            raise self._refusal()
        self._left.remove(rung)
        self.taken.add(rung)
        return rung


class _PassedOn:
    """What of a phase has been yielded, over all attempts."""

    def __init__(self) -> None:
        self._notices: set[Notice] = set()
        # So many of the clip's frames, from its beginning; 0 before this phase's first one.
        self._frames = 0

    def without_repeats(self, events: Attempt[Result]) -> Attempt[Result]:
        """Yield the events; in the place of frames and notices that came before, time passes."""
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: Result = end.value
                return result
            yield self._new(event)

    def _new(self, event: BackendEvent) -> BackendEvent:
        if isinstance(event, Notice):
            if event in self._notices:
                return Waiting()
            self._notices.add(event)
        if not isinstance(event, Decoded) or not len(event.frames):
            return event
        known = max(0, self._frames - event.first_frame)
        if known >= len(event.frames):
            return Waiting()
        self._frames = event.first_frame + len(event.frames)
        return Decoded(event.frames[known:], event.first_frame + known)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the GPU's memory ran out."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in said for sign in OUT_OF_MEMORY)
