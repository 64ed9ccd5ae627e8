"""Memory that runs out, in every phase of both models, with tiny networks.

The GPU is pretended: its allocator counts the tensors that are computed, and fails when told to.
"""

import asyncio
import contextlib
import gc
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deployments.core.config import ModelConfig
from deployments.core.errors import InsufficientVram
from deployments.core.events import (
    BackendEvent,
    Decoded,
    Frames,
    FramesStored,
    Notice,
    PhaseBegan,
    ReplicaState,
    Step,
    Wanted,
)
from deployments.core.memory import GIB
from deployments.core.spec import VideoSpec
from deployments.mochi import Mochi
from deployments.models.streaming import is_streamed
from deployments.opensora import OpenSora
from deployments.video_model import VideoModel
from tests import test_mochi, test_opensora
from tests.allocator_limit import AllocatorLimit, At, on_limited_gpu
from tests.in_process import make, painter_config, running, until_done
from tests.limited_mochi import ALLOCATOR
from tests.tiny_opensora import tiny_pipeline as tiny_opensora

LIMITED = ModelConfig(name="mochi", backend="tests.limited_mochi", cpu_threads=1)
IN_TURNS, STREAMED = "with the other networks off the GPU", "streamed block by block"
# A clear failure has to come within this.
CLEAR_FAILURE_S = 10.0


class Model:
    """A backend on a pretended GPU, and a second one that never sees trouble."""

    def __init__(self, kind: Any, text_parts: tuple[str, ...], checkpoint: Any, spec: VideoSpec):
        self.allocator, self.name = AllocatorLimit(), spec.model
        config = ModelConfig(name=spec.model, cpu_threads=1)
        self.backend = on_limited_gpu(kind, text_parts, self.allocator)(config, checkpoint, "cpu")
        self._fresh = kind(config, checkpoint, "cpu")
        self._spec, self._fresh_frames = spec, dict[str, Frames]()
        for backend in (self.backend, self._fresh):
            backend.load()

    def spec(self, **changes: Any) -> VideoSpec:
        # The request as it could come: what it would take at other sizes is looked for.
        return self._spec.model_copy(update={"width": 256, "height": 256, **changes})

    def fresh_frames(self, spec: VideoSpec) -> Frames:
        key = spec.model_dump_json()
        if key not in self._fresh_frames:
            self._fresh_frames[key] = frames(self._fresh.generate(spec, image_of(spec)))
        return self._fresh_frames[key]

    def run(self, spec: VideoSpec) -> tuple[Frames, list[BackendEvent]]:
        events = list(self.backend.generate(spec, image_of(spec)))
        return frames(events), events


def image_of(spec: VideoSpec) -> bytes | None:
    if not spec.conditioned:
        return None
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (40, 160, 220)).save(file, "PNG")
    return file.getvalue()


def frames(events: Any) -> Frames:
    """The frames, after it has been seen that each came once and in its order."""
    runs = [event for event in events if isinstance(event, Decoded) and len(event.frames)]
    ends = np.cumsum([len(run.frames) for run in runs])
    assert [run.first_frame for run in runs] == [0, *ends[:-1]]
    return np.concatenate([run.frames for run in runs])


def said(events: list[BackendEvent]) -> list[str]:
    texts = [event.text for event in events if isinstance(event, Notice)]
    return [text for text in texts if "memory ran out" in text]


