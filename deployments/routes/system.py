"""`/health` and `/system-info`: how the service is.

Both answer at once, from a copy of the state in memory.
"""

from http import HTTPStatus
from typing import Any, Literal

import psutil
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from deployments.core.events import ABLE, GpuState, ModelState, ReplicaState
from deployments.core.spec import ModelCard
from deployments.routes.door import Door, DoorDep
from deployments.routes.wire import error_docs

router = APIRouter(tags=["system"])

# Of several replicas the best one speaks for the model.
BEST_FIRST: tuple[ModelState, ...] = (
    "ready",
    "unloaded",
    "loading",
    "restarting",
    "lost",
    "failed",
)


class ModelStatus(BaseModel):
    """How one model is."""

    state: ModelState = Field(description="The state of its best replica.")
    reason: str = Field(description="Why, when it is not ready.")
    checkpoint: str = Field(description="The weights.", examples=["genmo/mochi-1-preview"])
    bundled: bool = Field(description="Whether these are the tiny demo weights that come with it.")


class Health(BaseModel):
    """Whether videos can be made."""

    status: Literal["healthy", "degraded", "unhealthy"] = Field(
        description=(
            "`degraded`: with limitations, `message` names them. `unhealthy`: comes with a 503."
        )
    )
    backend: str = Field(
        description="The first ready model in configured order, else the first configured.",
        examples=["mochi"],
    )
    cuda_available: bool = Field(description="Whether a model sees a GPU.")
    message: str = Field(
        description="The status in words.", examples=["Service operational with mochi backend"]
    )
    models: dict[str, ModelStatus] = Field(description="Each configured model.")
    jobs_queued: int = Field(description="Videos that wait.")
    jobs_running: int = Field(description="Videos in the making.")


class Gpu(BaseModel):
    """One GPU; memory in GiB."""

    index: int
    uuid: str
    name: str = Field(examples=["NVIDIA GeForce RTX 4090"])
    node: str
    total_vram_gb: float
    used_vram_gb: float
    free_vram_gb: float
    load_percent: float | None = Field(
        description="How much of the time it computes; null where the driver cannot say.",
        examples=[97.0],
    )


class Replica(BaseModel):
    """One copy of a model."""

    model: str
    checkpoint: str
    bundled: bool
    state: ModelState
    reason: str
    device: str
    node: str
    busy: bool = Field(description="Whether it makes a video now.")


class SystemInfo(BaseModel):
    """The machine, in GiB and per cent; the VRAM is that of the GPU that serves `backend`."""

    cuda_available: bool = Field(description="Whether a model sees a GPU.", examples=[True])
    device_name: str = Field(
        description='"CPU" without a GPU.', examples=["NVIDIA GeForce RTX 4090"]
    )
    total_vram_gb: float = Field(examples=[24.0])
    free_vram_gb: float = Field(examples=[18.5])
    used_vram_gb: float = Field(examples=[2.3])
    cpu_percent: float = Field(description="CPU load over the last second.", examples=[15.2])
    ram_available_gb: float = Field(examples=[28.4])
    ram_total_gb: float = Field(examples=[64.0])
    backend: str = Field(description="As in `/health`.", examples=["mochi"])
    gpus: list[Gpu] = Field(description="Every GPU that a model reports.")
    replicas: list[Replica] = Field(description="Every copy of every model.")


# --- the state of the service, drawn from its copy ---------------------------------------


def replicas_of(card: ModelCard, door: Door) -> list[ReplicaState]:
    """Return the model's replicas, the best first."""
    mine = [replica for replica in door.watch.state.replicas if replica.model == card.name]
    return sorted(mine, key=lambda replica: BEST_FIRST.index(replica.state))


def model_status(card: ModelCard, door: Door) -> ModelStatus:
    """Return how the model of `card` is."""
    replicas = replicas_of(card, door)
    best = replicas[0] if replicas else None
    return ModelStatus(
        state=best.state if best else "loading",
        reason=best.reason if best else "it has not reported yet",
        checkpoint=best.checkpoint if best else card.checkpoint,
        bundled=card.bundled,
    )


def backend_card(door: Door) -> ModelCard:
    """Return the first ready model in configured order, else the first configured."""
    able = [card for card in door.cards if model_status(card, door).state in ABLE]
    return (able or door.cards)[0]


