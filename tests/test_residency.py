"""A model's stay on its GPU, with a backend that is only pretended."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments import gpu_turn, residency
from deployments.core.config import ModelConfig
from deployments.core.errors import Cancelled
from deployments.core.events import BackendEvent, PhaseBegan, Waiting
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from deployments.device_memory import ALLOCATOR
from deployments.gpu_turn import GpuTurn
from deployments.residency import Residency
from tests.in_process import CHECKPOINT
from tests.painter import Painter
from tests.scripted_jobs import GPU

CONFIG = ModelConfig(name="painter", backend="tests.painter")
SPEC = resolve(VideoRequest(prompt="a red ball", seed=1), Painter.card(CONFIG, CHECKPOINT))


class Tenant(Painter):
    """Writes down what is asked of it; `releasable` is what it can give back of what it holds."""

    def __init__(self) -> None:
        super().__init__(CONFIG, CHECKPOINT, "cuda")
        self.asked: list[str] = []
        self.held, self.releasable = 20.0, 0.0

    def load(self) -> None:
        self.asked.append(f"load, {os.environ.get('PYTORCH_ALLOC_CONF')}")

    def held_gb(self) -> float:
        return self.held

    def release(self) -> None:
        self.asked.append("release")
        self.held, self.releasable = self.held - self.releasable, 0.0

    def leave_gpu(self) -> None:
        self.asked.append("leave")

    def generate(self, spec: VideoSpec, image: bytes | None = None) -> Iterator[BackendEvent]:
        self.asked.append("generate")
        yield PhaseBegan("text")


@pytest.fixture(autouse=True)
def _gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One GPU, and nobody in its queue."""
    monkeypatch.setattr(residency.gpu, "gpus", lambda: (GPU,))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gpu_turn, "POLL_S", 0.001)
    monkeypatch.setattr(gpu_turn, "TELL_EVERY_S", 0.002)
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "CUDA_DEVICE_ORDER"):
        # Set first, so that what a model sets itself is undone.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def loaded(tenant: Tenant, device: str = "cuda") -> Residency:
    made = Residency(tenant, device)
    made.load(lambda: False)
    tenant.asked.clear()
    return made


def test_two_models_of_a_card_work_one_after_the_other() -> None:
    """The second backend is not even asked what memory there is before the first has settled."""
    first, second = Tenant(), Tenant()
    mine, other = loaded(first), loaded(second)
    assert list(mine.generate(SPEC, None)) == [PhaseBegan("text")]
    waiting = other.generate(SPEC, None)
    assert [next(waiting), next(waiting)] == [Waiting()] * 2
    assert second.asked == []
    mine.settle(leave=False)
    assert list(waiting) == [PhaseBegan("text")]


