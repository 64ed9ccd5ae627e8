"""The tiny Open-Sora: sizes and start values, and a training forward for a batch of captions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from deployments.models.opensora.packing import pack, position_ids, unpack
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from training.models import TEXT_WIDTH, new_text_encoder
from training.opensora.make_tokenizers import CLIP_TOKENS

POOLED_WIDTH: Final = 64
TRANSFORMER_CONFIG: Final = {
    "num_layers": 2,
    "num_single_layers": 5,
    "attention_head_dim": 32,
    "num_attention_heads": 5,
    "joint_attention_dim": TEXT_WIDTH,
    "pooled_projection_dim": POOLED_WIDTH,
    "axes_dims_rope": (8, 12, 12),
}


class WrittenOutAttention:
    """FluxAttnProcessor with attention in plain operations: the same result, and on a CPU, in
    bfloat16 and with its gradient, half of what PyTorch's own kernel takes."""

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Any:
        """Attend over (B, L, D) visual tokens, and (B, S, D) text tokens where there are some."""

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(-1, (-1, attn.head_dim))

        query = attn.norm_q(heads(attn.to_q(hidden_states)))
        key = attn.norm_k(heads(attn.to_k(hidden_states)))
        value = heads(attn.to_v(hidden_states))
        text = encoder_hidden_states
        if text is not None:
            text_query = attn.norm_added_q(heads(attn.add_q_proj(text)))
            text_key = attn.norm_added_k(heads(attn.add_k_proj(text)))
            query, key = torch.cat((text_query, query), 1), torch.cat((text_key, key), 1)
            value = torch.cat((heads(attn.add_v_proj(text)), value), 1)
        query = apply_rotary_emb(query, image_rotary_emb, sequence_dim=1).transpose(1, 2)
        key = apply_rotary_emb(key, image_rotary_emb, sequence_dim=1).transpose(1, 2)
        weights = ((query * attn.head_dim**-0.5) @ key.mT).softmax(-1)
        out = (weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2)
        if text is None:
            return out
        length = text.shape[1]
        return attn.to_out[0](out[:, length:]), attn.to_add_out(out[:, :length])


def new_transformer(seed: int) -> OpenSoraTransformer3DModel:
    """An untrained transformer of the bundled size."""
    torch.manual_seed(seed)
    model = OpenSoraTransformer3DModel(**TRANSFORMER_CONFIG)
    # Every block starts as the identity, its gates closed; the condition starts unseen, as the
    # authors' did.
    closed = [model.proj_out, model.norm_out.linear, model.cond_embedder]
    for block in model.transformer_blocks:
        closed += [block.norm1.linear, block.norm1_context.linear]
    closed += [block.norm.linear for block in model.single_transformer_blocks]
    for layer in closed:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return model


def new_clip(tokenizer: CLIPTokenizer, seed: int) -> CLIPTextModel:
    """An untrained CLIP text encoder of the bundled size."""
    torch.manual_seed(seed)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=POOLED_WIDTH,
            intermediate_size=192,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CLIP_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # As in OpenAI's file: 2 makes the model pool at the largest id, which is the end.
            eos_token_id=2,
        )
    )


@dataclass(frozen=True)
class ConditionedVelocity:
    """Tokenizers, text encoders and transformer as one function; names as in the pipeline."""

    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    tokenizer_2: T5Tokenizer
    text_encoder_2: T5EncoderModel
    transformer: OpenSoraTransformer3DModel

    def modules(self) -> nn.ModuleDict:
        """What is trained."""
        return nn.ModuleDict(
            {
                "text_encoder": self.text_encoder,
                "text_encoder_2": self.text_encoder_2,
                "transformer": self.transformer,
            }
        )

    def blocks(self) -> Iterator[nn.Module]:
        """The transformer's blocks, in order."""
        yield from self.transformer.transformer_blocks
        yield from self.transformer.single_transformer_blocks

    def embed(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Text as (B, S, 96), padding attended as the service does it, and pooled (B, 64)."""
        ids = self.tokenizer_2(
            captions,
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer_2.model_max_length,
            return_tensors="pt",
        ).input_ids
        # CLIP looks only back, so that padding behind the end changes nothing.
        pooled_ids = self.tokenizer(
            captions, padding=True, truncation=True, max_length=CLIP_TOKENS, return_tensors="pt"
        ).input_ids
        sequence: Tensor = self.text_encoder_2(ids).last_hidden_state
        return sequence, self.text_encoder(pooled_ids).pooler_output

    def __call__(
        self, latents: Tensor, condition: Tensor, time: Tensor, captions: list[str]
    ) -> Tensor:
        """Predicted velocity (noise - data), (B, 16, T, h, w).

        Args:
            latents: (B, 16, T, h, w), noisy.
            condition: (B, L, 68), packed.
            time: (B,), from 0 (clean) to 1 (noise).
            captions: one for each clip, with their suffix.
        """
        sequence, pooled = self.embed(captions)
        velocity = self.transformer(
            hidden_states=pack(latents),
            cond=condition,
            encoder_hidden_states=sequence,
            pooled_projections=pooled,
            timestep=time,
            img_ids=position_ids(*latents.shape[2:]),
            txt_ids=torch.zeros(sequence.shape[1], 3),
            return_dict=False,
        )[0]
        return unpack(velocity, *latents.shape[2:])


def new_model(checkpoint: Path, seed: int) -> ConditionedVelocity:
    """Everything untrained, with the tokenizers of `checkpoint` and the training attention."""
    transformer = new_transformer(seed)
    transformer.set_attn_processor(WrittenOutAttention())
    tokenizer = CLIPTokenizer.from_pretrained(checkpoint / "tokenizer")
    tokenizer_2 = T5Tokenizer.from_pretrained(checkpoint / "tokenizer_2")
    return ConditionedVelocity(
        tokenizer,
        new_clip(tokenizer, seed),
        tokenizer_2,
        new_text_encoder(len(tokenizer_2), seed),
        transformer,
    )


def load_exported(model: ConditionedVelocity, checkpoint: Path) -> None:
    """Take over the weights of an exported checkpoint."""
    for name, module in model.modules().items():
        exported = type(module).from_pretrained(checkpoint / name, torch_dtype=torch.float32)
        module.load_state_dict(exported.state_dict())
