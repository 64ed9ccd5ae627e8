"""Prompts become trimmed embeddings; the latest are remembered."""

from collections.abc import Iterator

import pytest
import torch
from diffusers import MochiPipeline

from deployments.models.mochi1.text import MAX_TOKENS, PromptEncoder
from tests.tiny_mochi import TEXT_DIM


@pytest.fixture
def encoder(pipeline: MochiPipeline) -> PromptEncoder:
    return PromptEncoder(pipeline.tokenizer, pipeline.text_encoder)


@pytest.fixture
def passes(pipeline: MochiPipeline) -> Iterator[list[int]]:
    """One entry for each pass of the text encoder during the test."""
    seen: list[int] = []
    hook = pipeline.text_encoder.register_forward_hook(lambda *_: seen.append(1))
    yield seen
    hook.remove()


def test_an_embedding_is_the_pipelines_without_its_padding(
    pipeline: MochiPipeline, encoder: PromptEncoder
) -> None:
    """The transformer reads real tokens only, so the padding is not computed."""
    padded, mask, *_ = pipeline.encode_prompt("a red fox", do_classifier_free_guidance=False)
    ours = encoder.encode("a red fox")
    torch.testing.assert_close(ours.embedding, padded[:, mask[0].bool()], atol=1e-5, rtol=1e-5)
    assert not ours.truncated


def test_an_empty_prompt_has_no_tokens_and_costs_no_pass(
    encoder: PromptEncoder, passes: list[int]
) -> None:
    """The authors mask it out completely."""
    assert encoder.encode("").embedding.shape == (1, 0, TEXT_DIM)
    assert passes == []


def test_a_prompt_is_encoded_once(encoder: PromptEncoder, passes: list[int]) -> None:
    """The second time comes from memory."""
    first = encoder.encode("a fox")
    assert encoder.encode("a fox") is first
    assert len(passes) == 1


def test_the_least_recently_used_embedding_goes_first(
    pipeline: MochiPipeline, passes: list[int]
) -> None:
    """Kept embeddings stay within the given bytes; the newest always stays."""
    size = PromptEncoder(pipeline.tokenizer, pipeline.text_encoder).encode("fox 1").embedding.nbytes
    encoder = PromptEncoder(pipeline.tokenizer, pipeline.text_encoder, cache_bytes=2 * size)
    passes.clear()
    for prompt in ("fox 1", "fox 2", "fox 1", "fox 3"):
        encoder.encode(prompt)
    assert len(passes) == 3
    encoder.encode("fox 1")
    assert len(passes) == 3
    encoder.encode("fox 2")
    assert len(passes) == 4


@pytest.mark.parametrize(("letters", "truncated"), [(254, False), (255, True), (900, True)])
def test_a_prompt_longer_than_the_model_reads_is_cut_and_says_so(
    encoder: PromptEncoder, letters: int, truncated: bool
) -> None:
    """One token is the word's beginning and one the closing mark, so 254 letters fill 256."""
    encoded = encoder.encode("x" * letters)
    assert encoded.truncated is truncated
    assert encoded.embedding.shape[1] == MAX_TOKENS


def test_a_cut_prompt_is_cut_as_the_pipeline_does(
    pipeline: MochiPipeline, encoder: PromptEncoder
) -> None:
    """The closing mark stays."""
    padded, _, *_ = pipeline.encode_prompt("xyz" * 100, do_classifier_free_guidance=False)
    ours = encoder.encode("xyz" * 100).embedding
    torch.testing.assert_close(ours, padded, atol=1e-5, rtol=1e-5)


def test_every_lookup_is_told(pipeline: MochiPipeline) -> None:
    """Whoever counts hears of each prompt whether it was remembered."""
    hits: list[bool] = []
    encoder = PromptEncoder(pipeline.tokenizer, pipeline.text_encoder, on_lookup=hits.append)
    for prompt in ("a fox", "", "a fox", ""):
        encoder.encode(prompt)
    assert hits == [False, False, True, True]
