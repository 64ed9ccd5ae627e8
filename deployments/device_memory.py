"""The memory of the GPU that a model's process works on, as the process sees it.

Models on the CPU have none: their memory is not planned. torch is imported inside methods only.
"""

import gc
import os
from typing import Protocol

from deployments.core.memory import GIB

# Memory grows and shrinks in pieces, so that less of it lies idle between tensors of all sizes.
ALLOCATOR = "expandable_segments:True"
# The second is what the first was called before.
ALLOCATOR_SETTINGS = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")


class DeviceMemory(Protocol):
    """The memory of one device. 1 GB is 2**30 bytes."""

    def limit(self) -> None:
        """Hold this process to its part of the card; once, before anything is loaded."""
        ...

    def available_gb(self) -> float:
        """Return what this process can have, in GB: what is free and what it holds, within its
        part of the card."""
        ...

    def total_gb(self) -> float:
        """Return the most that this process can ever have, in GB: its part of the whole card."""
        ...

    def held_gb(self) -> float:
        """Return what the tensors of this process take, in GB.

        Raises: RuntimeError: the device does not work any more.
        """
        ...

    def release(self) -> None:
        """Give back what no tensor needs any more."""
        ...


class CudaMemory:
    """The memory of a CUDA GPU.

    Args:
        device: "cuda" for the first GPU that this process sees.
        fraction: most of the card that this process may allocate.
    """

    def __init__(self, device: str, fraction: float = 1.0) -> None:
        self._device, self._fraction = device, fraction

    def limit(self) -> None:
        """Hold this process to its part of the card; once, before anything is loaded."""
        import torch

        # Without a device it is the first one; "cuda" without a number would be refused.
        torch.cuda.set_per_process_memory_fraction(self._fraction)

    def available_gb(self) -> float:
        """Return what this process can have, in GB: what is free and what it holds, within its
        part of the card."""
        import torch

        free, total = torch.cuda.mem_get_info(self._device)
        # The limit holds for what the allocator reserves, not for the CUDA context, which is not
        # free here either.
        reachable = free + torch.cuda.memory_reserved(self._device)
        return min(reachable, self._fraction * total) / GIB

    def total_gb(self) -> float:
        """Return the most that this process can ever have, in GB: its part of the whole card."""
        import torch

        _, total = torch.cuda.mem_get_info(self._device)
        return self._fraction * total / GIB

    def held_gb(self) -> float:
        """Return what the tensors of this process take, in GB.

        Raises: RuntimeError: the device does not work any more.
        """
        import torch

        # The figure alone comes from the allocator's books; a broken device shows here.
        torch.cuda.synchronize(self._device)
        return torch.cuda.memory_allocated(self._device) / GIB

    def release(self) -> None:
        """Give back what no tensor needs any more."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()


def prepare_cuda() -> None:
    """Have torch's allocator let memory grow in pieces, and CUDA number the cards as NVML and Ray
    do, unless the operator has set it otherwise.

    Only before torch is imported, as it reads its settings then. In the process and not in the
    environment that it is started with, as what counts is what is set on its own node.
    """
    # CUDA's own order begins with the fastest: on a host of unlike cards `CUDA_VISIBLE_DEVICES=1`
    # would be one card to CUDA and another to NVML.
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    if not any(name in os.environ for name in ALLOCATOR_SETTINGS):
        os.environ[ALLOCATOR_SETTINGS[0]] = ALLOCATOR


def memory_of(device: str, fraction: float | None = None) -> DeviceMemory | None:
    """Return the memory of `device`, None for the CPU.

    Args: fraction: most of the card that this process may allocate; None: all of it.
    """
    if device == "cpu":
        return None
    return CudaMemory(device, 1.0 if fraction is None else fraction)
