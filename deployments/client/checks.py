"""The doctor's checks: each looks at one thing on this machine and says what to do about it.

None of them needs the service, changes anything, or imports torch or ray here.
"""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx2
import pynvml

from deployments.backend import backend_class
from deployments.client.findings import Finding, Setup, State
from deployments.core import gpu
from deployments.core.checkpoints import choose_checkpoint, converted_folder, is_downloaded
from deployments.core.config import ModelConfig
from deployments.core.errors import BackendUnavailable, EncodingFailed
from deployments.core.ffmpeg import ffmpeg_path
from deployments.core.keys import Keyring
from deployments.core.loras import LoraFolder
from deployments.downloads import free_bytes, size
from deployments.launch import port_in_use
from deployments.weights import INDEX, REPOSITORIES

MIB, GIB = 2**20, 2**30
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Room for some videos above what the config keeps free.
COMFORTABLE_BYTES = 2 * GIB
FFMPEG_S, TORCH_S, CONNECT_S = 20, 300, 3
ASK_TORCH = (
    "import json, torch; "
    "print(json.dumps([torch.__version__, torch.version.cuda, torch.cuda.is_available()]))"
)
HEALTH: dict[str, State] = {"healthy": "ok", "degraded": "warning", "unhealthy": "problem"}


def python(_setup: Setup) -> Iterator[Finding]:
    """Python, and Ray without importing it."""
    here = f"Python {platform.python_version()} in {sys.prefix}"
    try:
        yield Finding("ok", "python", f"{here}, Ray {metadata.version('ray')}.")
    except metadata.PackageNotFoundError:
        yield Finding("problem", "python", f"{here} lacks Ray; `make serve` sets everything up.")


def gpus(setup: Setup) -> Iterator[Finding]:
    """The driver, and the GPUs with their memory."""
    try:
        pynvml.nvmlInit()
        driver, count = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        yield _no_driver(setup, error)
        return
    visible = gpu.gpus()
    for card in visible:
        free = f"{card.free_gb:.1f} of {card.total_gb:.1f} GiB free"
        yield Finding("ok", "gpu", f"{card.name}, driver {driver}, {free}.")
    if not visible:
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')!r} hides them"
        why = f"{count} there, but {hidden}; unset it" if count else "none; is the card seated?"
        yield Finding("problem", "gpu", f"Driver {driver}, and of GPUs {why}.")


def _no_driver(setup: Setup, error: pynvml.NVMLError) -> Finding:
    insisting = [model.name for model in setup.config.models if model.device == "cuda"]
    if error.value != pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
        text = f"The NVIDIA driver does not work ({error}); after an update of it, reboot."
        return Finding("problem", "gpu", text)
    if insisting:
        text = f"No NVIDIA driver, but {', '.join(insisting)} insists on a GPU (`device: cuda`)"
        return Finding("problem", "gpu", f"{text}: install the driver, or set `device: auto`.")
    text = "No NVIDIA driver: models run on the CPU, where only the bundled checkpoints are of use"
    return Finding("warning", "gpu", f"{text}; if there is a GPU, install its driver.")


