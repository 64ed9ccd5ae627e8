"""A running graph on this machine for the end-to-end tests, and the little that they ask of it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from deployments.core.config import ModelConfig, ServiceConfig
from deployments.launch import PATIENCE

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's own ports stay on the loopback
os.environ.update(PATIENCE)

ROOT = Path(__file__).resolve().parents[2]
PAINTER_CHECKPOINT = ROOT / "tests/data/painter"
SMALL = {
    "prompt": "a red ball moving right on a black background",
    "width": "256",
    "height": "256",
    "num_frames": "13",
    "seed": "7",
    "lawful_use_consent": "true",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def painter(name: str = "painter", **changes: Any) -> ModelConfig:
    return ModelConfig(
        name=name, backend="tests.painter", checkpoint=str(PAINTER_CHECKPOINT), **changes
    )


def configure(folder: Path, *models: ModelConfig, **changes: Any) -> ServiceConfig:
    return ServiceConfig(
        models=models,
        outputs_dir=str(folder / "outputs"),
        state_dir=str(folder / "state"),
        limits={"min_free_disk_mb": 0},
        encoder={"preset": "ultrafast"},
        **changes,
    )


class Graph:
    """The HTTP side of a running graph."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=120)

    def generate(self, **changes: Any) -> dict[str, Any]:
        answer = self.http.post("/generate", data=SMALL | changes)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, **changes: Any) -> str:
        answer = self.http.post(
            "/generate", data=SMALL | changes, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == 202, answer.text
        return answer.json()["job_id"]

    def job(self, job_id: str) -> dict[str, Any]:
        return self.http.get(f"/v1/videos/{job_id}").json()

    def until(self, job_id: str, phase: str, timeout_s: float = 60) -> dict[str, Any]:
        def reached(job: dict[str, Any]) -> bool:
            assert job["phase"] == phase or job["status"] not in ("completed", "failed"), job
            return job["phase"] == phase

        return self.wait(lambda: self.job(job_id), reached, timeout_s)

    def until_done(self, job_id: str, timeout_s: float = 90) -> dict[str, Any]:
        def done(job: dict[str, Any]) -> bool:
            return job.get("status") in ("completed", "failed")

        return self.wait(lambda: self.job(job_id), done, timeout_s)

    def until_ready(self, models: int, timeout_s: float = 90) -> None:
        def all_ready(info: dict[str, Any]) -> bool:
            return sum(replica["state"] == "ready" for replica in info["replicas"]) == models

        self.wait(lambda: self.http.get("/system-info").json(), all_ready, timeout_s)

    def download(self, video_url: str) -> bytes:
        answer = self.http.get(video_url)
        assert answer.status_code == 200
        return answer.content

    @staticmethod
    def wait(ask: Callable[[], Any], enough: Callable[[Any], bool], timeout_s: float) -> Any:
        deadline, answer = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            try:
                answer = ask()
                if enough(answer):
                    return answer
            except (httpx.HTTPError, LookupError, ValueError) as error:
                answer = error
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s} s; the last answer was {answer!r}")


# How the process of each part of a running graph calls itself.
TITLES = {"proxy": "ray::ProxyActor", "controller": "ray::ServeController"}


def replica_pids(part: str, root: int | None = None) -> list[int]:
    """Return the pids of a deployment's replicas, or of Serve's proxy or controller, among the
    descendants of the process `root`, or of this one."""
    title = TITLES.get(part, f"ServeReplica:video:{part}")
    return [
        process.pid
        for process in psutil.Process(root).children(recursive=True)
        if title in " ".join(_cmdline(process))
    ]


def kill(part: str, root: int | None = None) -> int:
    """kill -9 of one process of this part, once it has one: it may be being replaced."""
    pid = Graph.wait(lambda: replica_pids(part, root)[0], bool, 60)
    os.kill(pid, signal.SIGKILL)
    return int(pid)


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def write_config(folder: Path, port: int, **model: object) -> Path:
    """Write a copy of the shipped config, with the painter for a model and its files in
    `folder`."""
    config = yaml.safe_load((ROOT / "config/serve.yaml").read_text())
    config["http_options"]["port"] = port
    args = config["applications"][0]["args"]
    args["models"] = [painter().model_dump() | model]
    args["outputs_dir"], args["state_dir"] = str(folder / "outputs"), str(folder / "state")
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


class Launched:
    """`make serve` in a process of its own; its output goes to the file `log`."""

    def __init__(self, config: Path, log: Path) -> None:
        self._config, self._log = config, log
        self.port = int(yaml.safe_load(config.read_text())["http_options"]["port"])
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "deployments.launch", "--config", str(self._config)]
        with self._log.open("ab") as output:
            return subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)

    def kill(self, part: str) -> None:
        """kill -9 of one process, or of `everything`, which is then started again."""
        if part != "everything":
            kill(part, self.process.pid)
            return
        self._end(signal.SIGKILL)
        self.process = self._start()

    def stop(self) -> None:
        """Ctrl-C, and after it whatever is left."""
        if self.process.poll() is None:
            self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(how)
        if how != signal.SIGKILL:
            self.process.wait(60)
        for left in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        self.process.wait(60)
        psutil.wait_procs(family, timeout=60)  # the next one needs its port


@contextmanager
def launched(config: Path, log: Path) -> Iterator[Launched]:
    service = Launched(config, log)
    try:
        yield service
    finally:
        service.stop()


@contextmanager
def cluster(**options: Any) -> Iterator[None]:
    """A Ray cluster of this test's own, whatever else runs on the machine."""
    import ray

    settings = {"include_dashboard": False, "log_to_driver": False} | options
    ray.init(address="local", **settings)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def serving(
    config: ServiceConfig, port: int | None = None, logs: Path | None = None
) -> Iterator[Graph]:
    """Deploy the graph in the running cluster; `logs` gets the replicas' log files, as JSON."""
    from ray import serve

    import serve_app

    port = port or free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    logging = {"encoding": "JSON", "logs_dir": str(logs)} if logs else None
    app = serve_app.build(config)
    try:
        serve.run(app, name="video", route_prefix="/", logging_config=logging)
        yield Graph(port)
    finally:
        serve.shutdown()
