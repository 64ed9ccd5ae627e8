"""The benchmark of the declared qualities runs, and its measures of likeness are those meant."""

import math

import numpy as np
import pytest
import torch

from benchmarks import fast
from benchmarks.likeness import psnr, ssim

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 16, 20, 3), dtype=np.uint8)


def test_equal_clips_are_wholly_alike() -> None:
    """The upper ends of both scales."""
    assert ssim(FRAMES, FRAMES) == pytest.approx(1)
    assert psnr(FRAMES, FRAMES) == math.inf


def test_psnr_is_that_of_the_mean_square_error() -> None:
    """An error of 5 everywhere is 20 log10(255 / 5) dB."""
    dark = FRAMES // 2
    assert psnr(dark + 5, dark) == pytest.approx(20 * math.log10(255 / 5))


def test_ssim_of_flat_pictures_is_that_of_their_means() -> None:
    """Without structure the formula's second factor is 1."""
    one, other = np.full_like(FRAMES, 100), np.full_like(FRAMES, 150)
    c1 = (0.01 * 255) ** 2
    assert ssim(one, other) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1))


def test_ssim_sees_lost_structure() -> None:
    """The same mean without the pattern."""
    assert ssim(np.full_like(FRAMES, 128), FRAMES) < 0.1


def test_the_benchmark_prints_both_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """What the numbers should be is for people to read."""
    threads = torch.get_num_threads()
    arguments = ["--models", "mochi", "--videos", "1", "--frames", "8", "--steps", "4"]
    fast.main([*arguments, "--thresholds", "1e-9", "1000", "--drafts", "3"])
    torch.set_num_threads(threads)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if "|" in line]
    none, most, draft = rows[2], rows[3], rows[-1]
    assert none[1:2] + none[3:5] == ["0%", "1.0000", "1.0000"]
    assert most[1] == "75%"
    assert draft[0] == "| 3"
