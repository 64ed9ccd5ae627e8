"""How quickly `/health` and `/system-info` answer, idle and while a generation runs.

The yardstick is an application that does nothing, in the same cluster, asked in turn with the
others: the machine's load is the same for all. Aim: p99 under load at most 3 times the yardstick's.
"""

import argparse
import json
import statistics
import threading
import time

import httpx

from benchmarks.running import print_table, running_graph

PATHS = {"/health": "/health", "/system-info": "/system-info", "nothing": "/-nothing-"}


def deploy_nothing() -> None:
    """Put the yardstick beside the service: FastAPI, one replica, one constant answer."""
    from fastapi import FastAPI
    from ray import serve

    app = FastAPI()

    @app.get("/")
    async def nothing() -> dict[str, str]:
        return {}

    @serve.ingress(app)
    class Nothing:
        """Answers."""

    deployment = serve.deployment(
        name="nothing", ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=200
    )(Nothing)
    serve.run(deployment.bind(), name="nothing", route_prefix=PATHS["nothing"])


def sample(url: str, seconds: float, rate: float) -> dict[str, list[float]]:
    """Ask each path in turn, `rate` times a second in all; returns milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in PATHS}
    with httpx.Client(base_url=url, timeout=60) as client:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name, path in PATHS.items():
                began = time.perf_counter()
                client.get(path if name != "nothing" else f"{path}/").raise_for_status()
                times[name].append((time.perf_counter() - began) * 1000)
                time.sleep(1 / rate)
    return times


def generate_until(url: str, stop: threading.Event) -> None:
    """Keep the model and the encoder at work."""
    form = {
        "prompt": "a blue square moving left over the sea at noon",
        "width": "512",
        "height": "512",
        "num_frames": "163",
        "lawful_use_consent": "true",
    }
    while not stop.is_set():
        httpx.post(f"{url}/generate", data=form, timeout=600).raise_for_status()


def main() -> None:
    """Print the table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=40)
    options = parser.parse_args()
    with running_graph() as url:
        deploy_nothing()
        sample(url, 3, options.rate)
        idle = sample(url, options.seconds, options.rate)
        stop = threading.Event()
        load = threading.Thread(target=generate_until, args=(url, stop))
        load.start()
        time.sleep(1)
        busy = sample(url, options.seconds, options.rate)
        stop.set()
        load.join()
    rows, result = [], {}
    for state, times in (("idle", idle), ("generating", busy)):
        for name, values in times.items():
            p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
            ratio = p99 / statistics.quantiles(times["nothing"], n=100)[98]
            rows.append([state, name, len(values), f"{p50:.1f}", f"{p99:.1f}", f"{ratio:.2f}"])
            result[f"{state} {name}"] = {"p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}
    print_table(["state", "path", "requests", "p50, ms", "p99, ms", "p99 to nothing's"], rows)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
