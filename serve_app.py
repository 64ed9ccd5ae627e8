"""The whole wiring on one screen: `config/serve.yaml` -> deployments -> one application.

    ingress ──> jobs ──> model "mochi" (one deployment per configured model)
                  └────> encoder

The classes are plain; they become deployments here. `build` runs once per deploy, in a process of
the running cluster, so it can ask which GPUs there are.
"""

from typing import Any

import ray
from ray import serve
from ray.serve import Application

from deployments.backend import Backend, backend_class
from deployments.core.checkpoints import Checkpoint, choose_checkpoint
from deployments.core.config import ModelConfig, ServiceConfig
from deployments.core.log import logger
from deployments.core.loras import LoraFolder, LoraFolders, linears_of
from deployments.core.networks.model import ModelFigures
from deployments.ingress import Ingress
from deployments.served import ServedJobs, ServedVideoModel
from deployments.served_encoder import ServedEncoder

SHUTDOWN_S = 15
# How soon Serve notices that a replica has died; its own default is 10.
HEALTH_CHECK_EVERY_S = 2
# These three share the head node's disk and database; models run on any node.
ON_HEAD = {"resources": {"node:__internal_head__": 0.001}}


def build(config: ServiceConfig) -> Application:
    """Return the application for the `args` of the Serve config; unknown keys are refused."""
    cards, models = [], {}
    figures: dict[str, ModelFigures] = {}
    folders: dict[str, LoraFolder] = {}
    free_gpus = float(ray.cluster_resources().get("GPU", 0))
    for model in config.models:
        backend = backend_class(model)
        num_gpus = gpu_share(model, free_gpus)
        free_gpus -= num_gpus * model.num_replicas
        checkpoint = choose_checkpoint(
            model,
            published=backend.published,
            bundled=backend.bundled,
            on_gpu=num_gpus > 0,
        )
        device = "cuda" if num_gpus else "cpu"
        logger.info("%s: checkpoint %s on %s", model.name, checkpoint.label, device)
        cards.append(backend.card(model, checkpoint))
        figures |= figures_of(model.name, backend, checkpoint)
        if model.loras_dir:
            folders[model.name] = LoraFolder(model.loras_dir, linears_of(checkpoint.source))
        models[model.name] = _deployment(
            ServedVideoModel,
            model.name,
            num_replicas=model.num_replicas,
            max_ongoing_requests=1,
            ray_actor_options={"num_cpus": model.num_cpus, "num_gpus": num_gpus},
        ).bind(model, checkpoint, device)
    encoder = _deployment(
        ServedEncoder,
        "encoder",
        # One for each replica that decodes, and one for what is decoded and not written yet: a slow
        # model keeps no other's file out, and not more processes of ffmpeg are open than this.
        max_ongoing_requests=1 + sum(model.num_replicas for model in config.models),
        ray_actor_options={"num_cpus": 0.2, **ON_HEAD},
    ).bind()
    jobs = _deployment(
        ServedJobs,
        "jobs",
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1, **ON_HEAD},
    ).bind(config, cards, models, encoder, figures, LoraFolders(folders))
    return _deployment(
        serve.ingress()(Ingress),
        "ingress",
        # Every open page holds one for its stream of events, and no page may keep others out.
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0.1, **ON_HEAD},
    ).bind(jobs, config, cards, LoraFolders(folders))


def figures_of(
    name: str, backend: type[Backend], checkpoint: Checkpoint
) -> dict[str, ModelFigures]:
    """Return what the model's networks take, under its name; nothing of a broken checkpoint, as its
    replica will say what is wrong with it."""
    try:
        return {name: backend.figures(checkpoint)}
    except (OSError, ValueError) as error:
        logger.warning("%s: nothing is known of its memory: %s", name, error)
        return {}


def gpu_share(model: ModelConfig, free_gpus: float) -> float:
    """Return the GPU share to ask Ray for; 0 puts the model on the CPU.

    A share in the `deployments` part of the YAML would leave the replica waiting for ever on a
    machine without a GPU, so it stands in `args` and is decided here.
    """
    if model.device == "cpu":
        return 0.0
    if model.device == "cuda" or free_gpus >= model.num_gpus * model.num_replicas:
        return model.num_gpus
    if free_gpus > 0:
        logger.warning("%s: only %.2f GPUs are free, so it runs on the CPU", model.name, free_gpus)
    return 0.0


def _deployment(plain: type, name: str, **options: Any) -> Any:
    return serve.deployment(
        name=name,
        graceful_shutdown_timeout_s=SHUTDOWN_S,
        health_check_period_s=HEALTH_CHECK_EVERY_S,
        **options,
    )(plain)
