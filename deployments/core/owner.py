"""Who owns a running job: a process, named so that another process on its machine can tell whether
it lives.

All jobs replicas run on the head node, so a dead owner is noticed at once; an owner on another
machine only when its lease runs out.
"""

import os
import platform

import psutil


def this_process() -> str:
    """Return this process's name as an owner: host, pid and start time."""
    return _name(psutil.Process(os.getpid()))


def is_dead(owner: str) -> bool:
    """Whether `owner` was a process on this machine that has ended. False when it cannot be
    told."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != platform.node():
        return False
    try:
        process = psutil.Process(int(pid))
        return _name(process) != owner or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _name(process: psutil.Process) -> str:
    # Pids are used again; with the start time the name is unique.
    return f"{platform.node()}:{process.pid}:{process.create_time():.2f}"
