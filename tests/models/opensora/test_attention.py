"""Open-Sora's attention gives what diffusers' own processor gives, by any back end."""

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.models.opensora.test_sampling import image, run
from tests.tiny_opensora import tiny_transformer


@pytest.fixture
def transformer() -> OpenSoraTransformer3DModel:
    transformer = tiny_transformer()
    use_joint_attention(transformer)
    return transformer


def test_a_clip_is_the_same_bit_by_bit(transformer: OpenSoraTransformer3DModel) -> None:
    """Through blocks of both kinds."""
    ours, stock = (run(each, first=image())[-1] for each in (transformer, tiny_transformer()))
    assert torch.equal(ours.latents, stock.latents)


def test_half_precision_is_rounded_as_before(transformer: OpenSoraTransformer3DModel) -> None:
    """Rotation is computed in float32 and rounded once."""
    networks = transformer, tiny_transformer()
    ours, stock = (run(each.to(torch.bfloat16))[-1] for each in networks)
    assert torch.equal(ours.latents, stock.latents)


def test_the_back_end_is_the_one_that_was_set(
    transformer: OpenSoraTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every layer."""
    used: list[object] = []

    def watched(query: torch.Tensor, *_: object, backend: object, **__: object) -> torch.Tensor:
        used.append(backend)
        return query

    monkeypatch.setattr("deployments.models.joint_attention.dispatch_attention_fn", watched)
    transformer.set_attention_backend("_native_math")
    run(transformer)
    assert set(used) == {AttentionBackendName._NATIVE_MATH}
    transformer.reset_attention_backend()
