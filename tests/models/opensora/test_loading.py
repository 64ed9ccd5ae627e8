"""A converted Open-Sora is loaded completely and from disk, or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.models.opensora.loading import load, verify
from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from tests.tiny_opensora import tiny_pipeline

FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}


@pytest.fixture(scope="module")
def tiny() -> OpenSoraPipeline:
    return tiny_pipeline()


@pytest.fixture(scope="module")
def _saved(tiny: OpenSoraPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "opensora-random"
    tiny.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(_saved: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(_saved, tmp_path / "copy"))


def test_every_weight_arrives_on_the_cpu_in_float32(copy: Path, tiny: OpenSoraPipeline) -> None:
    """What was saved is what is loaded, both tokenizers too."""
    parts = load(str(copy), "cpu")
    for name in FILES:
        loaded, saved = getattr(parts, name), getattr(tiny, name)
        assert not loaded.training
        for key, tensor in saved.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key
            assert loaded.state_dict()[key].dtype == torch.float32
    for name in ("tokenizer", "tokenizer_2"):
        assert getattr(parts, name)("a fox").input_ids == getattr(tiny, name)("a fox").input_ids


@pytest.mark.parametrize("part", list(FILES))
@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_refused_by_name(copy: Path, part: str, damage: str) -> None:
    """By the loader, and by the check that needs no memory."""
    verify(copy)
    path = copy / part / FILES[part]
    weights = load_file(path)
    key = sorted(weights)[3]
    if damage == "missing":
        del weights[key]
    elif damage == "unexpected":
        weights[key := "stray.weight"] = torch.zeros(1)
    else:
        weights[key] = torch.zeros(7)
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{part}: 1 {damage} keys, first: .*{key}"):
        load(str(copy), "cpu")
    with pytest.raises(ValueError, match=f"{part}: 1 weights do not fit, first: {key}"):
        verify(copy)


@pytest.mark.parametrize("part", ["tokenizer", "tokenizer_2", *FILES])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    """Before anything is loaded."""
    shutil.rmtree(copy / part)
    with pytest.raises(FileNotFoundError, match=f"lacks its part '{part}'"):
        load(str(copy), "cpu")


def test_a_checkpoint_of_another_model_is_refused(copy: Path) -> None:
    """The message says whose it is."""
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "MochiPipeline"}))
    with pytest.raises(ValueError, match="of MochiPipeline, not of OpenSoraPipeline"):
        load(str(copy), "cpu")


def test_t5s_embedding_may_be_stored_under_either_name(copy: Path) -> None:
    """Both names are of one tensor."""
    path = copy / "text_encoder_2" / FILES["text_encoder_2"]
    weights = load_file(path)
    weights["encoder.embed_tokens.weight"] = weights.pop("shared.weight")
    save_file(weights, path, {"format": "pt"})
    verify(copy)
