"""Mochi's frames decoded in tiles: exact where one tile is enough, else close, in little memory."""

import weakref
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMochi
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from deployments.core.checkpoints import BUNDLED_DIR
from deployments.models.mochi1.decode import LOW_MEMORY_TILES, Tiles, decode
from tests.tiny_mochi import tiny_vae

# Tiles of 4 x 4 latents that overlap by one.
SMALL = Tiles(side=32, stride=24)
COPY = torch.ops.aten._to_copy.default


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLMochi:
    return tiny_vae()


def noise(latents: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 12, latents, height, width, generator=generator)


def decoded(vae: AutoencoderKLMochi, latents: torch.Tensor, **settings: Any) -> torch.Tensor:
    return torch.cat(list(decode(vae, latents, **settings)), dim=2)


def test_what_fits_into_one_tile_is_exact(vae: AutoencoderKLMochi) -> None:
    """Bit for bit the frames without tiles."""
    latents = noise(3, 4, 4)
    assert torch.equal(decoded(vae, latents, tiles=SMALL), decoded(vae, latents))
    small = noise(1, 32, 32)
    assert torch.equal(decoded(vae, small, tiles=LOW_MEMORY_TILES), decoded(vae, small))


@pytest.mark.parametrize(("height", "width"), [(4, 9), (7, 7), (10, 5), (5, 8)])
def test_every_pixel_is_there_and_runs_come_as_without_tiles(
    vae: AutoencoderKLMochi, height: int, width: int
) -> None:
    """Also where the last tile is a narrow one."""
    latents = noise(3, height, width)
    shapes = [tuple(run.shape) for run in decode(vae, latents, tiles=SMALL)]
    assert shapes == [tuple(run.shape) for run in decode(vae, latents)]


@pytest.mark.parametrize("chunk_latents", [2, 3])
def test_each_tile_remembers_its_own_past(vae: AutoencoderKLMochi, chunk_latents: int) -> None:
    """However many latents are decoded together: no tile sees another's frames."""
    latents = noise(4, 5, 7)
    one_by_one = decoded(vae, latents, tiles=SMALL)
    together = decoded(vae, latents, chunk_latents=chunk_latents, tiles=SMALL)
    torch.testing.assert_close(together, one_by_one, atol=1e-5, rtol=1e-5)


def test_a_tile_is_what_its_latents_alone_are_decoded_to(vae: AutoencoderKLMochi) -> None:
    """Where no other tile overlaps it."""
    latents = noise(2, 4, 8)
    alone = decoded(vae, latents[..., :4])
    tiled = decoded(vae, latents, tiles=SMALL)
    assert torch.equal(tiled[..., :24, :24], alone[..., :24, :24])


def test_a_smooth_picture_has_no_seams() -> None:
    """Of trained weights: close to the exact frames, and no steeper where tiles meet."""
    vae = AutoencoderKLMochi.from_pretrained(BUNDLED_DIR / "mochi-tiny" / "vae").eval()
    down, across = torch.linspace(-0.8, 0.8, 64)[:, None], torch.linspace(0.5, -0.5, 88)
    picture = torch.stack([down + 0 * across, 0 * down + across, down * across])
    frames = picture[None, :, None].expand(-1, -1, 7, -1, -1).contiguous()
    with torch.no_grad():
        latents = vae.encode(frames).latent_dist.mode()
    exact, tiled = decoded(vae, latents), decoded(vae, latents, tiles=SMALL)
    assert (tiled - exact).square().mean() < 10**-3.5 * 2**2  # 35 dB
    steps = [each.diff(dim=-1).abs().amax() for each in (exact, tiled)]
    assert steps[1] < 1.5 * steps[0]


class GpuBytes(TorchDispatchMode):
    """Takes the meta device for a GPU: counts what is alive there, and lets tensors leave it."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        to_cpu = function is COPY and kwargs.get("device") == torch.device("cpu")
        if to_cpu and args[0].is_meta:
            return torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        result = function(*args, **kwargs)
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def test_the_gpu_holds_one_tile_at_a_time() -> None:
    """Neither a longer clip nor larger frames take more; without tiles larger frames do."""
    vae = tiny_vae().to("meta")

    def peak(latents: int, height: int, width: int, tiles: Tiles | None) -> int:
        frames = torch.empty(1, 12, latents, height, width, device="meta")
        with GpuBytes() as alive:
            for _ in decode(vae, frames, frames_per_pass=1, tiles=tiles):
                pass
        return alive.peak

    one, several = peak(3, 4, 4, SMALL), peak(3, 7, 10, SMALL)
    assert several == pytest.approx(one, rel=0.1)
    # But for the latents.
    assert peak(9, 7, 10, SMALL) == pytest.approx(several, rel=0.01)
    assert peak(3, 7, 10, None) > 3 * one


def test_tiles_that_cannot_be_cut_are_refused() -> None:
    """A tile without overlap has seams, and a latent stands for 8 pixels."""
    with pytest.raises(ValueError, match="stride must be below side"):
        Tiles(side=256, stride=256)
    with pytest.raises(ValueError, match="multiples of 8"):
        Tiles(side=100, stride=90)