def cuda_available(door: Door) -> bool:
    """Return whether any replica sees a GPU."""
    return any(replica.gpus for replica in door.watch.state.replicas)


def health_of(door: Door) -> Health:
    """Judge the service: unhealthy when no model can ever serve.

    Degraded when something is missing.
    """
    models = {card.name: model_status(card, door) for card in door.cards}
    backend = backend_card(door)
    cuda = cuda_available(door)
    lacking = [
        f"{name} is {model.state}" + (f" ({model.reason})" if model.reason else "")
        for name, model in models.items()
        if model.state not in ABLE
    ]
    operational = f"Service operational with {backend.name} backend"
    status: Literal["healthy", "degraded", "unhealthy"] = "degraded"
    if not door.watch.fresh:
        message = "The jobs deployment does not answer; it is starting or down"
    elif all(model.state == "failed" for model in models.values()):
        status, message = "unhealthy", "No model can serve: " + "; ".join(lacking)
    elif len(lacking) == len(models):
        message = "No model is ready yet: " + "; ".join(lacking)
    elif lacking:
        message = f"{operational}; " + "; ".join(lacking)
    elif cuda and backend.bundled:
        message = (
            f"{operational}, but only with its bundled demo checkpoint; "
            f"`make weights MODEL={backend.name}` fetches the published weights for the GPU"
        )
    else:
        status, message = "healthy", operational
    return Health(
        status=status,
        backend=backend.name,
        cuda_available=cuda,
        message=message,
        models=models,
        jobs_queued=door.watch.state.jobs_queued,
        jobs_running=door.watch.state.jobs_running,
    )


# --- routes ------------------------------------------------------------------------------

UNHEALTHY: dict[int | str, dict[str, Any]] = error_docs({}, keyless=True) | {
    503: {"model": Health, "description": "Unhealthy: no model can serve; `message` has the cause."}
}


@router.get("/health", summary="Check the service", responses=UNHEALTHY)
async def health(door: DoorDep, response: Response) -> Health:
    """Say whether videos can be made, and if not, why. Answers at once, whatever the models do."""
    found = health_of(door)
    if found.status == "unhealthy":
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return found


@router.get("/system-info", summary="Look at the machine", responses=error_docs({}))
async def system_info(door: DoorDep) -> SystemInfo:
    """Return GPU, CPU and memory figures, at most two seconds old."""
    card = backend_card(door)
    replicas = [replica for known in door.cards for replica in replicas_of(known, door)]
    on_backend = [gpu for replica in replicas_of(card, door) for gpu in replica.gpus]
    anywhere = [gpu for replica in replicas for gpu in replica.gpus]
    gpu = next(iter(on_backend or anywhere), None)
    memory = psutil.virtual_memory()
    return SystemInfo(
        cuda_available=cuda_available(door),
        device_name=gpu.name if gpu else "CPU",
        total_vram_gb=round(gpu.total_gb, 1) if gpu else 0.0,
        free_vram_gb=round(gpu.free_gb, 1) if gpu else 0.0,
        used_vram_gb=round(gpu.used_gb, 1) if gpu else 0.0,
        cpu_percent=door.watch.cpu_percent,
        ram_available_gb=round(memory.available / 2**30, 1),
        ram_total_gb=round(memory.total / 2**30, 1),
        backend=card.name,
        gpus=list({gpu.uuid: _gpu(gpu, at.node) for at in replicas for gpu in at.gpus}.values()),
        replicas=[_replica(replica, door) for replica in replicas],
    )


def _gpu(gpu: GpuState, node: str) -> Gpu:
    return Gpu(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        node=node,
        total_vram_gb=round(gpu.total_gb, 1),
        used_vram_gb=round(gpu.used_gb, 1),
        free_vram_gb=round(gpu.free_gb, 1),
        load_percent=gpu.load_percent,
    )


def _replica(replica: ReplicaState, door: Door) -> Replica:
    return Replica(
        model=replica.model,
        checkpoint=replica.checkpoint,
        bundled=any(card.bundled for card in door.cards if card.name == replica.model),
        state=replica.state,
        reason=replica.reason,
        device=replica.device,
        node=replica.node,
        busy=replica.job_id is not None,
    )
