"""The header of a safetensors file: which tensors it holds, without reading one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        shapes: of each tensor, by its key.
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
    try:
        # "numpy" is what its tensors would be; torch is not imported.
        with safe_open(path, "numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return Header(shapes, file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"is not a safetensors file, or damaged ({error})") from None
