"""HunyuanVideo's autoencoder, which is Open-Sora's, as numbers.

Shapes: diffusers 0.42.1 models/autoencoders/autoencoder_kl_hunyuan_video.py; cut into tiles as
deployments/models/opensora/autoencode.py does.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

SIDE_PER_LATENT, FRAMES_PER_LATENT = 8, 4
# hpcaitech/Open-Sora@7ad6a96: tiles of 256 pixels at a distance of 192, all frames together.
TILE_SIDE, TILE_STRIDE = 256, 192
# HunyuanVideo's own, for less memory: 65 frames at a distance of 48.
TILE_LATENTS, TILE_LATENTS_STRIDE = 16, 12
# The decoder doubles the sides three times, and the frames at which of them.
DOUBLES_FRAMES = (False, True, True)


@dataclass(frozen=True)
class Convolution:
    """Some equal convolutions or matrix products: of `positions` results each."""

    inputs: int
    outputs: int
    positions: int
    kernel: int = 27
    times: int = 1

    @property
    def num_parameters(self) -> int:
        """The weights with their biases."""
        return self.times * (self.kernel * self.inputs + 1) * self.outputs

    @property
    def flops(self) -> int:
        """The operations."""
        return 2 * self.times * self.kernel * self.inputs * self.outputs * self.positions


@dataclass(frozen=True)
class HunyuanAutoencoder:
    """HunyuanVideo's causal autoencoder; by default the published one.

    Tiles are given as (latent frames, height, width), the sides in latents.
    """

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    mid_block_add_attention: bool = True

    def num_parameters(self) -> int:
        """Return the number of weights, the encoder's included."""
        first, last = self.block_out_channels[0], self.block_out_channels[-1]
        convolutions = [*self._encoder(1, 1), *self._decoder(1, 1, 1)]
        norms = 2 * (last + first) + 2 * self._norms_in_middle()
        norms += self._norms(self.block_out_channels, self.layers_per_block)
        norms += self._norms(self.block_out_channels[::-1], self.layers_per_block + 1)
        return sum(each.num_parameters for each in convolutions) + norms

    def decode_flops(self, latents: int, height: int, width: int) -> int:
        """Return the operations of decoding one tile."""
        return self._flops(self._decoder(latents, height, width), latents * height * width)

    def encode_flops(self, height: int, width: int) -> int:
        """Return the operations of encoding one tile of one frame."""
        return self._flops(self._encoder(height, width), height * width)

    def decode_bytes(self, latents: int, height: int, width: int, itemsize: int) -> int:
        """Return the peak of decoding one tile: in the last convolution that enlarges.

        Alive are the input of its block, the last residual block's result, the enlarged first and
        other frames, both joined, the same with borders, and the convolution's result. (The mask
        of the attention in the middle would take more for more than 300 frames at once.)
        """
        outer, inner = self.block_out_channels[1], self.block_out_channels[2]
        frames, half = _frames(latents), 2 * latents - 1
        rows, columns = SIDE_PER_LATENT * height, SIDE_PER_LATENT * width
        area = rows * columns
        before = (inner + outer) * half * area // 4
        padded = (frames + 2) * (rows + 2) * (columns + 2)
        return itemsize * (before + outer * (3 * frames * area + padded))

    def encode_bytes(self, height: int, width: int, itemsize: int) -> int:
        """Return the peak of encoding one tile of one frame: in its first residual block.

        Alive are the block's input three times over, its activated form, the same with borders and
        the two frames before it, and the convolution's result.
        """
        rows, columns = SIDE_PER_LATENT * height, SIDE_PER_LATENT * width
        padded = 3 * (rows + 2) * (columns + 2)
        return itemsize * self.block_out_channels[0] * (4 * rows * columns + padded)

    def _flops(self, convolutions: Iterator[Convolution], tokens: int) -> int:
        attention = 4 * tokens**2 * self.block_out_channels[-1]
        attended = attention if self.mid_block_add_attention else 0
        return sum(each.flops for each in convolutions) + attended

    def _encoder(self, height: int, width: int) -> Iterator[Convolution]:
        channels = self.block_out_channels
        places = [_positions(1, height, width, doublings) for doublings in (3, 2, 1, 0)]
        yield Convolution(self.in_channels, channels[0], places[0])
        before = channels[0]
        for i, after in enumerate(channels):
            yield from _resnets(before, after, self.layers_per_block, places[i])
            if i < len(DOUBLES_FRAMES):
                yield Convolution(after, after, places[i + 1])
            before = after
        yield from self._middle(places[-1])
        yield Convolution(before, 2 * self.latent_channels, places[-1])
        moments = 2 * self.latent_channels
        yield Convolution(moments, moments, places[-1], kernel=1)

    def _decoder(self, latents: int, height: int, width: int) -> Iterator[Convolution]:
        channels = self.block_out_channels[::-1]
        places = [_positions(latents, height, width, doublings) for doublings in range(4)]
        yield Convolution(self.latent_channels, self.latent_channels, places[0], kernel=1)
        yield Convolution(self.latent_channels, channels[0], places[0])
        yield from self._middle(places[0])
        before = channels[0]
        for i, after in enumerate(channels):
            yield from _resnets(before, after, self.layers_per_block + 1, places[i])
            if i < len(DOUBLES_FRAMES):
                yield Convolution(after, after, places[i + 1])
            before = after
        yield Convolution(before, self.out_channels, places[-1])

    def _middle(self, positions: int) -> Iterator[Convolution]:
        width = self.block_out_channels[-1]
        yield from _resnets(width, width, 2, positions)
        if self.mid_block_add_attention:
            yield Convolution(width, width, positions, kernel=1, times=4)

    def _norms_in_middle(self) -> int:
        width = self.block_out_channels[-1]
        return 8 * width + (2 * width if self.mid_block_add_attention else 0)

    @staticmethod
    def _norms(channels: tuple[int, ...], layers: int) -> int:
        steps = pairwise((channels[0], *channels))
        return sum(2 * (before - after) + 4 * layers * after for before, after in steps if layers)


