"""Between video latents and what the transformer reads: tokens, their positions, the condition.

B clips, T latent frames, h x w latent height and width (pixels / 8), L = T * h/2 * w/2 tokens.
"""

from collections.abc import Sequence

import torch

PATCH = 2


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Fold 2 x 2 neighbours into channels, and time, rows and columns into one sequence.

    Args:
        latents: (B, C, T, h, w), h and w even.

    Returns:
        (B, L, 4C), tokens in the order time, row, column; channels C, row, column.
    """
    batch, channels, frames, height, width = latents.shape
    rows, columns = height // PATCH, width // PATCH
    cells = latents.reshape(batch, channels, frames, rows, PATCH, columns, PATCH)
    return cells.permute(0, 2, 3, 5, 1, 4, 6).reshape(
        batch, frames * rows * columns, channels * PATCH**2
    )


def unpack(packed: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """Undo `pack`: (B, L, 4C) to (B, C, T, h, w) with T `frames`, h `height` and w `width`."""
    rows, columns = height // PATCH, width // PATCH
    cells = packed.reshape(packed.shape[0], frames, rows, columns, -1, PATCH, PATCH)
    return cells.permute(0, 4, 1, 2, 5, 3, 6).reshape(packed.shape[0], -1, frames, height, width)


def position_ids(frames: int, height: int, width: int) -> torch.Tensor:
    """Return (L, 3), float32: each token's latent frame, row and column, all from 0."""
    axes = (torch.arange(frames), torch.arange(height // PATCH), torch.arange(width // PATCH))
    return torch.cartesian_prod(*axes).view(-1, len(axes)).float()


def make_condition(
    latents_shape: Sequence[int],
    first: torch.Tensor | None = None,
    last: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the packed condition: which latent frames are given, and what they are.

    With neither `first` nor `last` it is zeros, which stands for text to video.

    Args:
        latents_shape: (B, 16, T, h, w).
        first: (B, 16, 1, h, w), scaled latents of the image that the clip begins with.
        last: like `first`, of the image that it ends with.

    Returns:
        (B, L, 68), float32, on the CPU: 4 channels of the mask, then 64 of the latents.
    """
    batch, channels, frames, height, width = latents_shape
    # The mask is the first channel: hpcaitech/Open-Sora@7ad6a96, cat((masks, masked_ref), dim=1).
    condition = torch.zeros(batch, 1 + channels, frames, height, width)
    for frame, reference in ((0, first), (-1, last)):
        if reference is not None:
            condition[:, 0, frame] = 1.0
            condition[:, 1:, frame] = reference[:, :, 0].float().cpu()
    return pack(condition)
