"""Small pictures from the latents that a sampler foresees."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deployments.models.preview_fit import Autoencoder, drawn_clips, fit
from deployments.models.previewing import MOST_PREVIEWS, PREVIEW_MAP, PreviewMap, Previews

CHECKPOINTS = Path("checkpoints")


def two_channels() -> PreviewMap:
    """Red and green by their channels, blue always half."""
    return PreviewMap(torch.tensor([[1.0, 0, 0], [0, 1, 0]]), torch.zeros(3))


def pixels(picture: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(picture)) as opened:
        assert (opened.format, opened.mode) == ("JPEG", "RGB")
        return np.asarray(opened).astype(int)


def test_a_picture_shows_the_middle_latent_frame() -> None:
    """A pixel for each latent, upright; not the first frame, which may be given."""
    latents = torch.zeros(1, 2, 3, 16, 24)
    latents[:, 0, 1] = 1
    latents[:, 1, 1, :, :12] = -1
    latents[:, :, 0] = latents[:, :, 2] = 9
    shown = pixels(two_channels().picture(latents))
    assert shown.shape == (16, 24, 3)
    assert np.abs(shown[8, 4] - (255, 0, 128)).max() < 8
    assert np.abs(shown[8, 20] - (255, 128, 128)).max() < 8


@pytest.mark.parametrize(("num_steps", "count"), [(2, 2), (8, 8), (20, 12), (64, 12), (200, 12)])
def test_previews_come_at_equal_distances(num_steps: int, count: int) -> None:
    """At most twelve of a job, the last after its last step."""
    previews = Previews(two_channels(), num_steps)
    latents = torch.zeros(1, 2, 1, 2, 2)
    shown = [step for step in range(1, num_steps + 1) if previews.after(step, latents)]
    assert len(shown) == count <= MOST_PREVIEWS
    assert shown[-1] == num_steps
    distances = np.diff([0, *shown])
    assert distances.max() - distances.min() <= 1


def test_without_a_map_nothing_is_computed(tmp_path: Path) -> None:
    """A checkpoint without one has no previews; the latents are not even looked at."""
    assert PreviewMap.read(tmp_path, 12) is None
    nothing: torch.Tensor = None  # type: ignore[assignment]
    assert Previews(None, 2).after(2, nothing) is None


def test_a_map_is_read_as_it_was_written(tmp_path: Path) -> None:
    """To five digits."""
    torch.manual_seed(0)
    written = PreviewMap(torch.randn(12, 3), torch.randn(3))
    written.write(tmp_path)
    read = PreviewMap.read(tmp_path, 12)
    assert read is not None
    assert (read.weight.dtype, read.bias.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(read.weight, written.weight, atol=1e-5, rtol=0)
    torch.testing.assert_close(read.bias, written.bias, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "stored",
    ["{", "{}", '{"weight": [[1, 2, 3]], "bias": [0, 0, 0]}', '{"weight": "x", "bias": 1}'],
)
def test_what_is_no_map_of_the_checkpoint_is_refused(tmp_path: Path, stored: str) -> None:
    """By its name."""
    (tmp_path / PREVIEW_MAP).write_text(stored)
    with pytest.raises(ValueError, match=PREVIEW_MAP):
        PreviewMap.read(tmp_path, 12)


def test_a_linear_autoencoder_is_fitted_exactly() -> None:
    """The map undoes what it does to colours; channels that carry no colour count for nothing."""
    mix = torch.tensor([[2.0, 1, 0], [0, 1, 1], [1, 0, 3]])

    def encode(frames: torch.Tensor) -> torch.Tensor:
        first = frames[:, :, :1]
        later = frames[:, :, 1:].unflatten(2, (-1, 4)).mean(dim=3)
        means = torch.nn.functional.avg_pool3d(torch.cat([first, later], dim=2), (1, 8, 8))
        colours = torch.einsum("bcthw,ck->bkthw", means, mix) + 0.25
        noise = torch.randn(1, 1, *means.shape[2:], generator=torch.Generator().manual_seed(3))
        return torch.cat([colours, noise], dim=1)

    found = fit(Autoencoder(encode, 4), drawn_clips(4, 64, num_frames=5))
    assert found.r_squared > 0.9999
    expected = torch.cat([torch.linalg.inv(mix), torch.zeros(1, 3)])
    torch.testing.assert_close(found.preview_map.weight, expected, atol=1e-3, rtol=0)


def test_a_clip_that_is_not_encoded_to_its_grid_is_an_error() -> None:
    """The colours would belong to other places."""
    wrong = Autoencoder(lambda frames: torch.zeros(1, 4, 1, 2, 2), 4)
    with pytest.raises(ValueError, match="not of that grid"):
        fit(wrong, drawn_clips(4, 64, num_frames=5))


def test_drawn_clips_are_the_same_every_time_and_show_many_colours() -> None:
    """From dark to light in each channel."""
    first, again = (torch.cat(list(drawn_clips(6, 32))) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (6, 3, 13, 32, 32)
    assert first.abs().amax() <= 1
    assert (first.transpose(0, 1).flatten(1).std(dim=1) > 0.3).all()


@pytest.mark.parametrize(("name", "channels"), [("mochi-tiny", 12), ("opensora-tiny", 16)])
def test_the_bundled_checkpoints_have_maps(name: str, channels: int) -> None:
    """Of a few bytes."""
    assert PreviewMap.read(CHECKPOINTS / name, channels) is not None
    path = CHECKPOINTS / name / PREVIEW_MAP
    assert path.stat().st_size < 3000
    assert set(json.loads(path.read_text())) == {"weight", "bias"}
