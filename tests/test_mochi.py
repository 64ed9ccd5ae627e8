"""The Mochi backend on a tiny random checkpoint: events, frames, stopping, determinism."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import MochiPipeline

from deployments import mochi
from deployments.core.checkpoints import Checkpoint, GenerationConfig
from deployments.core.config import ModelConfig
from deployments.core.events import Decoded, Frames, Notice, PhaseBegan, Step
from deployments.core.spec import VideoSpec
from deployments.mochi import BACKEND, Mochi
from deployments.models.mochi1.decode import decode, denormalise, to_uint8
from deployments.models.mochi1.sampling import initial_noise

# The stock pipeline's rotary embedding asks for an autocast that the CPU lacks.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

GENERATION = GenerationConfig(
    native_area=64 * 64, max_frames=163, num_inference_steps=6, guidance_scale=4.0
)
CONFIG = ModelConfig(name="mochi", cpu_threads=1)


def checkpoint(folder: Path, generation: GenerationConfig = GENERATION) -> Checkpoint:
    return Checkpoint(source=str(folder), label=folder.name, bundled=False, generation=generation)


def spec(**changes: object) -> VideoSpec:
    made = VideoSpec(
        model="mochi",
        checkpoint="mochi-random",
        prompt="a red fox",
        negative_prompt="",
        width=40,
        height=24,
        num_frames=8,
        fps=24,
        num_inference_steps=3,
        guidance_scale=4.0,
        seed=11,
        quality="exact",
        low_vram=False,
        generated_width=48,
        generated_height=32,
        generated_frames=13,
    )
    return made.model_copy(update=changes)


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Mochi]:
    threads = torch.get_num_threads()
    model = Mochi(CONFIG, checkpoint(folder), "cpu")
    model.load()
    yield model
    torch.set_num_threads(threads)


def frames(model: Mochi, made: VideoSpec) -> Frames:
    runs = [event.frames for event in model.generate(made) if isinstance(event, Decoded)]
    return np.concatenate(runs)


def test_a_video_is_text_then_steps_then_runs_of_frames(model: Mochi) -> None:
    """One event a step and one for each latent; the frames are trimmed to what was asked."""
    events = list(model.generate(spec()))
    assert events[:5] == [
        PhaseBegan("text"),
        PhaseBegan("denoise"),
        Step(1, 3),
        Step(2, 3),
        Step(3, 3),
    ]
    assert events[5] == PhaseBegan("decode")
    runs = [event for event in events[6:] if isinstance(event, Decoded)]
    assert [(run.first_frame, len(run.frames)) for run in runs] == [(0, 1), (1, 6), (7, 1)]
    assert len(runs) == len(events) - 6
    for run in runs:
        assert run.frames.shape[1:] == (32, 48, 3)
        assert run.frames.dtype == np.uint8


def test_the_frames_are_those_of_the_stock_sampler_decoded_as_the_authors_do(
    model: Mochi, pipeline: MochiPipeline
) -> None:
    """Nothing is lost between the parts."""
    latents = pipeline(
        prompt="a red fox",
        num_inference_steps=3,
        guidance_scale=4.0,
        latents=initial_noise(11, (1, 12, 3, 4, 6)),
        output_type="latent",
    ).frames
    runs = list(decode(pipeline.vae, denormalise(pipeline.vae, latents)))
    expected = to_uint8(torch.cat(runs, dim=2))[:8].astype(int)
    # Differences of 1e-6 in the latents may turn a rounding.
    assert np.abs(frames(model, spec()).astype(int) - expected).max() <= 1


def test_the_same_spec_gives_the_same_frames_and_another_seed_others(model: Mochi) -> None:
    """All randomness comes from the seed."""
    first = frames(model, spec())
    assert np.array_equal(frames(model, spec()), first)
    assert not np.array_equal(frames(model, spec(seed=12)), first)


@pytest.mark.parametrize("events_before_stop", [1, 3, 7])
def test_a_stopped_job_leaves_no_trace_in_the_next_one(
    model: Mochi, events_before_stop: int
) -> None:
    """During text, denoising and decoding; the next result is bit-identical."""
    clean = frames(model, spec())
    other = spec(prompt="a blue hen", generated_width=32, generated_frames=7, num_frames=7)
    stopped = model.generate(other)
    for _ in range(events_before_stop):
        next(stopped)
    stopped.close()
    assert np.array_equal(frames(model, spec()), clean)


def test_a_prompt_that_is_too_long_is_reported(model: Mochi) -> None:
    """The job says what was left out instead of hiding it."""
    long = spec(prompt="x" * 300, negative_prompt="y" * 300)
    notices = [event.text for event in model.generate(long) if isinstance(event, Notice)]
    assert len(notices) == 2
    assert "prompt is longer than the 256 tokens" in notices[0]
    assert "negative prompt" in notices[1]


def test_the_card_says_what_the_checkpoint_can_do(folder: Path) -> None:
    """Limits and defaults come from the checkpoint; a draft takes 28 of 64 steps."""
    card = BACKEND.card(CONFIG, checkpoint(folder, Mochi.published.generation))
    assert (card.max_frames, card.frame_step, card.native_area) == (163, 6, 848 * 480)
    assert (card.num_inference_steps, card.draft_steps, card.guidance_scale) == (64, 28, 4.5)
    assert not card.accepts_image


def test_a_distilled_checkpoint_keeps_its_schedule_and_has_no_draft(folder: Path) -> None:
    """FastMochi takes 8 steps, 6 of them small; other counts keep that share."""
    distilled = GenerationConfig(
        native_area=848 * 480,
        max_frames=163,
        num_inference_steps=8,
        guidance_scale=1.5,
        threshold_noise=0.1,
        linear_steps=6,
    )
    assert BACKEND.card(CONFIG, checkpoint(folder, distilled)).draft_steps is None
    assert mochi._sigmas(distilled, 8)[6] == pytest.approx(0.1)
    assert mochi._sigmas(distilled, 4)[3] == pytest.approx(0.1)
    assert mochi._sigmas(distilled, 2)[1] == pytest.approx(0.1)
