"""The GPUs of this process, their memory and load, read through NVML. Knows no torch and no ray.

NVML sees what every process on the card uses, needs no CUDA context and costs a few microseconds a
call. `pynvml` comes with the package nvidia-ml-py.
"""

import os
from typing import Any

import pynvml

from deployments.core.events import GpuState

GIB = 2**30


def gpus() -> tuple[GpuState, ...]:
    """Return the GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES.

    Empty without a driver or a GPU; a GPU that does not answer is left out. Never raises.
    """
    try:
        # Counted by the library: only the first call of a process does any work.
        pynvml.nvmlInit()
        handles = _visible_handles(os.environ.get("CUDA_VISIBLE_DEVICES"))
    except pynvml.NVMLError:
        return ()
    return tuple(gpu for handle in handles if (gpu := _read(handle)) is not None)


def _visible_handles(visible: str | None) -> list[Any]:
    if visible is None:
        count = pynvml.nvmlDeviceGetCount()
        return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
    handles: list[Any] = []
    for entry in visible.split(","):
        # Like CUDA: a wrong entry hides itself and all that follow.
        handle = _find(entry.strip())
        if handle is None:
            break
        handles.append(handle)
    return handles


def _find(entry: str) -> Any | None:
    """Return the handle of an index, a "GPU-..." or a "MIG-..." id, None when there is none."""
    try:
        if entry.isdecimal():
            return pynvml.nvmlDeviceGetHandleByIndex(int(entry))
        if entry.startswith(("GPU-", "MIG-")):
            return pynvml.nvmlDeviceGetHandleByUUID(entry)
    except pynvml.NVMLError:
        return None
    return None


def _read(handle: Any) -> GpuState | None:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return GpuState(
            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
            index=_index(handle),
            name=_text(pynvml.nvmlDeviceGetName(handle)),
            total_gb=memory.total / GIB,
            used_gb=memory.used / GIB,
            free_gb=memory.free / GIB,
            load_percent=_load_percent(handle),
        )
    except pynvml.NVMLError:
        return None


def _load_percent(handle: Any) -> float | None:
    """Return in how much of its last sample period a kernel ran; None where NVML cannot say."""
    try:
        return float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except pynvml.NVMLError:
        return None


def _index(handle: Any) -> int:
    """Return the card's index; for a MIG slice that of the card it is cut from."""
    try:
        return int(pynvml.nvmlDeviceGetIndex(handle))
    except pynvml.NVMLError:
        card = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)
        return int(pynvml.nvmlDeviceGetIndex(card))


def _text(value: str | bytes) -> str:
    # Older releases of pynvml give bytes.
    return value.decode() if isinstance(value, bytes) else value
