"""What a running graph tells about itself: the metrics of its node, and the lines of its logs."""

import json
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from deployments.core.events import GpuState

GPU = GpuState(uuid="GPU-1", index=0, name="H100", total_gb=80, used_gb=30, free_gb=50)
EXPORTERS_OWN = "otel_scope_"


def metrics() -> dict[str, float]:
    """Return the values of this node's metrics, by name and labels; Ray's own labels, which begin
    with a capital, and the exporter's are left out. Waits a second before it looks."""
    import ray

    time.sleep(1)
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    text = httpx.get(address, timeout=20, trust_env=False).text
    values: dict[str, float] = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        pairs = re.findall(r'(\w+)="([^"]*)"', labels)
        ours = [pair for pair in pairs if pair[0][0].islower()]
        kept = ",".join(f"{key}={it}" for key, it in ours if not key.startswith(EXPORTERS_OWN))
        series = f"{name}{{{kept}}}"
        values[series] = values.get(series, 0.0) + float(value)
    return values


def names_of(series: Iterable[str]) -> set[str]:
    """Return the names without their labels."""
    return {one.partition("{")[0] for one in series}


def report_a_gpu() -> None:
    """Report a replica's state as it would be with a GPU, until it reports again itself."""
    from ray import serve

    jobs = serve.get_deployment_handle("jobs", app_name="video")
    replica = jobs.state.remote().result().replicas[0]
    jobs.report.remote(replica.model_copy(update={"gpus": (GPU,)})).result()


def lines_about(video_id: str, folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return the lines with this `video_id` in the JSON logs in `folder`, each with the deployment
    that wrote it, in the order of time."""
    found = []
    for path in folder.glob("replica_video_*.log"):
        deployment = path.stem.split("_")[2]
        for text in path.read_text().splitlines():
            line = json.loads(text)
            if line.get("video_id") == video_id:
                found.append((deployment, line))
    return sorted(found, key=lambda pair: pair[1]["timestamp_ns"])
