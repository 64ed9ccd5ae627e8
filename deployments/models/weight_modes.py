"""How a transformer's weights are stored, and moving a network between the GPU and the host.

- resident: as loaded.
- streamed: in the memory of the host; each block is brought to the GPU as it works. The same bits.
- fp8: in 8-bit floating point but for norms and outermost layers, each layer cast as it works.
- int8: the matrices in the blocks as whole numbers of 8 bits.
- nf4: those in 4 bits, the modulations of the norms in int8.

The last three change what the network computes, a little. None can be undone.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from deployments.models.blocks import blocks_of
from deployments.models.quantised import Int8Linear, Nf4Linear
from deployments.models.streaming import is_streamed, rest, stream

WeightMode = Literal["resident", "streamed", "fp8", "int8", "nf4"]
Quantised = type[Int8Linear] | type[Nf4Linear]


def set_weight_mode(
    transformer: Any, mode: WeightMode, device: str, *, page_locked: bool = False
) -> None:
    """Put a transformer that was just loaded, and is on the CPU, into `mode`.

    Needs no memory beside the weights but that of some copies of one layer.

    Args:
        transformer: of diffusers, its blocks in `blocks.BLOCK_LISTS`.
        device: where it is to compute.
        page_locked: see `stream`.
    """
    if mode == "streamed":
        stream(transformer, device, page_locked=page_locked)
    elif mode == "fp8":
        transformer.enable_layerwise_casting(torch.float8_e4m3fn, transformer.dtype)
    elif mode == "int8":
        _replace_linears(transformer, lambda _: Int8Linear, device)
    elif mode == "nf4":
        _replace_linears(transformer, _nf4_but_norms, device)


def move(network: Any, device: str) -> Any:
    """Return `network`, now on `device`, in whatever mode it is.

    A streamed one always rests on the host, from where its blocks come by themselves.
    """
    if is_streamed(network):
        rest(network)
        return network
    return network.to(device)


def _nf4_but_norms(name: str) -> Quantised:
    return Int8Linear if "norm" in name else Nf4Linear


def _replace_linears(transformer: Any, kind: Callable[[str], Quantised], device: str) -> None:
    """Put quantised layers in the place of the linear ones in the blocks, one after the other.

    Each visits `device` for it: a CPU needs minutes for all of them, a GPU seconds.
    """
    for block in blocks_of(transformer):
        names = [name for name, layer in block.named_modules() if isinstance(layer, nn.Linear)]
        for name in names:
            layer, parent = block.get_submodule(name), name.rpartition(".")[0]
            home = layer.weight.device
            quantised = kind(name).of(layer.to(device)).to(home)
            setattr(block.get_submodule(parent), name.rpartition(".")[2], quantised)
