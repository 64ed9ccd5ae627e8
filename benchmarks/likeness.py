"""How much two clips look alike: SSIM and PSNR, from their published formulas."""

import math

import torch
from torch.nn import functional

from deployments.core.events import Frames

LARGEST = 255.0
# ITU-R BT.601 luma.
LUMA = (0.299, 0.587, 0.114)
# Wang, Bovik, Sheikh, Simoncelli: Image quality assessment: from error visibility to structural
# similarity (2004), section III-B: a Gaussian window of 11 x 11 and these constants.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


def psnr(frames: Frames, reference: Frames) -> float:
    """Return the peak signal-to-noise ratio of two clips (T, H, W, 3) in dB; inf if equal."""
    difference = frames.astype(float) - reference.astype(float)
    error = float((difference**2).mean())
    return math.inf if error == 0 else 10 * math.log10(LARGEST**2 / error)


def ssim(frames: Frames, reference: Frames) -> float:
    """Return the mean structural similarity of the luma of two clips (T, H, W, 3), at most 1."""
    one, other = _luma(frames), _luma(reference)
    mean, mean_other = _blurred(one), _blurred(other)
    variance = _blurred(one * one) - mean**2
    variance_other = _blurred(other * other) - mean_other**2
    covariance = _blurred(one * other) - mean * mean_other
    c1, c2 = (K1 * LARGEST) ** 2, (K2 * LARGEST) ** 2
    alike = (2 * mean * mean_other + c1) * (2 * covariance + c2)
    most = (mean**2 + mean_other**2 + c1) * (variance + variance_other + c2)
    return float((alike / most).mean())


def _luma(frames: Frames) -> torch.Tensor:
    """Return (T, 1, H, W), float64."""
    weights = torch.tensor(LUMA, dtype=torch.float64)
    return (torch.from_numpy(frames).double() @ weights).unsqueeze(1)


def _blurred(pictures: torch.Tensor) -> torch.Tensor:
    """Weigh each pixel's neighbours by the window; where it does not fit, there is no result."""
    distance = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-(distance**2) / (2 * SIGMA**2))
    weights /= weights.sum()
    across = functional.conv2d(pictures, weights.view(1, 1, 1, -1))
    return functional.conv2d(across, weights.view(1, 1, -1, 1))
