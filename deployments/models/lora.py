"""LoRA in a network of diffusers, for as long as it is wanted and not a moment longer.

Loaded for each use and unloaded after it: then the network consists of its own modules again, so
that the next video is that of a network that never had any, and nothing of it stays in memory.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from safetensors import SafetensorError, safe_open

from deployments.models.streaming import is_streamed, rest


class ChangedLayer(Protocol):
    """Which tensors of a file change a layer, and how much."""

    @property
    def module(self) -> str:
        """The layer's name in the network."""

    @property
    def down(self) -> str:
        """The key of a matrix (rank, in)."""

    @property
    def up(self) -> str:
        """The key of a matrix of which the layer has some rows, (out, rank)."""

    @property
    def rows(self) -> tuple[int, int]:
        """The first of these rows, and the first that is not one of them."""

    @property
    def rank(self) -> int:
        """The number of columns of `up`."""

    @property
    def alpha(self) -> str | None:
        """The key of a number that over the rank is a factor of the scale; None for 1."""

    @property
    def scale(self) -> float:
        """The other factor."""


@dataclass(frozen=True)
class Adapter:
    """A LoRA file, what it changes, and how much of that is wanted."""

    path: Path
    layers: Sequence[ChangedLayer]
    strength: float


def linears(network: torch.nn.Module) -> dict[str, tuple[int, int]]:
    """Return (out, in) of every linear layer by its name, whatever its weights are stored in."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


@contextmanager
def active(network: Any, adapters: Sequence[Adapter]) -> Iterator[None]:
    """Have the network compute with `adapters`, which lie where its layers lie and move with it.

    What was compiled runs uncompiled meanwhile: it would be compiled anew for every LoRA and every
    strength.

    Args: network: with diffusers' `PeftAdapterMixin`, and without any LoRA.

    Raises: ValueError: a file cannot be read; the network is as it was.
    """
    wanted = [adapter for adapter in adapters if adapter.strength]
    if not wanted:
        yield
        return
    with ExitStack() as stack:
        # PEFT freezes the network; what was compiled for it as it was would not fit it any more.
        trained = [weight for weight in network.parameters() if weight.requires_grad]
        streamed = is_streamed(network)
        if streamed:
            # Before the LoRA is there: its groups put back what they knew when they were made.
            rest(network)
        stack.callback(_unload, network, trained)
        names = []
        for number, adapter in enumerate(wanted):
            names.append(f"lora_{number}")
            _load(network, adapter, names[-1])
        network.set_adapters(names, [adapter.strength for adapter in wanted])
        if streamed:
            _maybe_remove_and_reapply_group_offloading(network)
            stack.callback(rest, network)  # a pass may break off
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _unload(network: Any, trained: Sequence[torch.nn.Parameter]) -> None:
    network.unload_lora()
    for weight in trained:
        weight.requires_grad_()


def _load(network: Any, adapter: Adapter, name: str) -> None:
    weights = _weights(network, adapter)
    with warnings.catch_warnings():
        # PEFT finds layers by the ends of their names, too, then takes those of the weights.
        warnings.filterwarnings("ignore", message="While injecting the PEFT adapters")
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        network.load_lora_adapter(weights, prefix=None, adapter_name=name, low_cpu_mem_usage=True)
    for key, matrix in weights.items():
        # Again: PEFT has given them the dtype of the layer's own weights, which may be of 8 bits.
        layer, part, _ = key.rsplit(".", 2)
        network.get_submodule(f"{layer}.{part}.{name}").weight.data = matrix


def _weights(network: Any, adapter: Adapter) -> dict[str, torch.Tensor]:
    """Return the matrices by PEFT's names, each where its layer lies, with the scale in `lora_B`.

    They have the dtype in which the network computes.
    """
    found: dict[str, torch.Tensor] = {}
    dtype = network.dtype  # asks every module for its hooks
    try:
        with safe_open(adapter.path, "pt") as file:
            for layer in adapter.layers:
                device = network.get_submodule(layer.module).weight.device
                down, up = _matrix(file, layer.down), _matrix(file, layer.up)
                up = up[slice(*layer.rows)] * _scale(file, layer)
                for part, matrix in (("lora_A", down), ("lora_B", up)):
                    key = f"{layer.module}.{part}.weight"
                    found[key] = matrix.to(device, dtype)
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{adapter.path.name}: {error}") from error
    return found


def _matrix(file: Any, key: str) -> torch.Tensor:
    tensor: torch.Tensor = file.get_tensor(key)
    if not tensor.is_floating_point():
        raise ValueError(f"{key}: holds {tensor.dtype}; only floating point is read")
    return tensor.float()


def _scale(file: Any, layer: ChangedLayer) -> float:
    alpha = 1.0 if layer.alpha is None else float(file.get_tensor(layer.alpha)) / layer.rank
    return alpha * layer.scale
