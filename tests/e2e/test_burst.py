"""A burst of creates against a full queue: `make soak`. On loopback only, bounded, minutes long.

The figures go to stdout and into `.soak/burst.json`.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deployments.core.keys import digest, new_key
from tests.e2e.graph import ROOT, Graph, cluster, configure, painter, replica_pids, serving

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

REPORT = ROOT / ".soak/burst.json"
CREATES, CLIENTS, MAX_QUEUED = 1000, 20, 100
# The same again and again: what grows once has grown in the first rounds, a leak grows in each.
ROUNDS = 3
WITHIN_S = 330
CANCEL_EVERY = 4
MIB = 2**20
# In the last round: 4 kB for each request, or 13 for each video that is taken in.
MOST_GROWTH_MIB = 4.0
COLOURS = ("red", "green", "blue")
FIELDS = {"num_frames": "8", "size": "256x256", "lawful_use_consent": "true"}


@dataclass
class Client:
    """One of many clients, with a key of its own; what it was answered."""

    name: str
    key: str = field(default_factory=new_key)
    accepted: list[str] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[int] = field(default_factory=list)
    slowest_s: float = 0.0

    def __post_init__(self) -> None:
        self._headers = {"Authorization": f"Bearer {self.key}"}

    def connect(self, url: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=60, headers=self._headers, trust_env=False)

    def create(self, number: int, colour: str) -> None:
        """Ask for one video, once; every answer but 200 and 429 with a time ends the test."""
        began = time.monotonic()
        fields = FIELDS | {"prompt": f"{colour} ball {number} of {self.name}", "seed": str(number)}
        answer = self.http.post("/v1/videos", data=fields)
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.accepted.append(answer.json()["id"])
            if len(self.accepted) % CANCEL_EVERY == 0:
                cancelled = self.http.post(f"/v1/videos/{self.accepted[-1]}/cancel")
                assert cancelled.status_code == 200, cancelled.text
        else:
            assert answer.status_code == 429, answer.text
            assert answer.json()["error"]["code"] == "queue_full", answer.text
            self.waits.append(int(answer.headers["Retry-After"]))

    def videos(self) -> list[dict[str, Any]]:
        """Return all that it has, page by page."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"has_more": True, "last_id": None}
        while page["has_more"]:
            after = {"after": page["last_id"]} if page["last_id"] else {}
            page = self.http.get("/v1/videos", params={"limit": "100", **after}).json()
            found += page["data"]
        return found


class Memory:
    """The memory of some replicas over time, in MiB: proportional (PSS) and their own (USS)."""

    def __init__(self, *parts: str) -> None:
        self._processes = {part: psutil.Process(replica_pids(part)[0]) for part in parts}
        self._ended = threading.Event()
        self._began = time.monotonic()
        self.samples: dict[str, list[dict[str, float]]] = {part: [] for part in parts}
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def sample(self) -> None:
        for part, process in self._processes.items():
            memory = process.memory_full_info()
            at = {"s": round(time.monotonic() - self._began, 1)}
            mib = {name: round(getattr(memory, name) / MIB, 2) for name in ("pss", "uss")}
            self.samples[part].append(at | mib)

    def _watch(self) -> None:
        while not self._ended.wait(2):
            self.sample()

    def uss(self) -> dict[str, float]:
        """Return what each part has for itself now."""
        self.sample()
        return {part: samples[-1]["uss"] for part, samples in self.samples.items()}

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def clients() -> list[Client]:
    return [Client(f"client-{number:02}") for number in range(CLIENTS)]


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace") / "painted"


@pytest.fixture(scope="module")
def graph(
    clients: list[Client], trace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Graph]:
    keys = [{"name": client.name, "sha256": digest(client.key)} for client in clients]
    config = configure(tmp_path_factory.mktemp("burst"), painter(), api_keys=keys)
    assert config.limits.max_queued == MAX_QUEUED
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PAINTER_TRACE", str(trace))
        with cluster(num_cpus=4), serving(config) as running:
            running.http.headers["Authorization"] = f"Bearer {clients[0].key}"
            running.until_ready(1)
            for client in clients:
                client.connect(running.url)
            yield running


def until_idle(graph: Graph, within_s: float) -> None:
    graph.wait(
        lambda: graph.http.get("/health").json(),
        lambda health: health["jobs_queued"] + health["jobs_running"] == 0,
        within_s,
    )
    time.sleep(2)  # its figures are up to two seconds old
    health = graph.http.get("/health").json()
    assert health["jobs_queued"] + health["jobs_running"] == 0


def create_all(clients: list[Client], count: int, colour: str) -> None:
    """Have the clients create `count` videos, each its share, all of them at once."""

    def play(client: Client) -> None:
        for number in range(count // CLIENTS):
            client.create(number, colour)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(play, clients))


def test_a_burst_is_taken_in_or_told_when_to_come_back(
    graph: Graph, clients: list[Client], trace: Path
) -> None:
    """Three times 1,000 creates of 20 clients: 200 or 429, all that is taken ends, nothing runs
    twice, and neither the door nor the jobs keep memory for it."""
    memory = Memory("ingress", "jobs")
    rounds = []
    for number in range(ROUNDS):
        began = time.monotonic()
        create_all(clients, CREATES, COLOURS[number])
        burst_s = time.monotonic() - began
        until_idle(graph, WITHIN_S - burst_s)
        drained_s = time.monotonic() - began
        used = {f"{part}_uss_mib": uss for part, uss in memory.uss().items()}
        rounds.append({"burst_s": round(burst_s, 1), "drained_s": round(drained_s, 1), **used})
    memory.end()

    statuses = sum((client.statuses for client in clients), Counter())
    accepted = [video_id for client in clients for video_id in client.accepted]
    videos = {video["id"]: video for client in clients for video in client.videos()}
    ends = Counter(
        "cancelled" if (video["error"] or {}).get("code") == "cancelled" else video["status"]
        for video in videos.values()
    )
    painted = Counter(line.split(" ", 2)[2] for line in trace.read_text().splitlines())
    served = sorted(len(client.accepted) for client in clients)
    report = {
        "creates": ROUNDS * CREATES,
        "clients": CLIENTS,
        "max_queued": MAX_QUEUED,
        "accepted": statuses[200],
        "refused": statuses[429],
        "retry_after_s": sorted({wait for client in clients for wait in client.waits}),
        "ends": dict(ends),
        "painted_twice": sum(count > 1 for count in painted.values()),
        "accepted_per_client": {"least": served[0], "most": served[-1]},
        "rounds": rounds,
        "slowest_answer_s": round(max(client.slowest_s for client in clients), 2),
        "memory_over_time": memory.samples,
    }
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(report, indent=1) + "\n")
    shown = {name: value for name, value in report.items() if name != "memory_over_time"}
    sys.stdout.write(json.dumps(shown, indent=1) + "\n")

    assert statuses[200] + statuses[429] == ROUNDS * CREATES
    assert len(set(accepted)) == len(accepted) == len(videos)
    assert set(accepted) == set(videos)
    assert set(ends) <= {"completed", "cancelled"}
    files = [video["video_url"] for video in videos.values() if video["video_url"]]
    assert len(set(files)) == len(files) == ends["completed"]
    assert report["painted_twice"] == 0
    assert all(wait >= 1 for client in clients for wait in client.waits)
    for part in ("ingress_uss_mib", "jobs_uss_mib"):
        assert rounds[-1][part] - rounds[-2][part] < MOST_GROWTH_MIB, rounds
