"""The tiny transformer and text encoder: sizes, start values, and a batched training forward."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from diffusers import MochiTransformer3DModel
from diffusers.models.attention_processor import MochiAttention
from torch import Tensor, nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

TEXT_WIDTH: Final = 96
MAX_TOKENS: Final = 256
TRANSFORMER_CONFIG: Final = {
    "patch_size": 2,
    "num_attention_heads": 5,
    "attention_head_dim": 32,
    "num_layers": 6,
    "pooled_projection_dim": 96,
    "in_channels": 12,
    "text_embed_dim": TEXT_WIDTH,
    "time_embed_dim": 256,
    "max_sequence_length": MAX_TOKENS,
}


class BatchedAttention:
    """MochiAttnProcessor2_0 for padded batches: one masked call instead of one gather a sample.

    Equal to the original on every visual and every valid text token; padded text tokens differ,
    and nothing reads them.
    """

    def __call__(
        self,
        attn: MochiAttention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Attend over (B, N, D) visual and (B, L, C) text tokens; `attention_mask` is (B, L)."""
        visual, text = hidden_states, encoder_hidden_states
        length = visual.shape[1]

        def heads(tokens: Tensor) -> Tensor:
            return tokens.unflatten(2, (attn.heads, -1))

        def rotate(tokens: Tensor) -> Tensor:
            even, odd = tokens[..., 0::2], tokens[..., 1::2]
            cos, sin = image_rotary_emb
            return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)

        query = rotate(attn.norm_q(heads(attn.to_q(visual))))
        key = rotate(attn.norm_k(heads(attn.to_k(visual))))
        text_query = attn.norm_added_q(heads(attn.add_q_proj(text)))
        text_key = attn.norm_added_k(heads(attn.add_k_proj(text)))
        query = torch.cat((query, text_query), 1).transpose(1, 2)
        key = torch.cat((key, text_key), 1).transpose(1, 2)
        value = torch.cat((heads(attn.to_v(visual)), heads(attn.add_v_proj(text))), 1)
        hidden = F.pad(~attention_mask.bool(), (length, 0), value=False)[:, None, None]
        # Written out: with its gradient, in bfloat16 on a CPU, half of what SDPA takes.
        scores = (query * query.shape[-1] ** -0.5) @ key.mT
        weights = scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1)
        out = weights @ value.transpose(1, 2)
        out = out.transpose(1, 2).flatten(2)
        visual, text = out[:, :length], out[:, length:]
        if hasattr(attn, "to_add_out"):
            text = attn.to_add_out(text)
        return attn.to_out[0](visual), text


def new_transformer(seed: int) -> MochiTransformer3DModel:
    """An untrained transformer of the bundled size."""
    torch.manual_seed(seed)
    model = MochiTransformer3DModel(**TRANSFORMER_CONFIG)
    # Zeros at construction, with which positions would not exist. In radians: per latent frame,
    # and per 1/192 of the frame's side. Larger spatial ones alias between neighbouring tokens,
    # and what is learned at 64x64 then means nothing at 128x128.
    with torch.no_grad():
        model.pos_frequencies.normal_()
        model.pos_frequencies.mul_(torch.tensor([0.3, 0.06, 0.06]).view(3, 1, 1))
    nn.init.zeros_(model.proj_out.weight)
    nn.init.zeros_(model.proj_out.bias)
    return model


def new_text_encoder(vocab_size: int, seed: int) -> T5EncoderModel:
    """An untrained T5 encoder of the bundled size."""
    torch.manual_seed(seed)
    return T5EncoderModel(
        T5Config(
            vocab_size=vocab_size,
            d_model=TEXT_WIDTH,
            d_kv=24,
            num_heads=4,
            d_ff=256,
            num_layers=2,
            feed_forward_proj="gated-gelu",
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


@dataclass(frozen=True)
class TextToVelocity:
    """Tokenizer, text encoder and transformer as one function of captions and noisy latents."""

    tokenizer: T5Tokenizer
    text_encoder: T5EncoderModel
    transformer: MochiTransformer3DModel

    def modules(self) -> nn.ModuleDict:
        """What is trained."""
        return nn.ModuleDict({"text_encoder": self.text_encoder, "transformer": self.transformer})

    def embed(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Text as (B, L, 96) and its mask (B, L); an empty caption is zeros, all masked out."""
        tokens = self.tokenizer(
            captions, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        told = torch.tensor([bool(caption) for caption in captions])[:, None]
        mask = tokens.attention_mask.bool()
        hidden = self.text_encoder(tokens.input_ids, attention_mask=mask).last_hidden_state
        mask = mask & told
        return hidden * mask[..., None], mask

    def __call__(self, latents: Tensor, clean_share: Tensor, captions: list[str]) -> Tensor:
        """Predicted velocity (data - noise) for latents (B, 12, T, h, w) at clean_share (B,)."""
        embeddings, mask = self.embed(captions)
        velocity: Tensor = self.transformer(
            latents, embeddings, 1000 * clean_share, mask, return_dict=False
        )[0]
        return velocity


def new_model(tokenizer_folder: Path, seed: int) -> TextToVelocity:
    """Everything untrained, with the training attention."""
    tokenizer = T5Tokenizer.from_pretrained(tokenizer_folder)
    transformer = new_transformer(seed)
    for block in transformer.transformer_blocks:
        block.attn1.processor = BatchedAttention()
    return TextToVelocity(tokenizer, new_text_encoder(len(tokenizer), seed), transformer)


def load_exported(model: TextToVelocity, checkpoint: Path) -> None:
    """Take over the weights of an exported checkpoint."""
    transformer = MochiTransformer3DModel.from_pretrained(
        checkpoint / "transformer", torch_dtype=torch.float32
    )
    text_encoder = T5EncoderModel.from_pretrained(
        checkpoint / "text_encoder", torch_dtype=torch.float32
    )
    model.transformer.load_state_dict(transformer.state_dict())
    model.text_encoder.load_state_dict(text_encoder.state_dict())
