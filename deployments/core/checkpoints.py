"""Which checkpoint a model uses, and what that checkpoint can do. Only looks at the disk, never
downloads.

A checkpoint is a diffusers folder, or a hub id: its files lie in the hub cache, or in a folder of
their own if they are published in another layout and were converted. A folder of ours also holds
`generation_config.json`, whose keys are those of `GenerationConfig`.
"""

import json
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache
from pydantic import Field, ValidationError

from deployments.core.config import ModelConfig
from deployments.core.errors import BackendUnavailable
from deployments.core.spec import AUTO, Frozen

BUNDLED_DIR = Path(__file__).resolve().parents[2] / "checkpoints"
GENERATION_CONFIG = "generation_config.json"


class GenerationConfig(Frozen):
    """What a checkpoint was trained for, and the settings that suit it."""

    native_area: int = Field(gt=0, description="Pixels per frame in training.")
    max_frames: int = Field(gt=0, description="Longest clip in training.")
    num_inference_steps: int = Field(ge=2)
    guidance_scale: float = Field(ge=1.0)
    threshold_noise: float = Field(
        default=0.025, gt=0, lt=1, description="Noise removed in the linear part of the schedule."
    )
    linear_steps: int | None = Field(
        default=None, ge=1, description="Steps in the linear part; None means half of them."
    )
    image_guidance_scale: float = Field(
        default=3.0, ge=1.0, description="How closely a video keeps to its image."
    )
    motion_score: int = Field(
        default=4, ge=1, le=15, description="How lively: 1 stands still, 7 is lively."
    )
    draft_steps: int | None = Field(
        default=None, ge=2, description="Steps of a draft; None: it makes no drafts by itself."
    )
    fast_threshold: float | None = Field(
        default=None, gt=0, description="Of `quality: fast`, see `ModelCard`; None: no fast mode."
    )
    example_prompts: tuple[str, ...] = Field(
        default=(), description="Prompts that this checkpoint draws well."
    )


class Checkpoint(Frozen):
    """A checkpoint chosen for a model."""

    source: str = Field(description="A folder or a hub id, as diffusers' from_pretrained takes it.")
    label: str = Field(description="What people are shown: a folder's name or the hub id.")
    bundled: bool
    generation: GenerationConfig
    draft: "Checkpoint | None" = Field(
        default=None, description="Whose transformer makes drafts; None: its own."
    )


class Published(Frozen):
    """The published weights of a model family."""

    repo_id: str
    generation: GenerationConfig
    distilled: "Published | None" = Field(
        default=None,
        description="Weights of the same networks that need few steps; None: there are none.",
    )


def choose_checkpoint(
    config: ModelConfig, *, published: Published, bundled: str, on_gpu: bool
) -> Checkpoint:
    """Return the checkpoint for `config.checkpoint`.

    `auto` means the published weights when they are on disk and there is a GPU, else the folder
    `checkpoints/<bundled>` that comes with the service.

    Raises:
        BackendUnavailable: it, or the draft checkpoint, is not on this disk; the message says how
            to get it. Or this family has no draft checkpoints.
    """
    setting = config.checkpoint
    if setting == AUTO:
        source = _source(published.repo_id) if on_gpu else None
        if source is None:
            chosen = _folder(BUNDLED_DIR / bundled, published, bundled=True)
        else:
            chosen = _published(published, source)
    else:
        command = f"make weights MODEL={config.name}"
        chosen = _named(setting, published, f"{config.name}: checkpoint", command)
    return chosen.model_copy(update={"draft": _draft(config, published)})


def _draft(config: ModelConfig, published: Published) -> Checkpoint | None:
    if not (setting := config.draft_checkpoint):
        return None
    key = f"{config.name}: draft_checkpoint"
    if published.distilled is None:
        raise BackendUnavailable(f"{key}: there is none for this model; leave it empty")
    repo_id = published.distilled.repo_id
    command = f"python -m deployments.weights {config.name} --repo {repo_id}"
    return _named(setting, published.distilled, key, command)


def _named(setting: str, published: Published, key: str, command: str) -> Checkpoint:
    """Return the checkpoint that the config names.

    Args:
        published: whose settings it has, unless it is known to have others.
        key: the setting, as a message names it.
        command: what downloads the published one.
    """
    if Path(setting).expanduser().is_dir():
        return _folder(Path(setting).expanduser().absolute(), published, bundled=False)
    known = published.distilled
    if known is None or known.repo_id != setting:
        known = published.model_copy(update={"repo_id": setting})
    if (source := _source(setting)) is None:
        raise BackendUnavailable(
            f"{key} {setting!r} is neither a folder nor a downloaded hub id; `{command}` "
            f"downloads {published.repo_id}"
        )
    return _published(known, source)


def is_downloaded(repo_id: str) -> bool:
    """Whether the hub cache holds this diffusers repository (its `model_index.json` is there)."""
    if repo_id.count("/") != 1:
        return False
    return isinstance(try_to_load_from_cache(repo_id, "model_index.json"), str)


def converted_folder(repo_id: str) -> Path:
    """Return where `make weights` puts a repository that it converts to the layout of diffusers."""
    return Path(constants.HF_HOME) / "video-service" / repo_id.replace("/", "--")


def _source(repo_id: str) -> str | None:
    """Return what to load for a hub id, None if it is not on this disk."""
    converted = converted_folder(repo_id)
    if (converted / "model_index.json").is_file():
        return str(converted)
    return repo_id if is_downloaded(repo_id) else None


def _published(published: Published, source: str) -> Checkpoint:
    return Checkpoint(
        source=source,
        label=published.repo_id,
        bundled=False,
        generation=published.generation,
    )


def _folder(folder: Path, published: Published, *, bundled: bool) -> Checkpoint:
    if not (folder / "model_index.json").is_file():
        raise BackendUnavailable(
            f"checkpoint folder {folder.name!r} holds no model_index.json; "
            "a folder in the layout of diffusers is needed"
        )
    path = folder / GENERATION_CONFIG
    generation = _read_generation(path) if path.is_file() else published.generation
    return Checkpoint(source=str(folder), label=folder.name, bundled=bundled, generation=generation)


def _read_generation(path: Path) -> GenerationConfig:
    try:
        return GenerationConfig.model_validate(json.loads(path.read_text()))
    except (ValidationError, ValueError) as error:
        raise BackendUnavailable(f"{path.parent.name}/{path.name}: {error}") from error