@pytest.fixture(scope="module")
def models(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    threads = torch.get_num_threads()
    second = tmp_path_factory.mktemp("opensora-random")
    tiny_opensora().save_pretrained(second)
    made = {
        "mochi": Model(Mochi, ("text_encoder",), test_mochi.checkpoint(folder), test_mochi.spec()),
        "opensora": Model(
            OpenSora,
            ("text_encoder", "text_encoder_2"),
            test_opensora.checkpoint(second),
            test_opensora.spec(),
        ),
    }
    # What was loaded is not looked through again whenever memory is released.
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()
    torch.set_num_threads(threads)


def after(event: BackendEvent) -> At:
    return lambda each: each == event


TEXT, DENOISE, DECODE = (after(PhaseBegan(phase)) for phase in ("text", "denoise", "decode"))
FIRST_FRAMES: At = lambda event: isinstance(event, Decoded)  # noqa: E731
CONDITIONED = {"conditioned": True}
FAST = {"quality": "fast", "fast_threshold": 0.5}
# Each: the model, when it runs out, at which tensor from there, what the job is, and what is said.
# The tokenizers make tensors of their own, which never lie on a GPU.
MIDDLE = [
    ("mochi", TEXT, 19, {"prompt": "a hen"}, "while the prompt was read"),
    ("mochi", after(Step(2, 3)), 9, {}, "while denoising"),
    ("mochi", FIRST_FRAMES, 9, {}, "while decoding"),
    ("opensora", TEXT, 19, {"prompt": "a hen"}, "while the prompt was read"),
    ("opensora", DENOISE, 9, CONDITIONED, "while the first frame was encoded"),
    ("opensora", after(Step(2, 3)), 9, CONDITIONED, "while denoising"),
    ("opensora", DECODE, 30, {}, "while decoding"),
]
FIRST = [
    ("mochi", TEXT, 3, {"prompt": "a cock"}, "while the prompt was read"),
    ("mochi", DENOISE, 1, {}, "while denoising"),
    ("mochi", DECODE, 1, {}, "while decoding"),
    ("mochi", DECODE, 1, {"low_vram": True}, "while decoding"),
    ("opensora", TEXT, 6, {"prompt": "a cock"}, "while the prompt was read"),
    ("opensora", DENOISE, 1, CONDITIONED, "while the first frame was encoded"),
    ("opensora", DENOISE, 1, {}, "while denoising"),
    ("opensora", DECODE, 1, {}, "while decoding"),
    ("opensora", after(Step(2, 3)), 30, FAST, "while denoising"),
    ("opensora", after(Step(5, 6)), 9, {"num_frames": 12, "segments": 2}, "while denoising"),
]


@pytest.mark.parametrize(("name", "at", "allocation", "changes", "doing"), FIRST + MIDDLE)
def test_a_phase_is_repeated_one_rung_down_and_gives_the_same_frames(
    models: dict[str, Model],
    name: str,
    at: At,
    allocation: int,
    changes: dict[str, Any],
    doing: str,
) -> None:
    """In each phase, at its first tensor and in its middle; and the job says so once."""
    model = models[name]
    spec = model.spec(**changes)
    model.allocator.fail(at, allocation=allocation)
    made, events = model.run(spec)
    (notice,) = said(events)
    assert doing in notice
    assert notice.endswith(f"{IN_TURNS}.")
    assert np.array_equal(made, model.fresh_frames(spec))


@pytest.mark.parametrize(("name", "at"), [("mochi", after(Step(2, 3))), ("opensora", DENOISE)])
def test_denoising_has_a_second_rung_that_is_undone_after_the_job(
    models: dict[str, Model], name: str, at: At
) -> None:
    """Streamed, the frames are the same; the next job runs on the network as it was."""
    model = models[name]
    clean = model.fresh_frames(model.spec())
    model.allocator.fail(at, allocation=5, times=2)
    made, events = model.run(model.spec())
    assert [IN_TURNS in said(events)[0], STREAMED in said(events)[1]] == [True, True]
    assert np.array_equal(made, clean)
    assert not is_streamed(model.backend._parts.transformer)
    made, events = model.run(model.spec())
    assert said(events) == []
    assert np.array_equal(made, clean)


@pytest.mark.parametrize(("name", "at", "allocation", "changes", "doing"), MIDDLE)
def test_when_every_rung_fails_the_job_says_so_and_the_next_is_as_in_a_fresh_process(
    models: dict[str, Model],
    name: str,
    at: At,
    allocation: int,
    changes: dict[str, Any],
    doing: str,
) -> None:
    """In the seed's words, at once."""
    model = models[name]
    model.allocator.fail(at, allocation=allocation, times=100)
    failing = model.spec(**changes, seed=3)
    began = time.monotonic()
    with pytest.raises(InsufficientVram, match=rf"^Insufficient VRAM: {name} needs ~"):
        model.run(failing.model_copy(update={"prompt": f"{failing.prompt} again"}))
    assert time.monotonic() - began < CLEAR_FAILURE_S
    model.allocator.fail(lambda _: False, times=0)
    made, events = model.run(model.spec())
    assert said(events) == []
    assert np.array_equal(made, model.fresh_frames(model.spec()))


@pytest.mark.parametrize("name", ["mochi", "opensora"])
def test_nothing_is_left_in_memory_of_a_job_that_ran_out(
    models: dict[str, Model], name: str
) -> None:
    """Whether a lower rung helped or none."""
    model = models[name]
    left = []
    for times in (0, 1, 2, 100):
        model.allocator.fail(after(Step(2, 3)), allocation=9, times=times)
        with contextlib.suppress(InsufficientVram):
            model.run(model.spec())
        gc.collect()
        left.append(model.allocator.taken_bytes)
    model.allocator.fail(lambda _: False, times=0)
    assert left == left[:1] * 4


@pytest.mark.parametrize("name", ["mochi", "opensora"])
def test_a_model_that_has_left_the_gpu_makes_the_same_frames(
    models: dict[str, Model], name: str
) -> None:
    """Leaving and coming back changes no bit of the weights."""
    model = models[name]
    model.backend.leave_gpu()
    made, events = model.run(model.spec())
    assert said(events) == []
    assert np.array_equal(made, model.fresh_frames(model.spec()))


@pytest.mark.parametrize("name", ["mochi", "opensora"])
def test_what_is_too_large_is_refused_before_anything_is_computed(
    models: dict[str, Model], name: str
) -> None:
    """By the plan, which is made with the allocator's figures; what would fit is named."""
    model = models[name]
    large = model.spec(width=512, height=512, generated_width=512, generated_height=512)
    need_gb = model.backend._placer.need_gb(large)
    model.allocator.limit_bytes, before = 0, model.allocator.limit_bytes
    available_gb = model.backend._placer.placement().available_gb
    model.allocator.limit_bytes = int((need_gb - available_gb) * GIB) - 1
    model.allocator.peak_bytes = model.allocator.taken_bytes
    with pytest.raises(InsufficientVram, match=f"{name} needs ~.* It would fit"):
        next(model.backend.generate(large, None))
    assert model.allocator.peak_bytes == model.allocator.taken_bytes
    model.allocator.limit_bytes = before


def test_a_replica_whose_transformer_is_streamed_goes_on_as_well(
    models: dict[str, Model], folder: Path
) -> None:
    """A pass that broke off leaves a block on the GPU, and the order of the blocks half found."""
    allocator, clean = AllocatorLimit(), models["mochi"].fresh_frames(models["mochi"].spec())
    config = ModelConfig(name="mochi", cpu_threads=1, weights="streamed")
    kind = on_limited_gpu(Mochi, ("text_encoder",), allocator)
    streamed = kind(config, test_mochi.checkpoint(folder), "cpu")
    streamed.load()
    for at in (DENOISE, after(Step(2, 3))):
        allocator.fail(at, allocation=30)
        events = list(streamed.generate(models["mochi"].spec()))
        assert [IN_TURNS in text for text in said(events)] == [True]
        assert np.array_equal(frames(events), clean)
    assert np.array_equal(frames(streamed.generate(models["mochi"].spec())), clean)
    assert is_streamed(streamed._parts.transformer)


def test_a_limit_that_the_plan_did_not_foresee_ends_the_job_in_the_middle(
    models: dict[str, Model],
) -> None:
    """On a CPU all frames of a latent are decoded together, which the plan does not count: the
    first frame fits and the following six do not. A clip that fits is made after that."""
    model = models["mochi"]
    made: list[BackendEvent] = []
    before = model.allocator.limit_bytes
    model.allocator.limit_bytes = model.allocator.taken_bytes + 5_000_000
    with pytest.raises(InsufficientVram):
        made.extend(model.backend.generate(model.spec()))
    first = model.spec(num_frames=1, generated_frames=1)
    alone, _ = model.run(first)
    model.allocator.limit_bytes = before
    assert np.array_equal(alone, model.fresh_frames(first))


def test_a_replica_goes_on_after_a_job_that_ran_out(folder: Path) -> None:
    """Through the model's thread: one job tells the rung, one fails with its own error, and the
    third has the frames of a replica that saw no trouble."""

    async def test() -> None:
        replica = VideoModel(
            LIMITED, test_mochi.checkpoint(folder), "cuda", put=lambda each: each, report=report
        )
        made = []
        for times in (0, 1, 100, 0):
            ALLOCATOR.fail(after(Step(2, 3)), allocation=9, times=times)
            spec = test_mochi.spec(width=256, height=256)
            try:
                made.append([event async for event in replica.generate("job", "owner", spec)])
            except InsufficientVram:
                made.append([])
        await replica.close()
        clean, helped, failed, last = made
        assert [IN_TURNS in text for text in said(helped)] == [True]
        assert [said(clean), failed, said(last)] == [[], [], []]
        steps = [event.step for event in helped if isinstance(event, Step)]
        assert steps == [1, 2, 1, 2, 3]
        for events in (helped, last):
            assert np.array_equal(stored(events), stored(clean))

    async def report(_: ReplicaState) -> Wanted:
        return Wanted(job=True, frames=frozenset())

    asyncio.run(asyncio.wait_for(test(), 60))


def stored(events: list[Any]) -> Frames:
    return np.concatenate([each.ref for each in events if isinstance(each, FramesStored)])


def test_a_job_says_which_rung_ran_or_fails_for_memory(folder: Path, tmp_path: Path) -> None:
    """In the table: the notice of the first, the code of the second, and the third as ever."""

    async def test() -> None:
        config = painter_config(tmp_path).model_copy(update={"models": (LIMITED,)})
        async with running(config, checkpoint=test_mochi.checkpoint(folder)) as jobs:
            views = []
            for times in (1, 100, 0):
                ALLOCATOR.fail(after(Step(2, 6)), allocation=9, times=times)
                views.append(await until_done(jobs, await make(jobs)))
            helped, failed, last = views
            assert [IN_TURNS in text for text in helped.notices if "ran out" in text] == [True]
            assert (failed.status, failed.error_code) == ("failed", "insufficient_vram")
            assert failed.error_message.startswith("Insufficient VRAM: mochi needs ~")
            assert [helped.status, last.status] == ["completed"] * 2
            assert (helped.progress, helped.step, helped.num_steps) == (100, 6, 6)

    asyncio.run(asyncio.wait_for(test(), 60))