def test_a_job_that_waits_long_says_so_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that does not change for minutes would count as stalled."""
    monkeypatch.setattr(residency, "TELL_EVERY_S", 0.0)
    mine, other = loaded(Tenant()), loaded(Tenant())
    list(mine.generate(SPEC, None))
    waiting = other.generate(SPEC, None)
    assert [next(waiting), next(waiting)] == [Waiting(), PhaseBegan("loading")]


def test_a_job_that_is_stopped_while_it_waits_leaves_the_queue() -> None:
    """Those behind it are not held up, and the model is as before."""
    mine, stopped, other = (loaded(Tenant()) for _ in range(3))
    list(mine.generate(SPEC, None))
    waiting = stopped.generate(SPEC, None)
    next(waiting)
    residency.close(waiting)
    assert stopped.settle(leave=False) == 0.0
    mine.settle(leave=False)
    assert list(other.generate(SPEC, None)) == [PhaseBegan("text")]


def test_a_model_loads_in_its_turn() -> None:
    """While a neighbour computes, what is free is not what it will have; a stop is heeded."""
    neighbour, tenant = GpuTurn(GPU.uuid), Tenant()
    list(neighbour.wait())
    asked = iter([False, True])
    with pytest.raises(Cancelled):
        Residency(tenant, "cuda").load(lambda: next(asked))
    assert tenant.asked == []
    neighbour.give_back()
    loaded(tenant)


@pytest.mark.parametrize(("device", "asked"), [("cuda", ["leave"]), ("cpu", [])])
def test_a_model_that_keeps_no_card_leaves_it_before_a_neighbour_loads(
    device: str, asked: list[str]
) -> None:
    """Which plans with what is free then."""
    tenant = Tenant()
    made = Residency(tenant, device)
    made.load(lambda: False, leave=True)
    assert tenant.asked[1:] == asked
    assert made.on_gpu is (device == "cpu")


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", ""])
def test_the_allocator_is_set_before_a_model_on_a_gpu_loads(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the operator has set it."""
    if name:
        monkeypatch.setenv(name, "max_split_size_mb:128")
    tenant = Tenant()
    Residency(tenant, "cuda").load(lambda: False)
    read = {"": ALLOCATOR, "PYTORCH_ALLOC_CONF": "max_split_size_mb:128"}.get(name)
    assert tenant.asked == [f"load, {read}"]


@pytest.mark.parametrize(("set_to", "read"), [(None, "PCI_BUS_ID"), ("FASTEST_FIRST",) * 2])
def test_cuda_numbers_the_cards_as_nvml_does(
    set_to: str | None, read: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the operator has set it: on a host of unlike cards they would differ."""
    if set_to:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", set_to)
    Residency(Tenant(), "cuda").load(lambda: False)
    assert os.environ["CUDA_DEVICE_ORDER"] == read


def test_on_the_cpu_nothing_is_shared() -> None:
    """No queue, no setting of the allocator."""
    tenant = Tenant()
    Residency(tenant, "cpu").load(lambda: False)
    assert tenant.asked == ["load, None"]
    first, second = loaded(Tenant(), "cpu"), loaded(Tenant(), "cpu")
    list(first.generate(SPEC, None))
    assert list(second.generate(SPEC, None)) == [PhaseBegan("text")]


@pytest.mark.parametrize(
    ("more_gb", "releasable_gb", "left_gb", "asked"),
    [
        (0.2, 0.0, 0.0, []),
        (3.0, 3.0, 0.0, ["release"]),
        (3.0, 1.0, 2.0, ["release"]),
        (-20.0, 0.0, 0.0, []),
    ],
)
def test_memory_is_looked_at_after_a_job(
    more_gb: float, releasable_gb: float, left_gb: float, asked: list[str]
) -> None:
    """A little more is usual; more than that is given back, if it can be, before it is told."""
    tenant = Tenant()
    mine = loaded(tenant)
    list(mine.generate(SPEC, None))
    tenant.held, tenant.releasable = tenant.held + more_gb, releasable_gb
    assert mine.settle(leave=False) == left_gb
    assert tenant.asked == ["generate", *asked]


def test_the_turn_is_given_back_by_a_gpu_that_does_not_work_any_more() -> None:
    """Another process's may."""
    tenant = Tenant()
    mine, other = loaded(tenant), loaded(Tenant())
    list(mine.generate(SPEC, None))
    tenant.held_gb = _raise  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="illegal memory access"):
        mine.settle(leave=False)
    assert list(other.generate(SPEC, None)) == [PhaseBegan("text")]


def _raise() -> float:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def test_a_model_leaves_once_and_is_back_with_its_next_job() -> None:
    """Before a neighbour has its turn, where it is to leave at once."""
    tenant = Tenant()
    mine = loaded(tenant)
    list(mine.generate(SPEC, None))
    mine.settle(leave=True)
    assert not mine.on_gpu
    mine.leave()
    assert tenant.asked == ["generate", "leave"]
    list(mine.generate(SPEC, None))
    assert mine.on_gpu
