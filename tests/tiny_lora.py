"""LoRA files with random weights, made for a network on the fly."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

Matrices = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""(down, up) by the name of the layer."""


def random_lora(
    network: torch.nn.Module, layers: Iterable[str], rank: int = 2, seed: int = 0
) -> Matrices:
    """Matrices large enough to be seen: each changes its layer's weights by about their size."""
    generator = torch.Generator().manual_seed(seed)
    found: Matrices = {}
    for name in layers:
        out, into = network.get_submodule(name).weight.shape
        found[name] = (
            torch.randn(rank, into, generator=generator) / into**0.5,
            torch.randn(out, rank, generator=generator) / rank**0.5,
        )
    return found


def write_lora(
    path: Path,
    matrices: Matrices,
    prefix: str = "transformer.",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a file as diffusers' `save_lora_weights` does."""
    tensors = {}
    for name, (down, up) in matrices.items():
        tensors[f"{prefix}{name}.lora_A.weight"] = down
        tensors[f"{prefix}{name}.lora_B.weight"] = up
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path


def merge(network: torch.nn.Module, matrices: Matrices, strength: float = 1.0) -> None:
    """Add a LoRA to the weights themselves."""
    for name, (down, up) in matrices.items():
        network.get_submodule(name).weight.data += strength * up @ down
