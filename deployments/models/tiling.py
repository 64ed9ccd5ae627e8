"""Cut frames into overlapping tiles, run a network on each, and blend what comes out."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import torch

TileNetwork = Callable[[torch.Tensor, int], torch.Tensor]
"""Turns a tile (B, C, T, h, w) into its result; also gets the tile's number, row by row from 0."""


def tile_by_tile(
    network: TileNetwork,
    inputs: torch.Tensor,
    side: int,
    stride: int,
    factor: Fraction,
    *,
    skip_covered: bool = False,
) -> Iterator[torch.Tensor | None]:
    """Yield None after each tile but the last, then the blended whole.

    Cut as by diffusers 0.42.1 autoencoder_kl_hunyuan_video.py (tiled_decode, tiled_encode). What
    fits into one tile is not cut.

    Args:
        network: is called once a tile.
        inputs: (B, C, T, height, width).
        side: most height and width of a tile of `inputs`.
        stride: distance of neighbouring tiles of `inputs`.
        factor: side of a result by side of its input.
        skip_covered: leave out the tiles that others cover already: narrow ones at the far edges,
            which normalise over few pixels. diffusers, and so Open-Sora's authors, do not.
    """
    height, width = inputs.shape[3:]
    if max(height, width) <= side:
        yield network(inputs, 0)
        return
    tops, lefts = (_starts(length, side, stride, skip_covered) for length in (height, width))
    blend, kept = int((side - stride) * factor), int(stride * factor)
    above: list[torch.Tensor] = []
    rows = []
    number = 0
    for top in tops:
        row: list[torch.Tensor] = []
        bottoms: list[torch.Tensor] = []
        right = inputs
        for column, left in enumerate(lefts):
            if number:
                yield None
            tile = network(inputs[..., top : top + side, left : left + side], number)
            number += 1
            if above:
                tile = blended(above[column], tile, blend, dim=-2)
            if row:
                tile = blended(right, tile, blend, dim=-1)
            right = tile[..., -blend:]
            # A copy, so that the row's tiles are freed once they are joined.
            bottoms.append(tile[..., -blend:, :].clone())
            rest = tile if top == tops[-1] else tile[..., :kept, :]
            row.append(rest if left == lefts[-1] else rest[..., :kept])
        above = bottoms
        rows.append(torch.cat(row, dim=-1))
    yield torch.cat(rows, dim=-2)


def _starts(length: int, side: int, stride: int, skip_covered: bool) -> range:
    covered = side - stride if skip_covered else 0
    return range(0, max(1, length - covered), stride)


def blended(before: torch.Tensor, after: torch.Tensor, extent: int, dim: int) -> torch.Tensor:
    """Return `after`, faded in over the last `extent` of `before` along `dim`; in place.

    From: diffusers 0.42.1 autoencoder_kl_hunyuan_video.py (blend_v, blend_h).
    """
    extent = min(before.shape[dim], after.shape[dim], extent)
    shape = [1] * after.ndim
    shape[dim] = extent
    share = (torch.arange(extent, device=after.device) / extent).view(shape)
    faded_out = before.narrow(dim, before.shape[dim] - extent, extent) * (1 - share)
    after.narrow(dim, 0, extent).mul_(share).add_(faded_out)
    return after
