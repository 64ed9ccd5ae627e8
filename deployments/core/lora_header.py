"""The header of a safetensors file: which tensors it holds, without reading one of them.

Format: 8 bytes, the length of a JSON object, little-endian; that object, with dtype, shape and
place of every tensor; the tensors. https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 16 * 2**20
METADATA = "__metadata__"


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        shapes: of each tensor, by its key, in the order of the file.
        metadata: words of whoever wrote it.
    """

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def read_header(path: Path, max_bytes: int | None = None) -> Header:
    """Return the header of `path`.

    Args: max_bytes: of the whole file; None for any size.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, cut off, or no safetensors file.
    """
    size_bytes = path.stat().st_size
    if max_bytes is not None and size_bytes > max_bytes:
        raise ValueError(f"has {size_bytes} bytes; at most {max_bytes} are read")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if not 0 < length <= min(MAX_HEADER_BYTES, size_bytes - LENGTH_BYTES):
            raise ValueError("is not a safetensors file, or cut off")
        raw = file.read(length)
    try:
        found = json.loads(raw)
        end = LENGTH_BYTES + length + max(_ends(found), default=0)
        header = _header(found)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise ValueError("is not a safetensors file: its header makes no sense") from None
    if end != size_bytes:
        raise ValueError(f"is damaged: {size_bytes} bytes, its header speaks of {end}")
    return header


def _header(found: dict[str, Any]) -> Header:
    metadata = found.pop(METADATA, {})
    return Header(
        shapes={key: tuple(map(int, tensor["shape"])) for key, tensor in found.items()},
        metadata={str(key): str(value) for key, value in metadata.items()},
    )


def _ends(found: dict[str, Any]) -> list[int]:
    return [int(tensor["data_offsets"][1]) for key, tensor in found.items() if key != METADATA]
