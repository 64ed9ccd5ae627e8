"""The memory of the GPU that a model's process works on, as the process sees it.

Models on the CPU have none: their memory is not planned. torch is imported inside methods only.
"""

import gc
from typing import Protocol

from deployments.core.memory import GIB


class DeviceMemory(Protocol):
    """The memory of one device. 1 GB is 2**30 bytes."""

    def available_gb(self) -> float:
        """Return what this process can have, in GB: what is free and what it holds."""
        ...

    def total_gb(self) -> float:
        """Return the memory of the whole card, in GB."""
        ...

    def held_gb(self) -> float:
        """Return what the tensors of this process take, in GB."""
        ...

    def release(self) -> None:
        """Give back what no tensor needs any more."""
        ...


class CudaMemory:
    """The memory of a CUDA GPU.

    Args:
        device: "cuda" for the first GPU that this process sees.
    """

    def __init__(self, device: str) -> None:
        self._device = device

    def available_gb(self) -> float:
        """Return what this process can have, in GB: what is free and what it holds."""
        import torch

        free, _ = torch.cuda.mem_get_info(self._device)
        return (free + torch.cuda.memory_reserved(self._device)) / GIB

    def total_gb(self) -> float:
        """Return the memory of the whole card, in GB."""
        import torch

        _, total = torch.cuda.mem_get_info(self._device)
        return total / GIB

    def held_gb(self) -> float:
        """Return what the tensors of this process take, in GB."""
        import torch

        return torch.cuda.memory_allocated(self._device) / GIB

    def release(self) -> None:
        """Give back what no tensor needs any more."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def memory_of(device: str) -> DeviceMemory | None:
    """Return the memory of `device`, None for the CPU."""
    return None if device == "cpu" else CudaMemory(device)
