import json
from pathlib import Path

import pytest

from deployments.core import checkpoints
from deployments.core.checkpoints import GenerationConfig, Published, choose_checkpoint
from deployments.core.config import ModelConfig
from deployments.core.errors import BackendUnavailable

PUBLISHED = Published(
    repo_id="genmo/mochi-1-preview",
    generation=GenerationConfig(
        native_area=848 * 480, max_frames=163, num_inference_steps=64, guidance_scale=4.5
    ),
)


FAMILY = PUBLISHED.model_copy(
    update={
        "distilled": Published(
            repo_id="FastVideo/FastMochi-diffusers",
            generation=PUBLISHED.generation.model_copy(update={"num_inference_steps": 8}),
        )
    }
)


def folder(path: Path, **generation: object) -> Path:
    path.mkdir()
    (path / "model_index.json").write_text("{}")
    if generation:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return path


def choose(setting: str, *, on_gpu: bool = False) -> checkpoints.Checkpoint:
    config = ModelConfig(name="mochi", checkpoint=setting)
    return choose_checkpoint(config, published=PUBLISHED, bundled="tiny", on_gpu=on_gpu)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checkpoints, "BUNDLED_DIR", tmp_path)
    generation = {
        "native_area": 16384,
        "max_frames": 163,
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
    }
    return folder(tmp_path / "tiny", **generation)


@pytest.mark.parametrize("on_gpu", [False, True])
def test_auto_without_weights_is_the_bundled_checkpoint(bundled: Path, on_gpu: bool) -> None:
    """Nothing is downloaded; the demo checkpoint says that it is one."""
    chosen = choose("auto", on_gpu=on_gpu)
    assert (chosen.source, chosen.bundled) == (str(bundled), True)
    assert chosen.generation.native_area == 16384


def test_auto_takes_downloaded_weights_on_a_gpu_only(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten billion parameters on a CPU would take days a clip."""
    monkeypatch.setattr(checkpoints, "is_downloaded", lambda repo_id: True)
    assert choose("auto", on_gpu=True).source == "genmo/mochi-1-preview"
    assert choose("auto", on_gpu=False).bundled


@pytest.mark.parametrize("setting", ["auto", "genmo/mochi-1-preview"])
def test_converted_weights_are_found_by_their_hub_id(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """What is published in another layout; people are shown the name that they know."""
    monkeypatch.setattr(checkpoints.constants, "HF_HOME", str(tmp_path / "home"))
    converted = checkpoints.converted_folder("genmo/mochi-1-preview")
    assert converted.is_relative_to(tmp_path / "home")
    converted.parent.mkdir(parents=True)
    folder(converted)
    chosen = choose(setting, on_gpu=True)
    assert (chosen.source, chosen.label) == (str(converted), "genmo/mochi-1-preview")
    assert not chosen.bundled


def test_a_folder_without_a_generation_config_gets_the_published_settings(tmp_path: Path) -> None:
    """Any diffusers folder of the family will do."""
    chosen = choose(str(folder(tmp_path / "mine")))
    assert chosen.generation == PUBLISHED.generation
    assert not chosen.bundled


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    """The message says what is missing."""
    with pytest.raises(BackendUnavailable, match=r"model_index\.json"):
        choose(str(tmp_path))


def test_a_hub_id_that_is_not_downloaded_names_the_command() -> None:
    """The service never downloads by itself."""
    with pytest.raises(BackendUnavailable, match="make weights MODEL=mochi"):
        choose("genmo/mochi-1-preview")


def test_a_broken_generation_config_is_named(tmp_path: Path) -> None:
    """A wrong key or value stops the start, with its name."""
    with pytest.raises(BackendUnavailable, match="native_area"):
        choose(str(folder(tmp_path / "mine", native_area=-1)))


# --- draft checkpoints -------------------------------------------------------------------


def choose_draft(setting: str, published: Published = FAMILY) -> checkpoints.Checkpoint | None:
    config = ModelConfig(name="mochi", draft_checkpoint=setting)
    chosen = choose_checkpoint(config, published=published, bundled="tiny", on_gpu=False)
    return chosen.draft


def test_a_draft_checkpoint_has_its_own_settings(bundled: Path, tmp_path: Path) -> None:
    """Those of its folder, else those of the published distilled weights."""
    assert choose_draft("") is None
    plain = choose_draft(str(folder(tmp_path / "plain")))
    assert plain is not None
    assert (plain.label, plain.generation.num_inference_steps) == ("plain", 8)
    settings = PUBLISHED.generation.model_dump() | {"num_inference_steps": 4}
    own = choose_draft(str(folder(tmp_path / "own", **settings)))
    assert own is not None
    assert own.generation.num_inference_steps == 4


def test_the_published_distilled_weights_keep_their_schedule_as_a_checkpoint(
    bundled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they make the drafts or everything."""
    monkeypatch.setattr(checkpoints, "is_downloaded", lambda repo_id: True)
    config = ModelConfig(name="mochi", checkpoint="FastVideo/FastMochi-diffusers")
    chosen = choose_checkpoint(config, published=FAMILY, bundled="tiny", on_gpu=True)
    assert (chosen.label, chosen.generation.num_inference_steps) == (config.checkpoint, 8)
    draft = choose_draft(config.checkpoint)
    assert draft is not None
    assert draft.generation.num_inference_steps == 8


def test_a_draft_checkpoint_that_is_not_here_is_refused_with_the_command(bundled: Path) -> None:
    """As any checkpoint is."""
    command = "weights mochi --repo FastVideo/FastMochi-diffusers"
    with pytest.raises(BackendUnavailable, match=f"draft_checkpoint 'x/y' .*{command}"):
        choose_draft("x/y")


def test_a_model_without_distilled_weights_takes_no_draft_checkpoint(bundled: Path) -> None:
    """A setting that would do nothing is refused."""
    with pytest.raises(BackendUnavailable, match="leave it empty"):
        choose_draft("x/y", PUBLISHED)
