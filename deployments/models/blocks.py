"""The repeated blocks of a transformer of either model family."""

from collections.abc import Iterator
from typing import Any

from torch import nn

# In the order in which they run; Mochi has the first of these lists only.
BLOCK_LISTS = ("transformer_blocks", "single_transformer_blocks")


def blocks_of(transformer: Any) -> Iterator[nn.Module]:
    """Yield the blocks in the order in which they run."""
    for name in BLOCK_LISTS:
        yield from getattr(transformer, name, ())
