"""The GPUs as NVML tells of them; its functions are replaced, for no test machine has a GPU."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
import pytest

from deployments.core import gpu

GIB = 2**30


@dataclass
class Driver:
    """Stands for the NVML library: what its functions answer."""

    names: list[str | bytes] = field(default_factory=lambda: ["NVIDIA H200", "NVIDIA L4"])
    slices: dict[str, int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        for name in ("Init", "DeviceGetCount", "DeviceGetHandleByIndex", "DeviceGetHandleByUUID"):
            monkeypatch.setattr(pynvml, f"nvml{name}", getattr(self, name))
        for name in ("MemoryInfo", "UtilizationRates", "UUID", "Name", "Index"):
            monkeypatch.setattr(pynvml, f"nvmlDeviceGet{name}", getattr(self, name))
        card_of = "DeviceHandleFromMigDeviceHandle"
        monkeypatch.setattr(pynvml, f"nvmlDeviceGet{card_of}", getattr(self, card_of))

    def Init(self) -> None: ...

    def DeviceGetCount(self) -> int:
        return len(self.names)

    def DeviceGetHandleByIndex(self, index: int) -> int:
        if index >= len(self.names):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        return index

    def DeviceGetHandleByUUID(self, uuid: str) -> int | str:
        if uuid in self.slices:
            return uuid
        for index in range(len(self.names)):
            if uuid == f"GPU-{index}":
                return index
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def MemoryInfo(self, handle: int | str) -> SimpleNamespace:
        if handle in self.silent:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=24 * GIB, used=int(2.5 * GIB), free=int(21.5 * GIB))

    def UtilizationRates(self, handle: int | str) -> SimpleNamespace:
        if isinstance(handle, str):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=97, memory=40)

    def UUID(self, handle: int | str) -> str:
        return handle if isinstance(handle, str) else f"GPU-{handle}"

    def Name(self, handle: int | str) -> str | bytes:
        return self.names[self.slices[handle] if isinstance(handle, str) else handle]

    def Index(self, handle: int | str) -> int:
        if isinstance(handle, str):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return handle

    def DeviceHandleFromMigDeviceHandle(self, handle: str) -> int:
        return self.slices[handle]


def test_every_gpu_is_listed_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUDA_VISIBLE_DEVICES all GPUs count."""
    Driver().install(monkeypatch)
    first, second = gpu.gpus()
    assert (first.uuid, first.index, first.name) == ("GPU-0", 0, "NVIDIA H200")
    assert (first.total_gb, first.used_gb, first.free_gb) == (24.0, 2.5, 21.5)
    assert first.load_percent == 97
    assert second.name == "NVIDIA L4"


def test_a_name_in_bytes_becomes_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older pynvml answers in bytes."""
    Driver(names=[b"NVIDIA L4"]).install(monkeypatch)
    assert [found.name for found in gpu.gpus()] == ["NVIDIA L4"]


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("1", ["GPU-1"]),
        ("GPU-1,0", ["GPU-1", "GPU-0"]),
        ("MIG-a", ["MIG-a"]),
        ("0,7,1", ["GPU-0"]),
        ("-1", []),
        ("", []),
    ],
)
def test_only_visible_gpus_are_listed(
    monkeypatch: pytest.MonkeyPatch, visible: str, expected: list[str]
) -> None:
    """CUDA_VISIBLE_DEVICES holds indices, GPU ids or MIG ids; a wrong one ends the list."""
    Driver(slices={"MIG-a": 1}).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [found.uuid for found in gpu.gpus()] == expected


def test_a_mig_slice_has_the_index_of_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML gives neither an index nor a load for a slice."""
    Driver(slices={"MIG-a": 1}).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a")
    assert [(found.index, found.load_percent) for found in gpu.gpus()] == [(1, None)]


def test_a_gpu_that_does_not_answer_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that fell off the bus does not take the others with it."""
    Driver(silent={0}).install(monkeypatch)
    assert [found.uuid for found in gpu.gpus()] == ["GPU-1"]


def test_without_a_driver_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without NVIDIA's library is an ordinary machine."""

    def no_library() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", no_library)
    assert gpu.gpus() == ()