def torch(_setup: Setup) -> Iterator[Finding]:
    """PyTorch, asked in a process of its own."""
    command = [sys.executable, "-c", ASK_TORCH]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=TORCH_S, check=True)
        version, cuda, sees_gpu = json.loads(asked.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as error:
        cause = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        text = (
            f"PyTorch cannot be imported ({cause}); remove .venv, and `make serve` installs anew."
        )
        yield Finding("problem", "torch", text)
    except subprocess.TimeoutExpired:
        text = f"PyTorch was not imported within {TORCH_S} s; is the disk or the GPU driver stuck?"
        yield Finding("problem", "torch", text)
    else:
        yield _torch(f"PyTorch {version}", cuda, sees_gpu=sees_gpu, has_gpu=bool(gpu.gpus()))


def _torch(name: str, cuda: str | None, *, sees_gpu: bool, has_gpu: bool) -> Finding:
    if sees_gpu:
        return Finding("ok", "torch", f"{name} with CUDA {cuda} sees the GPU.")
    if not has_gpu:
        return Finding("ok", "torch", f"{name} on the CPU.")
    if cuda is None:
        remedy = "remove .venv, and start `make serve` without TORCH_INDEX"
        return Finding("problem", "torch", f"{name} is built without CUDA; {remedy}.")
    text = f"{name} with CUDA {cuda} does not see the GPU; update the NVIDIA driver."
    return Finding("problem", "torch", text)


def weights(setup: Setup) -> Iterator[Finding]:
    """For each model the checkpoint that it would load, and how to get the published one."""
    has_gpu = bool(gpu.gpus())
    for model in setup.config.models:
        on_gpu = model.device == "cuda" or (model.device == "auto" and has_gpu)
        yield _weights(model, on_gpu=on_gpu)


def _weights(model: ModelConfig, *, on_gpu: bool) -> Finding:
    try:
        backend = backend_class(model)
    except ValueError as error:
        known = ", ".join(REPOSITORIES)
        return Finding("problem", "weights", f"{error}; the models here are {known}.")
    repo_id = backend.published.repo_id
    get = f"`make weights MODEL={model.name}` gets {repo_id}"
    try:
        chosen = choose_checkpoint(
            model, published=backend.published, bundled=backend.bundled, on_gpu=on_gpu
        )
    except BackendUnavailable as error:
        return Finding("problem", "weights", f"{model.name}: {error}; {get}.")
    if not chosen.bundled:
        return Finding("ok", "weights", f"{model.name}: {chosen.label}, from {chosen.source}.")
    bundled = f"{model.name}: the bundled demo checkpoint {chosen.label}"
    if on_gpu:
        return Finding("warning", "weights", f"{bundled}, although there is a GPU; {get}.")
    return Finding("ok", "weights", f"{bundled}, on the CPU; {_where(repo_id, get)}.")


def _where(repo_id: str, get: str) -> str:
    """Say whether the published weights are on this disk."""
    converted = converted_folder(repo_id)
    if (converted / INDEX).is_file():
        return f"{repo_id} is converted in {converted}, for a GPU"
    if is_downloaded(repo_id):
        return f"{repo_id} is downloaded, for a GPU"
    return f"for a GPU {get}"


def loras(setup: Setup) -> Iterator[Finding]:
    """The folders of LoRA files; whether a file fits its model, `/v1/models` tells."""
    for model in setup.config.models:
        folder = model.loras_dir
        if not folder:
            continue
        if not Path(folder).is_dir():
            remedy = "make it, or empty loras_dir in the config"
            yield Finding(
                "problem", "loras", f"{model.name}: there is no folder {folder}; {remedy}."
            )
            continue
        files = LoraFolder(folder, None).files()
        broken = [f"{file.name}.safetensors {file.problem}" for file in files if file.problem]
        told = f"{model.name}: {len(files)} LoRA files in {folder}"
        if broken:
            yield Finding("warning", "loras", f"{told}; cannot be used: {'; '.join(broken)}.")
        else:
            yield Finding("ok", "loras", f"{told}.")


def ffmpeg(_setup: Setup) -> Iterator[Finding]:
    """That it starts, and has the encoder that is used."""
    remedy = "unset IMAGEIO_FFMPEG_EXE, or reinstall imageio-ffmpeg, which brings one"
    path = "ffmpeg"
    try:
        path = ffmpeg_path()
        said = subprocess.run(
            [path, "-version"], capture_output=True, text=True, timeout=FFMPEG_S, check=True
        ).stdout
    except (EncodingFailed, OSError, subprocess.SubprocessError) as error:
        yield Finding("problem", "ffmpeg", f"{path} does not run ({error}); {remedy}.")
        return
    version = " ".join(said.split()[:3])
    if "--enable-libx264" in said:
        yield Finding("ok", "ffmpeg", f"{version} with x264, {path}.")
    else:
        yield Finding("problem", "ffmpeg", f"{path} is built without x264; {remedy}.")


def disk(setup: Setup) -> Iterator[Finding]:
    """Room and rights where videos and jobs go."""
    config = setup.config
    least = config.limits.min_free_disk_mb * MIB
    for key, folder, needed in (
        ("outputs_dir", Path(config.outputs_dir), least),
        ("state_dir", Path(config.state_dir), 0),
    ):
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = free_bytes(folder)
        room = f"{size(free)} free in {folder}"
        if not there.is_dir() or not os.access(there, os.W_OK):
            text = f"{folder} cannot be written to; change its rights, or {key} in the config."
            yield Finding("problem", "disk", text)
        elif free < needed:
            text = f"{room}, below limits.min_free_disk_mb: new videos are refused"
            yield Finding("problem", "disk", f"{text}; free some, or change {key}.")
        elif free < needed + COMFORTABLE_BYTES:
            text = f"{room}, and new videos are refused below {size(needed)}"
            yield Finding("warning", "disk", f"{text}; free some soon, or change {key}.")
        else:
            yield Finding("ok", "disk", f"{room} ({key}).")


def keys(setup: Setup) -> Iterator[Finding]:
    """Who may call."""
    try:
        ring = Keyring(setup.config)
    except ValueError as error:
        yield Finding("problem", "keys", f"{error}.")
        return
    if count := len(ring):
        yield Finding("ok", "keys", f"{count} API keys; without one nobody gets in.")
    elif ring.required:
        text = f"{setup.config.api_keys_file} holds no key, so nobody gets in"
        yield Finding("warning", "keys", f"{text}; `video-service new-key NAME` makes one.")
    elif setup.host in LOOPBACK:
        yield Finding("ok", "keys", "No API keys: everybody on this machine may use the service.")
    else:
        text = f"No API keys, and it listens on {setup.host}: whoever reaches it may use it"
        yield Finding("warning", "keys", f"{text}; `video-service new-key NAME` makes one.")


def ports(setup: Setup) -> Iterator[Finding]:
    """Whether the service answers, or can take its port."""
    health = _health(setup.url)
    if health is not None:
        status = str(health["status"])
        text = f"The service answers at {setup.url}, {status}: {health.get('message')}"
        yield Finding(HEALTH[status], "port", text)
    elif reason := port_in_use(setup.host, setup.port):
        another = "something else is there; `PORT=18123 make serve` takes another port"
        yield Finding("problem", "port", f"{reason.rstrip('.')}: {another}.")
    else:
        yield Finding("ok", "port", f"{setup.host}:{setup.port} is free; `make serve` takes it.")


def _health(url: str) -> dict[str, Any] | None:
    """Return what our service says of itself; None if it is not there."""
    try:
        found = httpx2.get(f"{url}/health", timeout=CONNECT_S, trust_env=False).json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError):
        return None
    ours = isinstance(found, dict) and "backend" in found and str(found.get("status")) in HEALTH
    return found if ours else None


def ray_leftovers(_setup: Setup) -> Iterator[Finding]:
    """The file in which Ray notes the newest cluster of this machine; ray 2.60
    _common/utils.py (get_ray_address_file)."""
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  Ray's own
    path = Path(folder) / "ray" / "ray_current_cluster"
    try:
        address = path.read_text().strip()
    except OSError:
        yield Finding("ok", "ray", "No cluster of an earlier start is noted.")
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, ValueError, OverflowError):
        text = (
            f"{path} names a cluster that is gone ({address}): a bare `serve run` would wait for it"
        )
        yield Finding("warning", "ray", f"{text}; remove that file. `make serve` does not mind.")
    else:
        yield Finding("ok", "ray", f"A Ray cluster runs at {address}.")
