"""The embeddings of the latest prompts, as many as fit into a given memory."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Encoded = TypeVar("Encoded")
OnLookup = Callable[[bool], None]


def nobody_counts(hit: bool) -> None:
    """Stand for an `on_lookup` where nobody wants to know."""


class PromptCache(Generic[Encoded]):
    """Encodes a prompt once while it is among the latest.

    Args:
        encode: turns a prompt into its embedding.
        size_bytes: the memory that an embedding takes.
        limit_bytes: most memory of all; the latest embedding is kept even if it alone takes more.
        on_lookup: told at each prompt whether its embedding was there.
    """

    def __init__(
        self,
        encode: Callable[[str], Encoded],
        size_bytes: Callable[[Encoded], int],
        limit_bytes: int,
        on_lookup: OnLookup,
    ) -> None:
        self._encode, self._size_bytes, self._limit_bytes = encode, size_bytes, limit_bytes
        self._on_lookup = on_lookup
        self._kept: OrderedDict[str, Encoded] = OrderedDict()

    def get(self, prompt: str) -> Encoded:
        """Return the embedding of `prompt`."""
        self._on_lookup(prompt in self._kept)
        if prompt not in self._kept:
            self._kept[prompt] = self._encode(prompt)
        self._kept.move_to_end(prompt)
        encoded = self._kept[prompt]
        while len(self._kept) > 1 and self._used_bytes() > self._limit_bytes:
            self._kept.popitem(last=False)
        return encoded

    def _used_bytes(self) -> int:
        return sum(self._size_bytes(encoded) for encoded in self._kept.values())
