"""Linear layers whose weights are stored in 8 or 4 bits and multiplied in the layer's own dtype.

A layer is a matrix product like any other, after its weights have been turned back into numbers: as
fast for many tokens at once, and less accurate. What is stored are parameters that no gradient
reaches, so that a network of such layers is moved and streamed like any other: buffers diffusers
brings to the GPU with their block, and leaves there. The layers are `nn.Linear`s: so LoRA finds
them.
"""

from typing import Self

import torch
from torch import nn
from torch.nn import functional

# T. Dettmers et al., QLoRA (arXiv:2305.14314), appendix E: the quantiles of a normal distribution
# that 4 bits stand for, with an exact zero; between each two of them lies the border.
NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
# Weights that share one scale, as in the paper.
NF4_BLOCK = 64
INT8_MAX = 127


class QuantisedLinear(nn.Linear):
    """A linear layer of whatever `dequantised` turns back into weights."""

    weight: nn.Parameter
    scale: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        out_features: int,
        in_features: int,
    ):
        nn.Module.__init__(self)  # nn.Linear's own would make parameters of full size
        self.out_features, self.in_features = out_features, in_features
        for name, tensor in (("weight", weight), ("scale", scale), ("bias", bias)):
            stored = None if tensor is None else nn.Parameter(tensor, requires_grad=False)
            self.register_parameter(name, stored)

    def dequantised(self) -> torch.Tensor:
        """Return the weights: (out_features, in_features), in the layer's dtype."""
        raise NotImplementedError

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Multiply (..., in_features) by the weights, as `nn.Linear` does."""
        return functional.linear(hidden, self.dequantised(), self.bias)


class Int8Linear(QuantisedLinear):
    """A linear layer with a scale for each output channel: w = scale * q, q from -127 to 127."""

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """Return the layer that stands for `linear`, on the same device."""
        weight = linear.weight.detach()
        # The scale as it is stored, so that its rounding is made up for.
        scale = (weight.float().abs().amax(dim=1, keepdim=True) / INT8_MAX).to(weight.dtype)
        quotient = weight.float() / scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        quantised = quotient.round().clamp(-INT8_MAX, INT8_MAX).to(torch.int8)
        return cls(quantised, scale, linear.bias, *weight.shape)

    def dequantised(self) -> torch.Tensor:
        """See `QuantisedLinear.dequantised`."""
        return self.weight * self.scale


class Nf4Linear(QuantisedLinear):
    """A linear layer of 4-bit weights, two a byte, each 64 consecutive ones with a scale.

    Args:
        weight: (blocks, 32) of uint8: indices into `NF4`, the first of a pair in the upper half.
        scale: (blocks, 1), the largest magnitude in each block.
    """

    pairs: torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor | None,
        out_features: int,
        in_features: int,
    ):
        super().__init__(weight, scale, bias, out_features, in_features)
        # The two numbers that each byte stands for, for which it does not matter where they stay;
        # nothing that a checkpoint would hold.
        values = torch.tensor(NF4, dtype=scale.dtype, device=scale.device)
        pairs = torch.stack([values.repeat_interleave(len(NF4)), values.repeat(len(NF4))], dim=1)
        self.register_buffer("pairs", pairs, persistent=False)

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """Return the layer that stands for `linear`, on the same device."""
        weight = linear.weight.detach()
        flat = weight.flatten().float()
        blocks = functional.pad(flat, (0, -len(flat) % NF4_BLOCK)).view(-1, NF4_BLOCK)
        scale = blocks.abs().amax(dim=1, keepdim=True).to(weight.dtype)
        blocks = blocks / scale.float().clamp(min=torch.finfo(torch.float32).tiny)
        values = torch.tensor(NF4, device=weight.device)
        borders = (values[1:] + values[:-1]) / 2
        codes = torch.bucketize(blocks, borders, out_int32=True).to(torch.uint8)
        packed = codes[:, ::2] * len(NF4) + codes[:, 1::2]
        return cls(packed, scale, linear.bias, *weight.shape)

    def dequantised(self) -> torch.Tensor:
        """See `QuantisedLinear.dequantised`."""
        values = functional.embedding(self.weight.int(), self.pairs).flatten(1).mul_(self.scale)
        flat = values.flatten()[: self.out_features * self.in_features]
        return flat.view(self.out_features, self.in_features)
