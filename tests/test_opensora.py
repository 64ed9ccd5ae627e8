"""The Open-Sora backend on a tiny random checkpoint: events, frames, images, segments, stopping."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deployments.core.checkpoints import Checkpoint, GenerationConfig
from deployments.core.config import ModelConfig
from deployments.core.events import Decoded, Frames, Notice, PhaseBegan, Step
from deployments.core.spec import VideoSpec
from deployments.models.opensora.sampling import initial_noise
from deployments.opensora import BACKEND, OpenSora
from tests.tiny_opensora import tiny_pipeline

GENERATION = GenerationConfig(
    native_area=64 * 64, max_frames=9, num_inference_steps=6, guidance_scale=4.0, motion_score=7
)
CONFIG = ModelConfig(name="opensora", cpu_threads=1)


def checkpoint(folder: Path, generation: GenerationConfig = GENERATION) -> Checkpoint:
    return Checkpoint(source=str(folder), label=folder.name, bundled=False, generation=generation)


def spec(**changes: object) -> VideoSpec:
    made = VideoSpec(
        model="opensora",
        checkpoint="opensora-random",
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
        generated_frames=9,
    )
    return made.model_copy(update=changes)


def png(width: int = 60, height: int = 50, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opensora-random")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[OpenSora]:
    threads = torch.get_num_threads()
    model = OpenSora(CONFIG, checkpoint(folder), "cpu")
    model.load()
    yield model
    torch.set_num_threads(threads)


def frames(model: OpenSora, made: VideoSpec, image: bytes | None = None) -> Frames:
    runs = [event.frames for event in model.generate(made, image) if isinstance(event, Decoded)]
    return np.concatenate(runs)


def test_a_video_is_text_then_steps_then_frames(model: OpenSora) -> None:
    """One event a step; the frames are trimmed to what was asked."""
    events = [event for event in model.generate(spec(), None) if not isinstance(event, Notice)]
    assert events[:6] == [
        PhaseBegan("text"),
        PhaseBegan("denoise"),
        Step(1, 3),
        Step(2, 3),
        Step(3, 3),
        PhaseBegan("decode"),
    ]
    (run,) = events[6:]
    assert isinstance(run, Decoded)
    assert (run.first_frame, run.frames.shape, run.frames.dtype) == (0, (8, 32, 48, 3), np.uint8)


def test_the_frames_are_those_of_the_pipeline(model: OpenSora) -> None:
    """The deployment drives the same functions, and knows the prompt's suffix."""
    made = tiny_pipeline()(
        "a red fox",
        height=32,
        width=48,
        num_frames=9,
        num_inference_steps=3,
        guidance_scale=4.0,
        motion_score=7,
        fps=24,
        latents=initial_noise(11, (1, 16, 3, 4, 6)),
        output_type="np",
    ).frames
    expected = np.asarray(made)[0][:8] * 255
    assert np.abs(frames(model, spec()) - expected).max() <= 1


def test_the_same_spec_gives_the_same_frames_and_another_seed_others(model: OpenSora) -> None:
    """All randomness comes from the seed."""
    first = frames(model, spec())
    assert np.array_equal(frames(model, spec()), first)
    assert not np.array_equal(frames(model, spec(seed=12)), first)


def test_an_image_begins_the_clip(model: OpenSora) -> None:
    """The first latent frame is the image's, whatever prompt and seed; the autoencoder normalises
    over the whole clip, so that its pixels depend a little on the rest."""
    conditioned = spec(conditioned=True)
    first = frames(model, conditioned, png())[0].astype(int)
    other = frames(model, conditioned.model_copy(update={"seed": 5, "prompt": "a hen"}), png())[0]
    another = frames(model, conditioned, png(seed=1))[0]
    assert 1.5 * np.abs(first - other).mean() < np.abs(first - another).mean()


def test_a_long_clip_is_joined_from_segments(model: OpenSora) -> None:
    """Every segment starts where the last one ended, and the frame they share comes once: 3 of 9
    frames make 25. Steps count over all segments."""
    long = spec(num_frames=22, segments=3)
    events = list(model.generate(long, None))
    steps = [event for event in events if isinstance(event, Step)]
    assert steps == [Step(n, 9) for n in range(1, 10)]
    runs = [event for event in events if isinstance(event, Decoded)]
    assert [(run.first_frame, len(run.frames)) for run in runs] == [(0, 9), (9, 8), (17, 5)]
    assert np.array_equal(runs[0].frames[:8], frames(model, spec()))


def test_a_segment_continues_as_if_the_last_frame_were_its_image(model: OpenSora) -> None:
    """The second segment of a clip is the clip that the first one's last frame begins."""
    both = frames(model, spec(num_frames=17, segments=2))
    file = io.BytesIO()
    Image.fromarray(both[8]).save(file, "PNG")
    alone = frames(model, spec(num_frames=9, seed=12, conditioned=True), file.getvalue())
    # The image is rounded to 8 bits, the frame between segments is not.
    assert np.abs(both[9:].astype(int) - alone[1:].astype(int)).max() <= 12


@pytest.mark.parametrize("events_before_stop", [1, 3, 7])
def test_a_stopped_job_leaves_no_trace_in_the_next_one(
    model: OpenSora, events_before_stop: int
) -> None:
    """During text, denoising and decoding; the next result is bit-identical."""
    clean = frames(model, spec())
    stopped = model.generate(spec(prompt="a blue hen", conditioned=True, segments=2), png())
    for _ in range(events_before_stop):
        next(stopped)
    stopped.close()
    assert np.array_equal(frames(model, spec()), clean)


def test_a_prompt_that_is_too_long_is_reported(model: OpenSora) -> None:
    """The job says what was left out instead of hiding it."""
    long = spec(prompt="x" * 300, negative_prompt="y" * 300)
    notices = [event.text for event in model.generate(long, None) if isinstance(event, Notice)]
    assert len(notices) == 2
    assert "prompt is longer than the 32 tokens" in notices[0]
    assert "negative prompt" in notices[1]


def test_the_card_says_what_the_checkpoint_can_do(folder: Path) -> None:
    """Limits and defaults come from the checkpoint; longer clips are continued."""
    card = BACKEND.card(CONFIG, checkpoint(folder, OpenSora.published.generation))
    assert (card.max_frames, card.segment_frames, card.frame_step) == (240, 129, 4)
    assert (card.num_inference_steps, card.guidance_scale) == (50, 7.5)
    assert card.accepts_image
    assert "Tencent Hunyuan" in card.licence
