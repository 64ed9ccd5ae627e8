"""The pipeline joins the parts, checks what it is given, and survives saving and loading."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from deployments.models.opensora.autoencode import Tiling, decode, encode_frames, preprocess_image
from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from deployments.models.opensora.sampling import denoise, initial_noise
from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from deployments.models.opensora.text import PromptEncoder, prompt_with_suffix
from tests.tiny_opensora import tiny_pipeline, tiny_transformer

SIZE = {"height": 32, "width": 48, "num_frames": 9, "num_inference_steps": 2}
SHAPE = (1, 16, 3, 4, 6)


@pytest.fixture(scope="module")
def pipeline() -> OpenSoraPipeline:
    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_it_is_the_functions_of_the_package_joined(
    pipeline: OpenSoraPipeline, picture: Image.Image
) -> None:
    """Suffix for the prompt only, images at both ends, the shift of the clip's size."""
    encoder = PromptEncoder(
        pipeline.tokenizer, pipeline.text_encoder, pipeline.tokenizer_2, pipeline.text_encoder_2
    )
    images = [picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    first, last = (
        encode_frames(pipeline.vae, preprocess_image(image, 32, 48).unsqueeze(2))
        for image in images
    )
    *_, state = denoise(
        pipeline.transformer,
        initial_noise(3, SHAPE),
        encoder.encode(prompt_with_suffix("a fox", fps=30, motion_score=7)).embedding,
        encoder.encode("rain").embedding,
        timesteps(2, flow_shift(latent_frames=3, tokens_per_frame=6)),
        Guidance(text=5.0, image=2.0),
        first,
        last,
    )
    expected = torch.cat(list(decode(pipeline.vae, state.latents)), dim=2)
    (frames,) = pipeline(
        "a fox",
        *images,
        negative_prompt="rain",
        guidance_scale=5.0,
        image_guidance_scale=2.0,
        motion_score=7,
        fps=30,
        generator=torch.Generator().manual_seed(3),
        output_type="pt",
        return_dict=False,
        **SIZE,
    )
    expected = (expected / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    torch.testing.assert_close(frames, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("given", "passes"), [("", 2 + 2), ("image", 6), ("last_image", 6)])
def test_the_mode_follows_from_the_images(
    pipeline: OpenSoraPipeline, picture: Image.Image, given: str, passes: int
) -> None:
    """Text alone takes two passes a step; the given picture is where it belongs."""
    ran: list[int] = []
    hook = pipeline.transformer.register_forward_hook(lambda *_: ran.append(1))
    images = {given: picture} if given else {}
    latents = pipeline("a fox", output_type="latent", **images, **SIZE).frames
    hook.remove()
    assert len(ran) == passes
    if given:
        encoded = encode_frames(pipeline.vae, preprocess_image(picture, 32, 48).unsqueeze(2))
        frame = latents[:, :, :1] if given == "image" else latents[:, :, -1:]
        torch.testing.assert_close(frame, encoded)


def test_frames_are_pictures_unless_asked_otherwise(pipeline: OpenSoraPipeline) -> None:
    """One clip of so many pictures; cutting the decode does not change their number."""
    noise = initial_noise(0, SHAPE)
    (pictures,) = pipeline("a fox", latents=noise, **SIZE).frames
    assert [picture.size for picture in pictures] == [(48, 32)] * 9
    tiling = Tiling(side=32, side_stride=24)
    tiled = pipeline("a fox", latents=noise, output_type="np", tiling=tiling, **SIZE).frames
    assert tiled.shape == (1, 9, 32, 48, 3)


def test_one_frame_is_a_picture_from_text(pipeline: OpenSoraPipeline) -> None:
    """The shortest clip."""
    frames = pipeline("a fox", output_type="np", **{**SIZE, "num_frames": 1}).frames
    assert frames.shape == (1, 1, 32, 48, 3)


def test_each_step_is_shown_to_the_callback_which_may_stop_the_work(
    pipeline: OpenSoraPipeline,
) -> None:
    """With the time from which the step started; an exception passes through."""
    seen: list[tuple[int, float]] = []

    def watch(
        _: OpenSoraPipeline, step: int, time: float, tensors: dict[str, torch.Tensor]
    ) -> None:
        assert set(tensors) == {"latents", "predicted"}
        seen.append((step, time))
        if len(seen) == 3:
            raise KeyboardInterrupt

    pipeline("a fox", flow_shift=1.0, output_type="latent", callback_on_step_end=watch, **SIZE)
    assert seen == [(0, 1.0), (1, 0.5)]
    with pytest.raises(KeyboardInterrupt):
        pipeline("a fox", output_type="latent", callback_on_step_end=watch, **SIZE)


def test_a_saved_pipeline_loads_as_it_was(pipeline: OpenSoraPipeline, tmp_path: Path) -> None:
    """All seven components, in diffusers' layout."""
    pipeline.save_pretrained(tmp_path)
    loaded = OpenSoraPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    latents = [
        each("a fox", latents=initial_noise(0, SHAPE), output_type="latent", **SIZE).frames
        for each in (pipeline, loaded)
    ]
    torch.testing.assert_close(*latents, atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        "scheduler",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "transformer",
        "vae",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 40}, "height must be a multiple of 16, got 40"),
        ({"width": 0}, "width must be a multiple of 16, got 0"),
        ({"num_frames": 8}, r"num_frames must be 4k \+ 1"),
        ({"num_frames": 133}, "from 1 to 129, got 133"),
        ({"num_frames": -3}, "from 1 to 129, got -3"),
        ({"num_inference_steps": 0}, "num_steps must be at least 1"),
        ({"guidance_scale": 0.0}, "guidance.text must be at least 1"),
        ({"latents": torch.zeros(1, 16, 2, 4, 6)}, r"latents must be \(1, 16, 3, 4, 6\)"),
        ({"image": Image.new("L", (8, 8))}, "image must be RGB"),
        ({"image": Image.new("RGB", (8, 8)), "num_frames": 1}, "first needs"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    pipeline: OpenSoraPipeline, changes: dict[str, object], message: str
) -> None:
    """Nothing is rounded or left out in silence."""
    with pytest.raises(ValueError, match=message):
        pipeline("a fox", **{**SIZE, **changes})


def test_a_scheduler_that_would_ignore_the_shift_is_refused(pipeline: OpenSoraPipeline) -> None:
    """Its own shift would take the place of the clip's."""
    components = {**pipeline.components, "scheduler": FlowMatchEulerDiscreteScheduler()}
    with pytest.raises(ValueError, match="scheduler must have use_dynamic_shifting"):
        OpenSoraPipeline(**components)


def test_another_transformer_makes_another_clip(pipeline: OpenSoraPipeline) -> None:
    """The components are those of the instance."""
    other = OpenSoraPipeline(**{**pipeline.components, "transformer": tiny_transformer(seed=1)})
    other.set_progress_bar_config(disable=True)
    noise = initial_noise(0, SHAPE)
    ours, theirs = (
        each("a fox", latents=noise, output_type="latent", **SIZE).frames
        for each in (pipeline, other)
    )
    assert not torch.allclose(ours, theirs)
