"""Copy large checkpoints with little memory: read and write their tensors one at a time.

The format is that of safetensors: the length of a header, the header in JSON with the place of each
tensor, then the tensors. The library's own writer wants a whole file's tensors in memory.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

SHARD_BYTES = 5 * 10**9
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Tensor:
    """A tensor that can be had when it is needed.

    Attributes:
        make: returns it; its shape and dtype are those said here.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], torch.Tensor]

    @property
    def size_bytes(self) -> int:
        """What it takes in a file."""
        return prod(self.shape) * self.dtype.itemsize

    def then(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Tensor":
        """Return what `change` makes of it, as large as `change` makes a tensor without data."""
        empty = change(torch.empty(self.shape, dtype=self.dtype, device="meta"))
        return Tensor(tuple(empty.shape), empty.dtype, lambda: change(self.make()))


def stored_tensors(folder: Path) -> dict[str, Tensor]:
    """Return the tensors in the files of weights in `folder`, of which only the headers are read.

    Files of safetensors are preferred; `.bin` files, PyTorch's own, are read without running code.

    Raises: FileNotFoundError: there are none of either.
    """
    for suffix, reader in ((".safetensors", in_safetensors), (".bin", _in_bin)):
        if paths := sorted(folder.glob(f"*{suffix}")):
            return {name: tensor for path in paths for name, tensor in reader(path).items()}
    raise FileNotFoundError(f"{folder.name} holds no .safetensors files")


def in_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors in one file, of which only the header is read."""

    def make(name: str) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            # Opened for each tensor: whatever was read of a file counts as memory of this process
            # for as long as it is open.
            with safe_open(path, "pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
            return tensor

        return read

    tensors = {}
    with safe_open(path, "pt") as file:
        names: Iterable[str] = file.keys()
        for name in names:
            view = file.get_slice(name)
            if view.get_dtype() not in DTYPES:
                raise ValueError(f"{path.name}: {name} is of type {view.get_dtype()}")
            tensors[name] = Tensor(tuple(view.get_shape()), DTYPES[view.get_dtype()], make(name))
    return tensors


def _in_bin(path: Path) -> dict[str, Tensor]:
    def load() -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = torch.load(path, mmap=True, weights_only=True)
        return tensors

    def make(name: str) -> Callable[[], torch.Tensor]:
        return lambda: load()[name]

    return {
        name: Tensor(tuple(tensor.shape), tensor.dtype, make(name))
        for name, tensor in load().items()
    }


def write_shards(
    folder: Path, stem: str, tensors: dict[str, Tensor], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write `tensors` as `from_pretrained` reads them: one file, or shards and their index.

    Takes the memory of one tensor at a time.

    Args:
        folder: of the network; exists.
        stem: "diffusion_pytorch_model" for diffusers, "model" for transformers.
        tensors: by name.
        shard_bytes: most bytes of tensors in a file, unless one alone is larger.
    """
    shards: list[list[str]] = [[]]
    used = 0
    for name, tensor in tensors.items():
        if shards[-1] and used + tensor.size_bytes > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += tensor.size_bytes
    if len(shards) == 1:
        _write_file(folder / f"{stem}.safetensors", shards[0], tensors)
        return
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = f"{stem}-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / file_name, names, tensors)
        places |= dict.fromkeys(names, file_name)
    total = sum(tensor.size_bytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _write_file(path: Path, names: Sequence[str], tensors: dict[str, Tensor]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        tensor = tensors[name]
        header[name] = {
            "dtype": DTYPE_NAMES[tensor.dtype],
            "shape": tensor.shape,
            "data_offsets": (offset, offset := offset + tensor.size_bytes),
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_content(name, tensors[name]))
        file.flush()
        os.fsync(file.fileno())


def _content(name: str, tensor: Tensor) -> Any:
    """Return the bytes of a tensor, which is freed with them."""
    made = tensor.make()
    if (tuple(made.shape), made.dtype) != (tensor.shape, tensor.dtype):
        raise ValueError(f"{name} is {made.dtype} {tuple(made.shape)}, not as announced")
    return made.contiguous().flatten().view(torch.uint8).numpy()
