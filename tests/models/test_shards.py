"""Large files are copied tensor by tensor, and the libraries read what was written."""

import json
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.shards import Tensor, in_safetensors, stored_tensors, write_shards
from tests.tiny_opensora import tiny_transformer


def lazy(tensor: torch.Tensor) -> Tensor:
    return Tensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)


def test_what_is_written_is_what_the_library_reads(tmp_path: Path) -> None:
    """Also tensors of no dimension, and those that are views."""
    torch.manual_seed(0)
    tensors = {
        "half": torch.randn(3, 5).bfloat16(),
        "number": torch.tensor(7),
        "turned": torch.randn(4, 6).T,
        "rows": torch.randn(10, 2)[3:5],
    }
    write_shards(tmp_path, "model", {name: lazy(tensor) for name, tensor in tensors.items()})
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_a_network_in_shards_is_loaded(tmp_path: Path) -> None:
    """The index says which file holds what; no file is larger than asked."""
    network = tiny_transformer()
    network.save_config(tmp_path)
    weights = network.state_dict()
    tensors = {name: lazy(weight) for name, weight in weights.items()}
    write_shards(tmp_path, "diffusion_pytorch_model", tensors, shard_bytes=500_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    total = sum(weight.nbytes for weight in weights.values())
    assert len(files) >= total // 500_000
    assert files[0].name == f"diffusion_pytorch_model-00001-of-{len(files):05}.safetensors"
    for file in files:
        assert sum(tensor.nbytes for tensor in load_file(file).values()) <= 500_000
    index = json.loads((tmp_path / "diffusion_pytorch_model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == total
    loaded = OpenSoraTransformer3DModel.from_pretrained(tmp_path, local_files_only=True)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, weights[name]), name


def test_one_tensor_is_in_memory_at_a_time(tmp_path: Path) -> None:
    """Each is gone before the next is made."""
    made: list[weakref.ref[torch.Tensor]] = []

    def make() -> torch.Tensor:
        assert all(earlier() is None for earlier in made)
        tensor = torch.zeros(100)
        made.append(weakref.ref(tensor))
        return tensor

    tensors = {f"weight{i}": Tensor((100,), torch.float32, make) for i in range(5)}
    write_shards(tmp_path, "model", tensors)
    assert len(made) == 5


def test_a_tensor_that_is_not_as_announced_is_refused(tmp_path: Path) -> None:
    """The header is written first; a wrong one would make the file unreadable."""
    wrong = Tensor((4,), torch.float32, lambda: torch.zeros(4, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match=r"weight is torch\.bfloat16"):
        write_shards(tmp_path, "model", {"weight": wrong})


def test_a_change_is_made_when_the_tensor_is_read(tmp_path: Path) -> None:
    """Its shape and dtype are known before."""
    save_file({"weight": torch.arange(6.0)}, tmp_path / "model.safetensors")
    changed = stored_tensors(tmp_path)["weight"].then(lambda weight: weight[:2].bfloat16())
    assert (changed.shape, changed.dtype) == ((2,), torch.bfloat16)
    assert changed.make().tolist() == [0, 1]


def test_files_of_pytorch_are_read_where_there_are_no_others(tmp_path: Path) -> None:
    """Repositories of older models have only these."""
    weight = torch.randn(3, 2)
    torch.save({"weight": weight}, tmp_path / "pytorch_model.bin")
    stored = stored_tensors(tmp_path)["weight"]
    assert (stored.shape, stored.dtype) == ((3, 2), torch.float32)
    assert torch.equal(stored.make(), weight)
    save_file({"weight": weight + 1}, tmp_path / "model.safetensors")
    assert torch.equal(stored_tensors(tmp_path)["weight"].make(), weight + 1)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    """As after a download that was cut off."""
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path.name} holds no \.safetensors"):
        stored_tensors(tmp_path)


def test_a_type_that_is_not_known_is_named(tmp_path: Path) -> None:
    """A quantised file is not what these programs convert."""
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2, dtype=torch.float8_e4m3fn)}, path)
    with pytest.raises(ValueError, match="weight is of type F8_E4M3"):
        in_safetensors(path)
