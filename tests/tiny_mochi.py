"""A tiny Mochi with random weights: the real classes, small."""

import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel, T5Tokenizer

TEXT_DIM = 32


def tiny_tokenizer() -> T5Tokenizer:
    """Characters as a unigram model, with T5's special tokens."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz,.0123456789"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" +"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return T5Tokenizer(tokenizer_object=tokenizer, extra_ids=0)


def tiny_transformer(seed: int = 0) -> MochiTransformer3DModel:
    torch.manual_seed(seed)
    transformer = MochiTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        pooled_projection_dim=16,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=16,
        max_sequence_length=256,
    )
    # Fresh position frequencies are zeros, which would hide an error in the positions.
    with torch.no_grad():
        transformer.pos_frequencies.normal_(std=0.1)
    return transformer.eval()


def tiny_vae() -> AutoencoderKLMochi:
    torch.manual_seed(1)
    return AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False,) * 5,
    ).eval()


def tiny_text_encoder() -> T5EncoderModel:
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=64,
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
    return T5EncoderModel(config).eval()


def tiny_pipeline() -> MochiPipeline:
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=tiny_vae(),
        text_encoder=tiny_text_encoder(),
        tokenizer=tiny_tokenizer(),
        transformer=tiny_transformer(),
        force_zeros_for_empty_prompt=True,
    )
