"""Images are cut and clips decoded as the authors do; decoding can be stopped at each tile."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.video_processor import VideoProcessor
from PIL import Image

from deployments.models.opensora.autoencode import (
    AUTHORS_TILING,
    LOW_MEMORY_TILING,
    Tiling,
    decode,
    encode_frames,
    preprocess_image,
    to_uint8,
)
from tests.tiny_opensora import reference, reference_vae

# The tiles of the conformance data; 8 px of 32 and 4 frames of 16 overlap.
SMALL = Tiling(side=32, side_stride=24)
TILINGS = {
    "plain": AUTHORS_TILING,
    "image": AUTHORS_TILING,
    "spatial_tiled": SMALL,
    "temporal_tiled": Tiling(frames=16, frames_stride=12),
}


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLHunyuanVideo:
    return reference_vae()


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    return reference("vae_forward")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("case", ["plain", "image", "spatial_tiled"])
def test_latents_are_the_authors(
    vae: AutoencoderKLHunyuanVideo, data: dict[str, torch.Tensor], case: str
) -> None:
    """The posterior's mean, scaled."""
    latents = encode_frames(vae, data[f"{case}.video"], TILINGS[case])
    torch.testing.assert_close(latents, data[f"{case}.latents"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", sorted(TILINGS))
def test_frames_are_the_authors(
    vae: AutoencoderKLHunyuanVideo, data: dict[str, torch.Tensor], case: str
) -> None:
    """Whole, and cut in space or in time."""
    frames = torch.cat(list(decode(vae, data[f"{case}.latents"], TILINGS[case])), dim=2)
    torch.testing.assert_close(frames, data[f"{case}.decoded"], atol=1e-4, rtol=1e-4)


def test_the_moments_of_diffusers_autoencoder_are_the_authors_in_every_tiling(
    data: dict[str, torch.Tensor],
) -> None:
    """Encoding in temporal tiles, which nothing here needs, agrees in its own class."""
    for case, tiling in TILINGS.items():
        vae = reference_vae()
        vae.enable_tiling(tiling.side, tiling.side, 16, tiling.side_stride, tiling.side_stride, 12)
        vae.use_framewise_encoding = tiling.frames is not None
        with torch.no_grad():
            moments = vae.encode(data[f"{case}.video"]).latent_dist.parameters
        torch.testing.assert_close(moments, data[f"{case}.moments"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_latents", [4, 5, 6, 7])
def test_tiles_in_space_and_time_are_blended_as_diffusers_does(num_latents: int) -> None:
    """Also a clip that ends within an overlap, and sides that leave a narrow last tile."""
    vae = reference_vae()
    latents = noise(1, 4, num_latents, 2, 3)
    tiling = Tiling(side=16, side_stride=8, frames=16, frames_stride=8)
    frames = torch.cat(list(decode(vae, latents, tiling)), dim=2)
    vae.enable_tiling(16, 16, 16, 8, 8, 8)
    with torch.no_grad():
        expected = vae.decode(latents / vae.config.scaling_factor).sample
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=1e-5)


def test_frames_come_as_soon_as_they_are_final(vae: AutoencoderKLHunyuanVideo) -> None:
    """Between the tiles that complete none come runs without frames."""
    latents = noise(1, 4, 6, 2, 3)
    in_space = Tiling(side=16, side_stride=8)
    assert [run.shape[2] for run in decode(vae, latents, in_space)] == [0, 0, 0, 0, 0, 21]
    in_time = Tiling(frames=16, frames_stride=8)
    assert [run.shape[2] for run in decode(vae, latents, in_time)] == [9, 8, 4]


def test_control_returns_after_every_tile(vae: AutoencoderKLHunyuanVideo) -> None:
    """So a job stops within the time of one."""
    tiles: list[int] = []
    hook = vae.decoder.register_forward_hook(lambda *_: tiles.append(1))
    runs = decode(vae, noise(1, 4, 1, 6, 6), SMALL)
    for done, _ in enumerate(runs, start=1):
        assert len(tiles) == done
    hook.remove()
    assert len(tiles) == 4


def test_the_low_memory_tiles_are_those_of_hunyuan_video() -> None:
    """64 frames, 16 of which overlap; the authors' own tiles are in space only."""
    assert (LOW_MEMORY_TILING.frames, LOW_MEMORY_TILING.frames_stride) == (64, 48)
    assert (AUTHORS_TILING.side, AUTHORS_TILING.side_stride) == (256, 192)
    assert AUTHORS_TILING.frames is None


def attributes(vae: AutoencoderKLHunyuanVideo) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(vae).items()
        if name.startswith(("use_", "tile_")) and not callable(value)
    }


def test_the_autoencoders_own_settings_are_neither_read_nor_changed(
    data: dict[str, torch.Tensor],
) -> None:
    """Whatever another caller has set."""
    vae = reference_vae()
    vae.enable_tiling(16, 16, 8, 8, 8, 4)
    before = attributes(vae)
    assert before["use_tiling"]
    runs = decode(vae, data["plain.latents"])
    frames = next(runs)
    runs.close()
    torch.testing.assert_close(frames, data["plain.decoded"], atol=1e-4, rtol=1e-4)
    latents = encode_frames(vae, data["plain.video"])
    torch.testing.assert_close(latents, data["plain.latents"], atol=1e-5, rtol=1e-5)
    assert attributes(vae) == before


def test_bfloat16_weights_give_float32_frames(data: dict[str, torch.Tensor]) -> None:
    """On the CPU, wherever the weights are."""
    vae = reference_vae().to(torch.bfloat16)
    frames = next(decode(vae, data["image.latents"]))
    assert frames.dtype == torch.float32
    assert (frames - data["image.decoded"]).abs().mean() < 0.05
    assert encode_frames(vae, data["image.video"]).dtype == torch.float32


def test_the_callers_grad_mode_holds_between_two_tiles(vae: AutoencoderKLHunyuanVideo) -> None:
    """Decoding itself keeps no graph."""
    runs = decode(vae, noise(1, 4, 1, 4, 6), SMALL)
    next(runs)
    assert torch.is_grad_enabled()
    assert not any(run.requires_grad for run in runs)


@pytest.fixture
def photo() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("height", "width"), [(74, 122), (37, 16), (16, 61), (48, 61)])
def test_where_no_side_is_rounded_an_image_is_cut_as_diffusers_does(
    photo: Image.Image, height: int, width: int
) -> None:
    """Its rounding differs from the authors', its bicubic resize and its range do not."""
    processor = VideoProcessor(vae_scale_factor=1, resample="bicubic")
    if (height, width) == (48, 61):
        photo = photo.resize((61, 96))
    expected = processor.preprocess(photo, height, width, resize_mode="crop")
    torch.testing.assert_close(preprocess_image(photo, height, width), expected)


@pytest.mark.parametrize(
    ("size", "resized", "box"),
    [
        # 61 * 16 / 37 is 26.4, rounded to 26: 5 px are cut left and right.
        ((16, 16), (26, 16), (5, 0, 21, 16)),
        # 37 * 48 / 61 is 29.1, rounded to 29: 13 px are over, 6.5 a side, rounded to the even 6.
        ((16, 48), (48, 29), (0, 6, 48, 22)),
        # 61 * 32 / 37 is 52.8, rounded up to 53, where diffusers takes 52.
        ((32, 48), (53, 32), (2, 0, 50, 32)),
    ],
)
def test_an_image_fills_the_frame_and_is_cut_in_the_middle(
    photo: Image.Image,
    size: tuple[int, int],
    resized: tuple[int, int],
    box: tuple[int, int, int, int],
) -> None:
    """The other side is rounded to the nearest pixel, as the authors do."""
    expected = np.array(photo.resize(resized, Image.Resampling.BICUBIC).crop(box))
    ours = preprocess_image(photo, *size)
    assert ours.shape == (1, 3, *size)
    pixels = ((ours[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    assert np.array_equal(pixels, expected)
    assert -1 <= ours.min() < -0.5 < 0.5 < ours.max() <= 1


def test_frames_become_uint8_pixels_with_the_ends_clamped() -> None:
    """-1 is black, 1 is white, what lies beyond is cut, and the axes are (t, H, W, 3)."""
    frames = torch.tensor([-1.5, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 5, 1, 1).expand(1, 3, 5, 2, 4)
    pixels = to_uint8(frames)
    assert pixels.shape == (5, 2, 4, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(frames[:, :, :0]).shape == (0, 2, 4, 3)


@pytest.mark.parametrize("shape", [(4, 1, 2, 2), (1, 3, 1, 2, 2), (1, 4, 0, 2, 2)])
def test_latents_of_another_shape_are_refused(
    vae: AutoencoderKLHunyuanVideo, shape: tuple[int, ...]
) -> None:
    """What they must be is named."""
    with pytest.raises(ValueError, match=r"latents must be \(B, 4, T, h, w\)"):
        next(decode(vae, torch.zeros(shape)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 1, 16, 16), "frames must be"),
        ((1, 4, 1, 16, 16), "frames must be"),
        ((1, 3, 4, 16, 16), r"4k \+ 1"),
        ((1, 3, 1, 16, 12), "multiples of 8"),
    ],
)
def test_frames_that_cannot_be_encoded_are_refused(
    vae: AutoencoderKLHunyuanVideo, shape: tuple[int, ...], message: str
) -> None:
    """Other counts of frames would lose some without a word."""
    with pytest.raises(ValueError, match=message):
        encode_frames(vae, torch.zeros(shape))


def test_an_image_of_another_mode_is_refused() -> None:
    """What to do with alpha or grey is the caller's decision."""
    with pytest.raises(ValueError, match="image must be RGB, got RGBA"):
        preprocess_image(Image.new("RGBA", (8, 8)), 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 32, "side_stride": 32}, "side_stride must be below side"),
        ({"side": 36, "side_stride": 24}, "multiples of 8"),
        ({"frames": 16, "frames_stride": 16}, "frames_stride must be below frames"),
        ({"frames": 16, "frames_stride": 10}, "multiples of 4"),
    ],
)
def test_tiles_that_do_not_overlap_or_cut_latents_are_refused(
    changes: dict[str, int], message: str
) -> None:
    """By name."""
    with pytest.raises(ValueError, match=message):
        Tiling(**changes)
