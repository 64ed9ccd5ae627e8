"""What streaming with a GPU's streams does to a network: on the CPU, with pretended streams.

What diffusers does then differs from what it does on a CPU: it puts weights back from a list that
it made once, instead of moving whatever is there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks import group_offloading

from deployments.models.lora import active, linears
from deployments.models.streaming import HOOKS, end_streaming, rest, stream
from deployments.models.weight_modes import WeightMode
from tests.models.test_lora import adapter
from tests.models.test_weight_modes import MODELS, Model, fail, stored
from tests.tiny_lora import random_lora, write_lora

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
BLOCK = "transformer_blocks.1"


class PretendedStream:
    def synchronize(self) -> None:
        pass


class PretendedGpu:
    """In the place of diffusers' `TorchDeviceBackend`."""

    Stream = PretendedStream

    def __init__(self, device: torch.device) -> None:
        pass

    def current_stream(self) -> PretendedStream:
        return PretendedStream()

    def stream(self, _: PretendedStream) -> AbstractContextManager[None]:
        return nullcontext()


def bring(_: Any, tensor: torch.Tensor, source: torch.Tensor, __: PretendedStream) -> None:
    """A copy stands for what is on the GPU."""
    tensor.data = source.clone()


@pytest.fixture(autouse=True)
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", PretendedGpu)
    monkeypatch.setattr(group_offloading.ModuleGroup, "_transfer_tensor_to_device", bring)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)


def stream_to_gpu(network: Any) -> Any:
    stream(network, "cpu")
    network._diffusers_hook.get_hook(HOOKS[0]).config.stream = PretendedStream()
    group_offloading._maybe_remove_and_reapply_group_offloading(network)
    return network


def places(network: Any) -> dict[str, int]:
    """Where each weight of the blocks lies. What is outside of them has no stream, and no copy."""
    found = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: each.data_ptr() for name, each in found.items() if "transformer_blocks." in name}


def away(home: dict[str, int], now: dict[str, int]) -> set[str]:
    """The weights that are at work; NF4's tables may stay away until the network rests."""
    return {name for name in home if home[name] != now[name] and not name.endswith(".pairs")}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


@pytest.mark.parametrize("mode", ["resident", "fp8", "int8", "nf4"])
def test_each_block_leaves_after_it_has_worked(model: Model, mode: WeightMode) -> None:
    """However its weights are stored; the bits are the same, and at the end all are at home."""
    _, latents = model
    transformer = stored(model, mode)
    expected, home = latents(transformer), places(transformer)
    stream_to_gpu(transformer)
    at_work: list[set[str]] = []

    def watch(*_: object) -> None:
        at_work.append(away(home, places(transformer)))

    for part in transformer.get_submodule(BLOCK).children():
        part.register_forward_pre_hook(watch)
    for _ in range(2):
        assert torch.equal(latents(transformer), expected)
    assert at_work
    for names in at_work:
        assert any(name.startswith(BLOCK) for name in names)
        assert not any(name.startswith("transformer_blocks.0.") for name in names)
    rest(transformer)
    assert places(transformer) == home
    end_streaming(transformer)
    assert torch.equal(latents(transformer), expected)


def lora(folder: Path, make: Callable[[], Any]) -> Any:
    network = make()
    path = write_lora(folder / "a.safetensors", random_lora(network, linears(network)))
    return adapter(path, network)


def test_a_lora_is_streamed_and_leaves_nothing_behind(model: Model, tmp_path: Path) -> None:
    """Nor is anything amiss when a pass breaks off."""
    make, latents = model
    changed = lora(tmp_path, make)
    plain, streamed = make(), stream_to_gpu(make())
    before = latents(plain)
    with active(plain, [changed]):
        expected = latents(plain)
    assert not torch.allclose(expected, before)
    for _ in range(2):
        with active(streamed, [changed]):
            assert torch.equal(latents(streamed), expected)
        assert torch.equal(latents(streamed), before)
    breaks = streamed.get_submodule(BLOCK).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"), active(streamed, [changed]):
        latents(streamed)
    breaks.remove()
    assert not [name for name, _ in streamed.named_parameters() if "lora" in name]
    assert torch.equal(latents(streamed), before)


def test_a_lora_that_cannot_be_read_is_no_harm(model: Model, tmp_path: Path) -> None:
    """Behind one that could."""
    make, latents = model
    changed = lora(tmp_path, make)
    (tmp_path / "broken").mkdir()
    broken = lora(tmp_path / "broken", make)
    broken.path.write_bytes(b"")
    streamed = stream_to_gpu(make())
    before = latents(streamed)
    with pytest.raises(ValueError, match=r"a\.safetensors"), active(streamed, [changed, broken]):
        pass
    assert torch.equal(latents(streamed), before)
