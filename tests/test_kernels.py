"""`attention` and `compile` in the config: what works is used, what cannot is refused early."""

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from deployments.core.checkpoints import Checkpoint, GenerationConfig
from deployments.core.config import ModelConfig
from deployments.kernels import Kernels
from deployments.mochi import Mochi
from deployments.models import compiling
from deployments.opensora import OpenSora


class Network(nn.Module):
    """A transformer as `Kernels` sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = ""

    def set_attention_backend(self, name: str) -> None:
        self.attention = name


def test_by_default_nothing_is_changed() -> None:
    """And nothing is tried out."""
    kernels, network = Kernels(ModelConfig(name="mochi"), "cpu"), Network()
    kernels.check("streamed")
    kernels.use(network, pytest.fail, rests_on_cpu=False)
    assert network.attention == ""


def test_the_back_end_is_set_before_the_blocks_are_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The warm-up runs with it, and gets the transformer."""
    warmed: list[str] = []
    monkeypatch.setattr(compiling, "compile_blocks", lambda _, warm_up: warm_up())
    config = ModelConfig(name="mochi", attention="_native_math", compile=True)
    kernels = Kernels(config, "cpu")
    kernels.check("resident")
    kernels.use(Network(), lambda network: warmed.append(network.attention), rests_on_cpu=True)
    assert warmed == ["_native_math"]


@pytest.mark.parametrize("weights", ["streamed", "fp8"])
def test_weights_whose_blocks_cannot_be_compiled_are_refused(weights: str) -> None:
    """In the config, and where `weights: auto` comes to them."""
    with pytest.raises(ValidationError, match=f"compile: does not go with weights: {weights}"):
        ModelConfig(name="mochi", compile=True, weights=weights)
    with pytest.raises(ValueError, match=f"^compile: .* calls for {weights} weights"):
        Kernels(ModelConfig(name="mochi", compile=True), "cpu").check(weights)


@pytest.mark.parametrize(
    ("backend", "name"),
    [(Mochi, "mochi"), (OpenSora, "opensora")],
)
def test_a_replica_with_an_unusable_back_end_says_so_before_it_loads(
    backend: type[Mochi | OpenSora],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint here has no weights at all."""
    monkeypatch.setattr("deployments.models.loading.Family.check_folder", lambda *_: None)
    monkeypatch.setattr(backend, "figures", staticmethod(lambda _: None))
    generation = GenerationConfig(
        native_area=64 * 64, max_frames=97, num_inference_steps=6, guidance_scale=4.0
    )
    checkpoint = Checkpoint(
        source=str(tmp_path), label="empty", bundled=False, generation=generation
    )
    threads = torch.get_num_threads()
    model = backend(ModelConfig(name=name, attention="flash"), checkpoint, "cpu")
    with pytest.raises(ValueError, match=r"attention: 'flash' cannot be used: .* native,"):
        model.load()
    torch.set_num_threads(threads)
