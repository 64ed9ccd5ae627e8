"""Two checkpoints with the same T5 share its files, and with them memory."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5EncoderModel

from deployments.models.equal_weights import share_weights


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    config = T5Config(d_model=32, d_ff=64, d_kv=8, num_heads=4, num_layers=2, vocab_size=100)
    return T5EncoderModel(config).to(torch.bfloat16)


@pytest.fixture
def pair(network: Any, tmp_path: Path) -> tuple[Path, Path]:
    """One as the hub's cache holds it, in its variant behind symbolic links, and one in shards."""
    blobs, kept, replaced = (tmp_path / name for name in ("blobs", "kept", "replaced"))
    network.save_pretrained(kept, variant="bf16")
    blobs.mkdir()
    for path in kept.glob("*.safetensors"):
        path.rename(blobs / "1a2b")
        path.symlink_to(blobs / "1a2b")
    network.save_pretrained(replaced, max_shard_size="20KB")
    assert len(list(replaced.glob("*.safetensors"))) > 1
    return kept, replaced


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_equal_networks_share_their_files(network: Any, pair: tuple[Path, Path]) -> None:
    """The second one is loaded as before; what it took on the disk is free."""
    kept, replaced = pair
    before = sum(path.stat().st_size for path in replaced.glob("*.safetensors"))
    config = (replaced / "config.json").read_bytes()
    assert share_weights(kept, replaced) == before
    (ours,), (theirs,) = (list(folder.glob("*.safetensors")) for folder in pair)
    assert ours.stat().st_ino == theirs.stat().st_ino
    assert not theirs.is_symlink()
    assert (replaced / "config.json").read_bytes() == config
    loaded = T5EncoderModel.from_pretrained(replaced, dtype=torch.bfloat16, variant="bf16")
    for name, weight in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    assert sorted(path.name for path in kept.parent.iterdir()) == ["blobs", "kept", "replaced"]
    assert share_weights(kept, replaced) == 0


def test_weights_are_mapped_from_their_file(pair: tuple[Path, Path]) -> None:
    """On this the sharing of memory rests: loading in the stored type copies nothing."""
    kept, _ = pair
    loaded = T5EncoderModel.from_pretrained(kept, dtype=torch.bfloat16, variant="bf16")
    where = loaded.encoder.block[0].layer[0].SelfAttention.q.weight.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= where < last:
            assert line.endswith(str(kept.parent / "blobs/1a2b"))
            return
    raise AssertionError("the weight lies nowhere")


@pytest.mark.parametrize("change", ["value", "type"])
def test_networks_that_differ_are_left_alone(
    network: Any, pair: tuple[Path, Path], change: str
) -> None:
    """Be it in one bit of one tensor."""
    kept, replaced = pair
    other = T5EncoderModel(network.config).to(torch.bfloat16)
    other.load_state_dict(network.state_dict())
    if change == "value":
        with torch.no_grad():
            other.encoder.final_layer_norm.weight[3] *= 1.01
    else:
        other.float()
    for path in replaced.iterdir():
        path.unlink()
    other.save_pretrained(replaced)
    before = contents(replaced)
    assert share_weights(kept, replaced) == 0
    assert contents(replaced) == before


def test_on_another_disk_everything_stays_as_it_was(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hard link needs one disk."""
    kept, replaced = pair

    def link(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", link)
    before = contents(replaced)
    with pytest.raises(OSError, match="cross-device"):
        share_weights(kept, replaced)
    assert contents(replaced) == before
    assert sorted(path.name for path in kept.parent.iterdir()) == ["blobs", "kept", "replaced"]
