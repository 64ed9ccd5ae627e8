"""The memory of a GPU as torch tells it; torch's answers are pretended."""

import pytest
import torch

from deployments.core.memory import GIB
from deployments.device_memory import CudaMemory, memory_of


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The fractions that were set, of a card of 80 GB with 50 free and 10 reserved by this process,
    8 of them in tensors."""
    found: list[float] = []
    answers = {
        "mem_get_info": lambda device: (50 * GIB, 80 * GIB),
        "memory_reserved": lambda device: 10 * GIB,
        "memory_allocated": lambda device: 8 * GIB,
        "synchronize": lambda device: None,
        # Like torch's: a device without a number would be refused.
        "set_per_process_memory_fraction": found.append,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return found


@pytest.mark.parametrize(
    ("fraction", "available_gb", "total_gb"), [(None, 60.0, 80.0), (0.9, 60.0, 72.0), (0.5, 40, 40)]
)
def test_a_process_has_its_part_of_the_card(
    fraction: float | None, available_gb: float, total_gb: float, limits: list[float]
) -> None:
    """Never more than its fraction, and never more than is there."""
    memory = memory_of("cuda", fraction)
    assert memory is not None
    memory.limit()
    assert limits == [fraction or 1.0]
    assert (memory.available_gb(), memory.total_gb()) == (available_gb, total_gb)
    assert memory.held_gb() == 8.0


def test_a_gpu_that_does_not_work_any_more_does_not_tell_what_is_held(
    limits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The allocator's own books would still be there."""

    def fail(device: str) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        CudaMemory("cuda").held_gb()


def test_the_cpu_has_no_memory_of_its_own() -> None:
    """It is not planned there."""
    assert memory_of("cpu", 0.5) is None
