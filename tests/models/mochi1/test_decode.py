"""The decode of Mochi's latents is the authors', however it is cut into chunks."""

import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLMochi
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from deployments.models.mochi1.decode import decode, decode_chunk, denormalise, to_uint8

DATA = Path(__file__).parents[2] / "data" / "mochi"
MANIFEST = json.loads((DATA / "manifest.json").read_text())
CASES = sorted(MANIFEST["cases"])


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLMochi:
    vae = AutoencoderKLMochi(**MANIFEST["vae_config"]).eval()
    weights = load_file(DATA / "vae_decoder_state_dict.safetensors")
    missing, unexpected = vae.load_state_dict(
        {name: tensor.float() for name, tensor in weights.items()}, strict=False
    )
    assert not unexpected
    assert all(name.startswith("encoder.") for name in missing)
    return vae


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    return load_file(DATA / "vae_decode.safetensors")


@pytest.mark.parametrize("frames_per_pass", [None, 1, 4])
@pytest.mark.parametrize("chunk_latents", [1, 2, 3, 100])
@pytest.mark.parametrize("case", CASES)
def test_frames_are_the_authors_for_every_chunk_size(
    vae: AutoencoderKLMochi,
    reference: dict[str, torch.Tensor],
    case: str,
    chunk_latents: int,
    frames_per_pass: int | None,
) -> None:
    """Decoding in time chunks is exact, and equal to genmo's decoder."""
    latents = reference[f"{case}.z"]
    runs = list(decode(vae, latents, chunk_latents, frames_per_pass=frames_per_pass))
    frames = torch.cat(runs, dim=2)
    torch.testing.assert_close(frames, reference[f"{case}.frames"], atol=1e-4, rtol=1e-4)


def test_one_pass_over_a_whole_clip_is_the_authors_too(
    vae: AutoencoderKLMochi, reference: dict[str, torch.Tensor]
) -> None:
    """`decode_chunk` on all latents at once, which training uses, is the same decode."""
    with torch.no_grad():
        frames = decode_chunk(vae.decoder, reference["clip.z"], {})
    torch.testing.assert_close(frames, reference["clip.frames"], atol=1e-4, rtol=1e-4)


def test_the_first_latent_gives_one_frame_and_each_other_gives_six(
    vae: AutoencoderKLMochi, reference: dict[str, torch.Tensor]
) -> None:
    """A clip of T latents has 6 * (T - 1) + 1 frames."""
    lengths = [frames.shape[2] for frames in decode(vae, reference["clip.z"])]
    assert lengths == [1, 6, 6, 6]


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and their most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self.count, result)
        return result

    def count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key, size)

    def gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def test_memory_does_not_grow_with_the_clip() -> None:
    """Twice the latents, the same peak.

    Counted for the full-size decoder on the meta device, where tensors have sizes only.
    """
    with torch.device("meta"):
        vae = AutoencoderKLMochi().to(torch.bfloat16)
        latents = torch.empty(1, 12, 4, 30, 53, dtype=torch.bfloat16)

    def peak_bytes_a_pixel(num_latents: int, frames_per_pass: int | None) -> float:
        with LiveBytes() as live:
            for _ in decode(vae, latents[:, :, :num_latents], frames_per_pass=frames_per_pass):
                pass
        return live.peak / (240 * 424)

    peak = peak_bytes_a_pixel(2, 1)
    assert peak_bytes_a_pixel(4, 1) == pytest.approx(peak, rel=0.01)
    assert peak_bytes_a_pixel(2, None) > 1.5 * peak


def test_interleaved_and_abandoned_decodes_do_not_touch_each_other(
    vae: AutoencoderKLMochi, reference: dict[str, torch.Tensor]
) -> None:
    """All state belongs to one call: a consumer may stop early, and two may take turns."""
    alone = list(decode(vae, reference["clip.z"]))
    abandoned = decode(vae, reference["long.z"])
    next(abandoned)
    first, second = decode(vae, reference["clip.z"]), decode(vae, -reference["clip.z"])
    pairs = list(zip(first, second, strict=True))
    abandoned.close()
    for (frames, _), expected in zip(pairs, alone, strict=True):
        assert torch.equal(frames, expected)


def test_decoding_leaves_the_vae_and_the_grad_mode_as_they_were(
    vae: AutoencoderKLMochi, reference: dict[str, torch.Tensor]
) -> None:
    """Stock decode gives the same before and after, also while a decode is under way."""
    with torch.no_grad():
        before = vae.decode(reference["single.z"]).sample
        running = decode(vae, reference["clip.z"])
        next(running)
        assert torch.equal(vae.decode(reference["single.z"]).sample, before)
    assert torch.is_grad_enabled()
    assert not next(running).requires_grad
    assert torch.is_grad_enabled()
    running.close()


def test_gradients_flow_through_a_chunk_when_they_are_enabled(
    vae: AutoencoderKLMochi, reference: dict[str, torch.Tensor]
) -> None:
    """Training the decoder uses the same forward."""
    latents = reference["single.z"].clone().requires_grad_()
    decode_chunk(vae.decoder, latents, {}).mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    vae.zero_grad()


@pytest.mark.parametrize("shape", [(12, 1, 4, 4), (2, 12, 1, 4, 4), (1, 12, 0, 4, 4)])
def test_latents_of_another_shape_are_refused(
    vae: AutoencoderKLMochi, shape: tuple[int, ...]
) -> None:
    """One clip at a time, with at least one latent."""
    with pytest.raises(ValueError, match="latents must be"):
        next(decode(vae, torch.zeros(shape)))


def test_a_chunk_has_at_least_one_latent(vae: AutoencoderKLMochi) -> None:
    """Zero would never end."""
    with pytest.raises(ValueError, match="chunk_latents"):
        next(decode(vae, torch.zeros(1, 12, 1, 2, 2), chunk_latents=0))


def test_denormalise_is_the_pipelines_formula(vae: AutoencoderKLMochi) -> None:
    """Zero latents are the mean, ones are mean + std."""
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    latents = torch.stack([torch.zeros(12), torch.ones(12)], dim=1)[None, :, :, None, None]
    expected = torch.stack([mean, mean + std], dim=1)
    torch.testing.assert_close(denormalise(vae, latents)[0, :, :, 0, 0], expected)


def test_frames_become_uint8_pixels_with_the_ends_clamped() -> None:
    """-1 is black, 1 is white, what lies beyond is cut, and the axes are (t, H, W, 3)."""
    frames = torch.tensor([-1.5, -1.0, 0.0, 1.0, 3.0]).view(1, 1, 5, 1, 1).expand(1, 3, 5, 2, 4)
    pixels = to_uint8(frames)
    assert pixels.shape == (5, 2, 4, 3)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0, 0].tolist() == [0, 0, 128, 255, 255]
