"""A running graph for the benchmarks: the shipped config on a free port, in a folder of its own."""

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import yaml

from deployments.core.config import ServiceConfig

ROOT = Path(__file__).resolve().parents[1]


def shipped_config(folder: Path) -> ServiceConfig:
    """Return `config/serve.yaml`'s args with files under `folder`."""
    args = yaml.safe_load((ROOT / "config/serve.yaml").read_text())["applications"][0]["args"]
    files = {"outputs_dir": str(folder / "outputs"), "state_dir": str(folder / "state")}
    return ServiceConfig.model_validate(args | files)


@contextmanager
def running_graph(backends: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a cluster and the graph; yields its URL when every model is ready.

    Args: backends: modules in place of a model's own, by its name.
    """
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray
    from ray import serve

    import serve_app

    port = free_port()
    with TemporaryDirectory() as folder:
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        http = {"host": "127.0.0.1", "port": port}
        serve.start(proxy_location="HeadOnly", http_options=http)
        config = shipped_config(Path(folder))
        models = tuple(
            model.model_copy(update={"backend": (backends or {}).get(model.name, model.backend)})
            for model in config.models
        )
        config = config.model_copy(update={"models": models})
        serve.run(serve_app.build(config), name="video", route_prefix="/")
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, len(config.models))
        try:
            yield url
        finally:
            serve.shutdown()
            ray.shutdown()


def wait_until_ready(url: str, models: int, timeout_s: float = 300) -> None:
    """Return when `models` replicas say that they are ready."""
    import time

    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            replicas = httpx.get(f"{url}/system-info", timeout=5).json().get("replicas", [])
        except (httpx.HTTPError, ValueError):
            replicas = []
        if sum(replica["state"] == "ready" for replica in replicas) >= models:
            return
        time.sleep(0.1)
    raise TimeoutError(f"no model was ready within {timeout_s} s")


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def replicas_memory() -> dict[str, float]:
    """Return the proportional resident memory (PSS) in MiB of each replica below this process."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
            if "ServeReplica:video:" in title:
                name = title.split("ServeReplica:video:")[1].split()[0]
                found[name] = process.memory_full_info().pss / 2**20
        except psutil.Error:
            continue
    return found


def print_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a Markdown table, each row when it comes."""
    for row in chain([header, ["---"] * len(header)], rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