def tiles(frames: int, height: int, width: int, *, in_time: bool) -> Iterator[tuple[int, int, int]]:
    """Yield the tiles of a clip: latent frames, height and width, in latents.

    Args: in_time: some frames at a time instead of all, which takes less memory.
    """
    latents = (frames - 1) // FRAMES_PER_LATENT + 1
    for depth in _parts(latents) if in_time else [latents]:
        for rows in _cuts(height // SIDE_PER_LATENT, max(height, width)):
            for columns in _cuts(width // SIDE_PER_LATENT, max(height, width)):
                yield depth, rows, columns


def _cuts(side: int, longer_side: int) -> list[int]:
    """Return the lengths of the tiles along a side of so many latents."""
    if longer_side <= TILE_SIDE:
        return [side]
    most, stride = TILE_SIDE // SIDE_PER_LATENT, TILE_STRIDE // SIDE_PER_LATENT
    return [min(most, side - start) for start in range(0, side, stride)]


def _parts(latents: int) -> list[int]:
    """Return the lengths of the tiles along the time."""
    if latents <= TILE_LATENTS:
        return [latents]
    starts = range(0, latents - 1, TILE_LATENTS_STRIDE)
    return [min(TILE_LATENTS + 1, latents - start) for start in starts]


def _resnets(before: int, after: int, count: int, positions: int) -> Iterator[Convolution]:
    if not count:
        return
    yield Convolution(before, after, positions)
    yield Convolution(after, after, positions, times=2 * count - 1)
    if before != after:
        yield Convolution(before, after, positions, kernel=1)


def _positions(latents: int, height: int, width: int, doublings: int) -> int:
    """Return how many positions there are after so many of the decoder's doublings."""
    frames = latents
    for doubles in DOUBLES_FRAMES[:doublings]:
        frames = 2 * frames - 1 if doubles else frames
    return frames * height * width * 4**doublings


def _frames(latents: int) -> int:
    return FRAMES_PER_LATENT * (latents - 1) + 1
