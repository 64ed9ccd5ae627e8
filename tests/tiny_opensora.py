"""A tiny Open-Sora 2.0 with random weights: the real classes, small."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

from deployments.models.opensora.convert_opensora import convert_transformer_state_dict
from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.tiny_mochi import TEXT_DIM, tiny_text_encoder, tiny_tokenizer

CONFORMANCE = Path(__file__).parent / "data" / "opensora"
POOLED_DIM = 24
TEXT_TOKENS = 32
"""Length to which the tiny T5 tokenizer pads, instead of 512."""


def tiny_transformer(seed: int = 0) -> OpenSoraTransformer3DModel:
    torch.manual_seed(seed)
    return OpenSoraTransformer3DModel(
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=POOLED_DIM,
        axes_dims_rope=(8, 12, 12),
    ).eval()


def tiny_vae(seed: int = 1) -> AutoencoderKLHunyuanVideo:
    torch.manual_seed(seed)
    return AutoencoderKLHunyuanVideo(
        latent_channels=16,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.476986,
    ).eval()


def tiny_clip_tokenizer() -> CLIPTokenizer:
    """Bytes without merges: every letter is a token, as at a word's end."""
    letters = [*"abcdefghijklmnopqrstuvwxyz,.0123456789"]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {
        word: index for index, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])
    }
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def tiny_clip(seed: int = 3) -> CLIPTextModel:
    torch.manual_seed(seed)
    # As in OpenAI's file: an end token of 2 makes the model pool at the largest id.
    tokenizer = tiny_clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=POOLED_DIM,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=2,
    )
    return CLIPTextModel(config).eval()


def tiny_t5_tokenizer() -> T5Tokenizer:
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = TEXT_TOKENS
    return tokenizer


def tiny_text_encoders() -> tuple[CLIPTokenizer, CLIPTextModel, T5Tokenizer, T5EncoderModel]:
    """In the order of the pipeline's components: CLIP's pair, then T5's."""
    return tiny_clip_tokenizer(), tiny_clip(), tiny_t5_tokenizer(), tiny_text_encoder()


def tiny_pipeline() -> OpenSoraPipeline:
    tokenizer, text_encoder, tokenizer_2, text_encoder_2 = tiny_text_encoders()
    return OpenSoraPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        tokenizer_2=tokenizer_2,
        text_encoder_2=text_encoder_2,
        transformer=tiny_transformer(),
        vae=tiny_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def reference(name: str) -> dict[str, torch.Tensor]:
    """Tensors of a conformance file, float32."""
    tensors = load_file(CONFORMANCE / f"{name}.safetensors")
    return {key: tensor.float() for key, tensor in tensors.items()}


def reference_transformer() -> OpenSoraTransformer3DModel:
    """The tiny network whose outputs the authors' code computed."""
    transformer = tiny_transformer()
    weights = convert_transformer_state_dict(reference("transformer_state_dict"))
    transformer.load_state_dict(weights)
    return transformer


def reference_vae() -> AutoencoderKLHunyuanVideo:
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        norm_num_groups=4,
        scaling_factor=0.476986,
    )
    vae.load_state_dict(reference("vae_state_dict"))
    return vae.eval()
