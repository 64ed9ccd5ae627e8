"""Let two checkpoints that hold the same network share its files.

Weights that are loaded in the type in which they are stored are not copied: PyTorch maps the file.
So processes whose networks stay on the CPU share one copy of them in memory, if it is one file.
Both published models bring T5 v1.1 XXL, 9.5 GB.
"""

import os
import shutil
from pathlib import Path

import torch

from deployments.models.loading import TIED, VARIANT, stored_variant
from deployments.models.shards import Tensor, in_safetensors

INDEX = ".safetensors.index"


def share_weights(kept: Path, replaced: Path) -> int:
    """Give the network in the folder `replaced` the files of weights of the one in `kept`, as hard
    links, if all its tensors are equal to the last bit; returns the bytes on the disk that are free
    then, 0 where nothing was to be done.

    Reads both networks once. A process that has the old files open goes on with them.

    Args: kept: a folder of a network in bfloat16; left alone.
    Raises:
        FileNotFoundError: one of them has no weights.
        OSError: the folder cannot be written, or is on another disk; it is as it was.
    """
    ours, theirs = _files(kept), _files(replaced)
    if {path.stat().st_ino for path in ours} == {path.stat().st_ino for path in theirs}:
        return 0
    if not _equal(_tensors(ours), _tensors(theirs)):
        return 0
    freed = sum(path.stat().st_size for path in theirs)
    part, old = (replaced.with_name(f"{replaced.name}.{end}") for end in ("part", "old"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        for path in replaced.iterdir():
            if path.suffix != ".safetensors" and INDEX not in path.name:
                shutil.copy2(path, part / path.name)
        for path in [*ours, *kept.glob(f"*{INDEX}*.json")]:
            # In the hub's cache the names are symbolic links.
            os.link(path.resolve(), part / path.name)
        replaced.rename(old)
        part.rename(replaced)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old)
    return freed


def _files(folder: Path) -> list[Path]:
    """Return the files that are read for a network in bfloat16."""
    variant = stored_variant(folder, torch.bfloat16)
    paths = sorted(folder.glob("*.safetensors"))
    return [path for path in paths if (f".{VARIANT}" in path.name) == (variant is not None)]


def _tensors(paths: list[Path]) -> dict[str, Tensor]:
    """Return the tensors by name; T5's embedding by the first of its two names."""
    found = {name: tensor for path in paths for name, tensor in in_safetensors(path).items()}
    for name in TIED & found.keys():
        found[min(TIED)] = found.pop(name)
    return found


def _equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    def kinds(tensors: dict[str, Tensor]) -> dict[str, object]:
        return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    # The headers first: whether sizes or types differ is known in a moment.
    return kinds(ours) == kinds(theirs) and all(
        torch.equal(tensor.make(), theirs[name].make()) for name, tensor in ours.items()
    )
