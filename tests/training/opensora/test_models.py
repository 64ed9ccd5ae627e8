"""The network is trained on exactly what the service will give it, and fits its budget."""

from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxAttnProcessor

from deployments.models.opensora.packing import make_condition
from deployments.models.opensora.text import PromptEncoder
from training.opensora.models import ConditionedVelocity, new_model

TOKENIZERS = Path("checkpoints/opensora-tiny")


@pytest.fixture(scope="module")
def model() -> ConditionedVelocity:
    return new_model(TOKENIZERS, seed=0)


def test_captions_are_embedded_as_the_service_embeds_prompts(model: ConditionedVelocity) -> None:
    """T5's padding attended, CLIP's without effect; also where a batch has several lengths."""
    captions = ["", "a red ball moving up. 24 FPS. 4 motion score.", "日本語 🎉 " * 40]
    service = PromptEncoder(
        model.tokenizer, model.text_encoder.eval(), model.tokenizer_2, model.text_encoder_2.eval()
    )
    with torch.no_grad():
        sequence, pooled = model.embed(captions)
    for index, caption in enumerate(captions):
        expected = service.encode(caption).embedding
        torch.testing.assert_close(sequence[index : index + 1], expected.sequence)
        torch.testing.assert_close(pooled[index : index + 1], expected.pooled)


def test_an_untrained_network_predicts_nothing(model: ConditionedVelocity) -> None:
    """Gates, condition and output start at zero, so that training starts calmly."""
    latents = torch.randn(2, 16, 3, 4, 6)
    condition = make_condition(latents.shape, first=latents[:, :, :1])
    with torch.no_grad():
        velocity = model(latents, condition, torch.tensor([0.2, 0.9]), ["a", ""])
    assert velocity.shape == latents.shape
    assert not velocity.any()


def test_the_training_attention_equals_the_original() -> None:
    """In the double blocks, with text beside the clip, and in the single ones."""
    model = new_model(TOKENIZERS, seed=0)
    for parameter in model.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    latents = torch.randn(2, 16, 2, 4, 6)
    arguments = (make_condition(latents.shape), torch.tensor([0.2, 0.9]), ["a ball", ""])
    with torch.no_grad():
        ours = model(latents, *arguments)
        model.transformer.set_attn_processor(FluxAttnProcessor())
        original = model(latents, *arguments)
    torch.testing.assert_close(ours, original, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
@pytest.mark.parametrize(
    "text", ["A serene lake at sunset", "日本語 🎉 naïve café {}~\n\ttab", "", "x" * 5000]
)
def test_the_tokenizers_take_any_text(model: ConditionedVelocity, name: str, text: str) -> None:
    """End of text comes last, upper case is lower case, and nothing is longer than the model."""
    tokenizer = getattr(model, name)
    ids = tokenizer(text, truncation=True).input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) <= tokenizer.model_max_length
    assert tokenizer(text.upper()).input_ids == tokenizer(text.upper().lower()).input_ids


def test_the_end_of_text_is_clips_largest_id(model: ConditionedVelocity) -> None:
    """Where CLIP's configuration says 2, its pooled state is that of the largest id."""
    assert model.tokenizer.eos_token_id == len(model.tokenizer) - 1
    assert model.text_encoder.config.eos_token_id == 2


def test_the_words_of_the_suffix_are_few_tokens(model: ConditionedVelocity) -> None:
    """It stands at the end of every prompt."""
    assert len(model.tokenizer_2.tokenize(". 24 FPS. 4 motion score.")) <= 12
