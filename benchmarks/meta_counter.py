"""Count what full-size networks compute and keep alive, on the meta device: no memory, no weights.

Tensors on the meta device have shapes and no values. `count` runs a piece of work on them as a GPU
would run it: attention without an N x N matrix, and autocast to bfloat16. It adds up the storages
that are alive together, and lets torch's FlopCounterMode count the operations.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class Count:
    """What a piece of work took: floating point operations, and bytes of tensors that were alive
    together at most, weights not included."""

    flops: int
    peak_bytes: int


def count(work: Callable[[], object], networks: Iterable[nn.Module]) -> Count:
    """Run `work` and return what it took.

    Args:
        work: computes with `networks`, without gradients; what it returns is let go.
        networks: on the meta device; their weights are not counted.
    """
    live = _LiveStorages(weight for network in networks for weight in _weights(network))
    flops, like_a_gpu = FlopCounterMode(display=False), _LikeAGpu()
    with (
        torch.no_grad(),
        patch.object(torch, "autocast", like_a_gpu.autocast),
        like_a_gpu,
        live,
        flops,
    ):
        work()
    return Count(flops.get_total_flops(), live.peak_bytes)


def on_meta(kind: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
    """Return the network `kind(...)` on the meta device, with weights in bfloat16."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            return kind(*arguments, **settings).eval()
    finally:
        torch.set_default_dtype(torch.float32)


def num_parameters(network: nn.Module) -> int:
    """Return the number of weights of `network`."""
    return sum(weight.numel() for weight in network.parameters())


def _weights(network: nn.Module) -> Iterator[torch.Tensor]:
    yield from network.parameters()
    yield from network.buffers()


class _LiveStorages(TorchDispatchMode):
    """Adds up the storages of the tensors that operations return, for as long as they live."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak_bytes = self._bytes = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.is_meta:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self._bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        weakref.finalize(storage, self._let_go, key)

    def _let_go(self, key: int) -> None:
        self._bytes -= self._sizes.pop(key)


class _LikeAGpu(TorchFunctionMode):
    """Has the meta device do as a GPU does where it would not."""

    # What autocast runs in bfloat16, and in float32: torch/amp "CUDA Op-Specific Behavior".
    IN_BFLOAT16 = (functional.linear, torch.conv2d, torch.conv3d, torch.einsum)
    IN_FLOAT32 = (functional.layer_norm,)

    def __init__(self) -> None:
        super().__init__()
        self._autocast_to: torch.dtype | None = None

    @contextmanager
    def autocast(
        self, device_type: str, dtype: torch.dtype = torch.bfloat16, enabled: bool = True
    ) -> Iterator[None]:
        """Stand in for torch.autocast, which refuses the meta device."""
        before, self._autocast_to = self._autocast_to, dtype if enabled else None
        try:
            yield
        finally:
            self._autocast_to = before

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if function is torch.nonzero:
            return _indices(args[0])
        if self._autocast_to is not None and function in self.IN_BFLOAT16:
            args, kwargs = _cast((args, kwargs), self._autocast_to)
        if self._autocast_to is not None and function in self.IN_FLOAT32:
            args, kwargs = _cast((args, kwargs), torch.float32)
        return function(*args, **kwargs)

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        **_: Any,
    ) -> torch.Tensor:
        """Call the kernels that a GPU takes: flash, and memory-efficient where there is a mask."""
        if self._autocast_to is not None:
            query, key, value = _cast((query, key, value), self._autocast_to)
        if attn_mask is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, attn_mask, False
        )[0]


def _cast(values: Any, dtype: torch.dtype) -> Any:
    """Return `values` with every floating point tensor in `dtype`."""
    return tree_map_only(
        torch.Tensor, lambda each: each.to(dtype) if each.is_floating_point() else each, values
    )


def _indices(mask: torch.Tensor) -> torch.Tensor:
    """Return (n, 1) indices of the tokens that a prompt's mask keeps, which has no values here.

    Prompts come trimmed: all are kept; but an empty prompt is one token that is masked out.
    """
    kept = 0 if mask.numel() == 1 else mask.numel()
    return torch.empty(kept, 1, dtype=torch.long, device="meta")
