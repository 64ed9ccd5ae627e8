"""Mochi's attention gives what diffusers' own processor gives, by any back end."""

import pytest
import torch
from diffusers import MochiTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName

from deployments.models.mochi1.attention import (
    ClipRoPE,
    TrimmedAttnProcessor,
    use_trimmed_attention,
)
from deployments.models.mochi1.sampling import denoise, initial_noise, linear_quadratic
from tests.tiny_mochi import TEXT_DIM, tiny_transformer

SHAPE = (1, 12, 3, 4, 6)
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture
def transformer() -> MochiTransformer3DModel:
    transformer = tiny_transformer()
    use_trimmed_attention(transformer)
    return transformer


@torch.no_grad()
def velocity(
    transformer: MochiTransformer3DModel, prompt: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    return transformer(
        hidden_states=initial_noise(0, SHAPE),
        encoder_hidden_states=prompt,
        timestep=torch.tensor([300.0]),
        encoder_attention_mask=mask,
        return_dict=False,
    )[0]


def prompt(tokens: int) -> torch.Tensor:
    return initial_noise(1, (1, tokens, TEXT_DIM))


def last(transformer: MochiTransformer3DModel) -> torch.Tensor:
    text = prompt(5)
    noise = initial_noise(0, SHAPE)
    *_, state = denoise(transformer, noise, text, text[:, :0], linear_quadratic(4), 4.5)
    return state.latents


def test_a_prompt_gives_what_the_stock_processor_gives_for_the_padded_one(
    transformer: MochiTransformer3DModel,
) -> None:
    """Up to the order of additions."""
    padded, mask = prompt(9), torch.arange(9)[None] < 5
    stock = velocity(tiny_transformer(), padded, mask)
    ours = velocity(transformer, padded[:, :5], mask[:, :5])
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


def test_no_prompt_gives_what_the_stock_processor_gives_for_one_masked_token(
    transformer: MochiTransformer3DModel,
) -> None:
    """So the network needs no stand-in for an empty prompt."""
    masked = torch.zeros(1, 1, dtype=torch.bool)
    stock = velocity(tiny_transformer(), prompt(1), masked)
    ours = velocity(transformer, prompt(1)[:, :0], masked[:, :0])
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


def test_the_back_end_is_the_one_that_was_set(
    transformer: MochiTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the stock processor `set_attention_backend` changes nothing."""
    expected = last(transformer)
    transformer.set_attention_backend("_native_math")
    torch.testing.assert_close(last(transformer), expected, atol=1e-4, rtol=1e-4)
    used: list[object] = []

    def watched(query: torch.Tensor, *_: object, backend: object, **__: object) -> torch.Tensor:
        used.append(backend)
        return query

    monkeypatch.setattr("deployments.models.joint_attention.dispatch_attention_fn", watched)
    last(transformer)
    assert set(used) == {AttentionBackendName._NATIVE_MATH}
    transformer.reset_attention_backend()


def test_half_precision_stays_half_precision() -> None:
    """Rotation is computed in float32 and rounded once, as in the stock processor."""
    stock = tiny_transformer().to(torch.bfloat16).transformer_blocks[0].attn1
    inputs = {
        "hidden_states": initial_noise(0, (1, 18, 32)).bfloat16(),
        "encoder_hidden_states": initial_noise(1, (1, 5, 16)).bfloat16(),
        "attention_mask": torch.ones(1, 5, dtype=torch.bool),
    }
    angles = initial_noise(2, (18, 2, 8))
    pair = (angles.cos(), angles.sin())
    with torch.no_grad():
        expected = stock(**inputs, image_rotary_emb=pair)
        stock.processor = TrimmedAttnProcessor()
        ours = stock(**inputs, image_rotary_emb=torch.stack(pair, dim=-1))
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine, theirs, atol=0.02, rtol=0.02)


def masked_all(text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return text, torch.ones(text.shape[:2], dtype=torch.bool)


def test_the_rotary_table_is_built_once_a_clip_and_let_go_with_it(
    transformer: MochiTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the job is stopped on its way."""
    built: list[int] = []
    positions = ClipRoPE._get_positions
    monkeypatch.setattr(
        ClipRoPE, "_get_positions", lambda *args: built.append(1) or positions(*args)
    )
    last(transformer)
    assert len(built) == 1
    text = prompt(5)
    noise = initial_noise(0, (1, 12, 2, 8, 8))
    steps = denoise(transformer, noise, text, text[:, :0], linear_quadratic(4), 4.5)
    next(steps)
    assert transformer.rope._kept is not None
    steps.close()
    assert len(built) == 2
    assert transformer.rope._kept is None


def test_outside_a_clip_the_table_follows_the_weights(
    transformer: MochiTransformer3DModel,
) -> None:
    """Whoever calls the network himself may change them."""
    before = velocity(transformer, *masked_all(prompt(5)))
    with torch.no_grad():
        transformer.pos_frequencies.mul_(2)
    after = velocity(transformer, *masked_all(prompt(5)))
    assert not torch.allclose(before, after)


def test_every_layer_has_the_processor(transformer: MochiTransformer3DModel) -> None:
    """And the sampler takes a transformer without it, too."""
    processors = [block.attn1.processor for block in transformer.transformer_blocks]
    assert all(isinstance(processor, TrimmedAttnProcessor) for processor in processors)
    torch.testing.assert_close(last(transformer), last(tiny_transformer()), atol=1e-4, rtol=1e-4)
