"""Prompts are read as FLUX reads them, with the authors' sentences on speed and motion."""

import json
from collections.abc import Iterator

import pytest
import torch
from diffusers import FluxPipeline
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from deployments.models.opensora.text import PromptEncoder, prompt_with_suffix
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import CONFORMANCE, POOLED_DIM, TEXT_TOKENS, tiny_text_encoders

Parts = tuple[CLIPTokenizer, CLIPTextModel, T5Tokenizer, T5EncoderModel]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return tiny_text_encoders()


@pytest.fixture
def encoder(parts: Parts) -> PromptEncoder:
    return PromptEncoder(*parts)


@pytest.fixture
def passes(parts: Parts) -> Iterator[list[int]]:
    """One entry for each pass of T5 during the test."""
    seen: list[int] = []
    hook = parts[3].register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


@pytest.mark.parametrize(
    "row", json.loads((CONFORMANCE / "schedule.json").read_text())["prompt_suffix"]
)
def test_the_suffix_is_the_authors(row: dict[str, str]) -> None:
    """Speed, then motion; a speed that is there already stays."""
    ours = prompt_with_suffix(row["prompt"], int(row["fps"]), int(row["motion_score"]))
    assert ours == row["result"]


@pytest.mark.parametrize("prompt", ["a red fox", "", "xyz " * 40])
def test_an_embedding_is_fluxs(parts: Parts, encoder: PromptEncoder, prompt: str) -> None:
    """Padding included, unmasked; a long prompt is cut as there."""
    tokenizer, text_encoder, tokenizer_2, text_encoder_2 = parts
    flux = FluxPipeline(
        scheduler=None,
        vae=None,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2,
        tokenizer_2=tokenizer_2,
        transformer=None,
    )
    ours = encoder.encode(prompt).embedding
    with torch.no_grad():
        pooled = flux._get_clip_prompt_embeds(prompt)
        sequence = flux._get_t5_prompt_embeds(prompt, max_sequence_length=TEXT_TOKENS)
    torch.testing.assert_close(ours.sequence, sequence)
    torch.testing.assert_close(ours.pooled, pooled)
    assert ours.sequence.shape == (1, TEXT_TOKENS, TEXT_DIM)
    assert ours.pooled.shape == (1, POOLED_DIM)


def test_the_text_length_is_the_one_stored_with_the_tokenizer_at_most_512() -> None:
    """T5's own tokenizer stores none: then its length is very large."""
    tokenizer, text_encoder, tokenizer_2, text_encoder_2 = tiny_text_encoders()
    for stored, used in ((20, 20), (512, 512), (10**30, 512)):
        tokenizer_2.model_max_length = stored
        encoder = PromptEncoder(tokenizer, text_encoder, tokenizer_2, text_encoder_2)
        assert encoder.max_tokens == used
        assert encoder.encode("a fox").embedding.sequence.shape[1] == used


@pytest.mark.parametrize(("letters", "truncated"), [(30, False), (31, True), (200, True)])
def test_a_prompt_longer_than_t5_reads_says_so(
    encoder: PromptEncoder, letters: int, truncated: bool
) -> None:
    """One token is the word's beginning and one the closing mark, so 30 letters fill 32."""
    assert encoder.encode("x" * letters).truncated is truncated


def test_a_prompt_is_encoded_once(encoder: PromptEncoder, passes: list[int]) -> None:
    """The second time comes from memory."""
    first = encoder.encode("a fox")
    assert encoder.encode("a fox") is first
    assert len(passes) == 1


def test_the_least_recently_used_embedding_goes_first(parts: Parts, passes: list[int]) -> None:
    """Kept embeddings stay within the given bytes; the newest always stays."""
    embedding = PromptEncoder(*parts).encode("fox 1").embedding
    size = embedding.sequence.nbytes + embedding.pooled.nbytes
    encoder = PromptEncoder(*parts, cache_bytes=2 * size)
    passes.clear()
    for prompt in ("fox 1", "fox 2", "fox 1", "fox 3"):
        encoder.encode(prompt)
    assert len(passes) == 3
    encoder.encode("fox 1")
    assert len(passes) == 3
    encoder.encode("fox 2")
    assert len(passes) == 4
