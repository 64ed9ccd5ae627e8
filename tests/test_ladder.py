"""The retry itself, with phases that only pretend to compute."""

import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch

from deployments.core.errors import InsufficientVram
from deployments.core.events import BackendEvent, Decoded, Notice, Step, Waiting
from deployments.ladder import IN_TURNS, STREAMED, Attempt, Ladder

REFUSAL = InsufficientVram("mochi", 6.0, 4.2)


def ladder(release: Callable[[], bool] = lambda: True) -> Ladder:
    return Ladder([IN_TURNS, STREAMED], release, lambda: REFUSAL)


def decoded(first_frame: int, count: int) -> Decoded:
    return Decoded(np.full((count, 1, 1, 3), first_frame, np.uint8), first_frame)


def shape(event: BackendEvent) -> object:
    return (event.first_frame, len(event.frames)) if isinstance(event, Decoded) else event


def test_a_phase_without_trouble_is_passed_on_as_it_is() -> None:
    """Its events, and what it returns."""

    def phase() -> Attempt[str]:
        yield Step(1, 1)
        return "latents"

    def job() -> Attempt[None]:
        assert (yield from ladder().run("denoise", phase)) == "latents"

    assert list(job()) == [Step(1, 1)]


def test_steps_are_told_again_and_frames_and_notices_are_not() -> None:
    """Nobody gets a frame twice; in the place of its run, time passes. Runs may be cut elsewhere
    the next time."""
    cut = Notice("its end was left out")
    runs = [[(0, 1), (1, 6)], [(0, 1), (1, 6), (7, 0), (7, 6)], [(0, 13), (13, 2)]]

    def phase() -> Attempt[None]:
        yield cut
        yield Step(1, 1)
        for first_frame, count in runs.pop(0):
            yield decoded(first_frame, count)
        if runs:
            raise torch.OutOfMemoryError

    made = Ladder([IN_TURNS, IN_TURNS], lambda: True, lambda: REFUSAL).run("decode", phase)
    events = [shape(event) for event in made if "ran out" not in str(event)]
    assert events == [
        *(cut, Step(1, 1), (0, 1), (1, 6)),
        *(Waiting(), Step(1, 1), Waiting(), Waiting(), (7, 0), (7, 6)),
        *(Waiting(), Step(1, 1), Waiting(), (13, 2)),
    ]


def test_a_rung_that_was_taken_is_not_taken_again_in_a_later_phase() -> None:
    """Where the networks take turns already, decoding has nothing left to try."""
    climbing, failures = ladder(), [True, True]

    def phase() -> Attempt[None]:
        yield Waiting()
        if failures:
            failures.pop()
            raise torch.OutOfMemoryError

    said = [event.text for event in climbing.run("denoise", phase) if isinstance(event, Notice)]
    assert said == [
        "The GPU's memory ran out while denoising; this was repeated with the other networks off "
        "the GPU.",
        "The GPU's memory ran out while denoising; this was repeated with the transformer streamed "
        "block by block, which takes longer.",
    ]
    failures.append(True)
    with pytest.raises(InsufficientVram):
        list(climbing.run("decode", phase))


def test_memory_is_freed_when_nothing_holds_the_tensors_of_the_failed_attempt() -> None:
    """The error's traceback would hold them."""
    alive: list[weakref.ref[object]] = []

    def phase() -> Attempt[None]:
        first = not alive
        activations = torch.ones(4)
        alive.append(weakref.ref(activations))
        yield Waiting()
        if first:
            raise torch.OutOfMemoryError

    list(ladder(release=lambda: alive[0]() is None).run("text", phase))
    assert len(alive) == 2


def test_memory_that_does_not_come_back_is_not_waited_for() -> None:
    """The next attempt would only fail later."""

    def phase() -> Attempt[None]:
        yield Waiting()
        raise torch.OutOfMemoryError

    with pytest.raises(InsufficientVram):
        list(ladder(release=lambda: False).run("text", phase))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", InsufficientVram),
        ("CUDA error: out of memory", InsufficientVram),
        ("CUDA driver error: out of memory", InsufficientVram),
        ("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", InsufficientVram),
        ("CUDA error: an illegal memory access was encountered", RuntimeError),
    ],
)
def test_libraries_have_their_own_words_for_it(message: str, expected: type[Exception]) -> None:
    """Any other error of a GPU goes up as it is."""

    def phase() -> Attempt[None]:
        yield Waiting()
        raise RuntimeError(message)

    with pytest.raises(expected):
        list(ladder().run("text", phase))


def test_a_job_that_is_stopped_stops_the_phase() -> None:
    """Closing goes through to the sampler."""
    closed: list[bool] = []

    def phase() -> Attempt[None]:
        try:
            yield Waiting()
        finally:
            closed.append(True)

    events = ladder().run("text", phase)
    next(events)
    events.close()
    assert closed == [True]
