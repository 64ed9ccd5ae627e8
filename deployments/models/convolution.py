"""Convolve video on the CPU with oneDNN also where torch would not."""

import torch
from torch import nn


def convolve(layer: nn.Conv3d, video: torch.Tensor) -> torch.Tensor:
    """Return `layer(video)`; sums may be added up in another order.

    torch judges an input of (B, C, T, H, W) by B * C * T * H, and gives all below 20,480 to a
    routine of its own (pytorch 2.13 aten/src/ATen/native/Convolution.cpp, use_mkldnn), which takes
    up to eight times as long for the few frames of a chunk.

    Args:
        layer: not transposed.
        video: (B, C, T, H, W).
    """
    if (video.device.type, video.dtype) != ("cpu", torch.float32) or _without_onednn():
        return layer(video)
    return torch.ops.aten.mkldnn_convolution(
        video,
        layer.weight,
        layer.bias,
        layer.padding,
        layer.stride,
        layer.dilation,
        layer.groups,
    )


def _without_onednn() -> bool:
    return not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)
