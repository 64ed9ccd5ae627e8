"""The training attention equals diffusers' own; the learning rate ends where it should."""

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import MochiAttnProcessor2_0

from training.models import new_model
from training.trainer import PEAK_RATE, WARM_UP_STEPS, learning_rate

TOKENIZER = Path("checkpoints/mochi-tiny/tokenizer")


@pytest.mark.filterwarnings("ignore:In CPU autocast")
def test_batched_attention_equals_the_original() -> None:
    """On captions of different lengths, one of them empty."""
    model = new_model(TOKENIZER, seed=0)
    torch.nn.init.normal_(model.transformer.proj_out.weight, std=0.1)
    latents, share = torch.randn(3, 12, 2, 4, 6), torch.rand(3)
    captions = ["a red ball", "", "a blue square moving up over the sea at night"]
    with torch.no_grad():
        batched = model(latents, share, captions)
        for block in model.transformer.transformer_blocks:
            block.attn1.processor = MochiAttnProcessor2_0()
        original = model(latents, share, captions)
    torch.testing.assert_close(batched, original, atol=1e-4, rtol=1e-4)


def test_the_learning_rate_warms_up_and_decays() -> None:
    """It rises from the first step, stays, and ends at 2 % of its peak."""
    assert learning_rate(0.0, 0) == pytest.approx(PEAK_RATE / WARM_UP_STEPS)
    assert learning_rate(0.0, 100) == pytest.approx(PEAK_RATE)
    assert learning_rate(1.0, 1000) == pytest.approx(PEAK_RATE * 0.02)
