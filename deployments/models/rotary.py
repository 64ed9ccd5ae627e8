"""Rotary position embedding of queries and keys, in float32."""

import torch


def rotate(heads: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Turn each pair of neighbouring channels by its angle.

    Args:
        heads: (B, N, heads, head_dim).
        table: (N, heads or 1, head_dim / 2, 2), float32: cosine and sine.
    """
    pairs = heads.float().unflatten(-1, (-1, 2))
    if torch.compiler.is_compiling():
        # torch's compiler makes one kernel of this, and has none for complex numbers.
        (even, odd), (cos, sin) = pairs.unbind(-1), table.unbind(-1)
        pairs = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1)
    else:
        # The same product, in one pass over memory instead of seven.
        pairs = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(table))
    return pairs.flatten(-2).to(heads.dtype)
