"""A checkpoint is loaded completely and from disk, or not at all."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from safetensors.torch import load_file, save_file

from deployments.models.loading import stored_variant
from deployments.models.mochi1.loading import load
from tests.tiny_mochi import tiny_transformer

FILES = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint that the test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_every_weight_arrives_on_the_cpu_in_float32(folder: Path, pipeline: MochiPipeline) -> None:
    """What was saved is what is loaded."""
    parts = load(str(folder), "cpu")
    for name in FILES:
        loaded, saved = getattr(parts, name), getattr(pipeline, name)
        assert not loaded.training
        for key, tensor in saved.state_dict().items():
            assert torch.equal(loaded.state_dict()[key], tensor), key
            assert loaded.state_dict()[key].dtype == torch.float32
    assert parts.tokenizer("a fox").input_ids == pipeline.tokenizer("a fox").input_ids


@pytest.mark.parametrize("part", list(FILES))
@pytest.mark.parametrize("damage", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_refused_by_name(copy: Path, part: str, damage: str) -> None:
    """A network with some random weights would draw noise without an error."""
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


@pytest.mark.parametrize("part", ["tokenizer", "text_encoder", "transformer", "vae"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    """Before anything is loaded."""
    shutil.rmtree(copy / part)
    with pytest.raises(FileNotFoundError, match=f"lacks its part '{part}'"):
        load(str(copy), "cpu")


def test_a_part_without_weights_is_named(copy: Path) -> None:
    """As after a download that was cut off."""
    (copy / "vae" / FILES["vae"]).unlink()
    with pytest.raises(FileNotFoundError, match=r"copy/vae holds no \.safetensors"):
        load(str(copy), "cpu")


def test_a_checkpoint_of_another_model_is_refused(copy: Path) -> None:
    """The message says whose it is."""
    (copy / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match="FluxPipeline"):
        load(str(copy), "cpu")


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """A hub id that is not in the cache is an error, not a download."""
    with pytest.raises(FileNotFoundError, match="neither a folder nor downloaded"):
        load("nobody/such-a-model", "cpu")
    with pytest.raises(FileNotFoundError, match=r"no model_index\.json"):
        load(str(tmp_path), "cpu")


def test_a_folder_of_bfloat16_files_alone_can_be_loaded(copy: Path) -> None:
    """`make weights` fetches the half-size variant; the CPU reads it too."""
    shutil.rmtree(copy / "transformer")
    half = tiny_transformer().to(torch.bfloat16)
    half.save_pretrained(copy / "transformer", variant="bf16")
    assert load(str(copy), "cpu").transformer.dtype == torch.float32


def test_the_variant_is_chosen_by_dtype(tmp_path: Path) -> None:
    """bfloat16 reads the small files, float32 the exact ones."""
    both = tmp_path / "vae"
    both.mkdir()
    (both / "model.safetensors").touch()
    (both / "model.bf16.safetensors").touch()
    assert stored_variant(both, torch.bfloat16) == "bf16"
    assert stored_variant(both, torch.float32) is None
