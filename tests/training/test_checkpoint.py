"""The bundled checkpoint: an ordinary diffusers folder, small, and taking any text."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import MochiPipeline
from transformers import AutoTokenizer

from training.export import EXAMPLE_PROMPTS, GENERATION_CONFIG, weight_bytes

CHECKPOINT = Path("checkpoints/mochi-tiny")
MAX_WEIGHT_BYTES = 12_000_000


def test_the_weights_take_at_most_12_megabytes() -> None:
    """They are kept in the repository's history for ever."""
    assert 0 < weight_bytes(CHECKPOINT) <= MAX_WEIGHT_BYTES


def test_the_folder_loads_as_a_mochi_pipeline() -> None:
    """With diffusers' own loader, in the classes of the real checkpoint."""
    pipeline = MochiPipeline.from_pretrained(CHECKPOINT, torch_dtype=torch.float32)
    assert pipeline.config.force_zeros_for_empty_prompt
    assert pipeline.vae.config.latents_std == [1.0] * 12
    settings = json.loads((CHECKPOINT / "generation_config.json").read_text())
    assert tuple(settings.pop("example_prompts")) == EXAMPLE_PROMPTS
    assert settings == GENERATION_CONFIG
    assert settings["native_area"] >= 96 * 96
    assert settings["max_frames"] == 163


@pytest.mark.parametrize(
    "text", ["A serene lake at sunset", "日本語 🎉 naïve café {}~\n\ttab", "", "x" * 5000]
)
def test_the_tokenizer_takes_any_text(text: str) -> None:
    """Ends with </s>, never longer than 256 tokens, upper case as lower case."""
    tokenizer = AutoTokenizer.from_pretrained(CHECKPOINT / "tokenizer")
    ids = tokenizer(text, truncation=True, max_length=256).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) <= 256
    assert tokenizer(text.upper()).input_ids == tokenizer(text.upper().lower()).input_ids
