"""Open-Sora 2.0's network: FLUX.1's double and single stream blocks over video tokens.

The released network (hpcaitech/Open-Sora@7ad6a96) is FLUX.1's with one more input projection, the
condition's, so it is composed of diffusers' own Flux blocks. `FluxTransformer2DModel` itself would
round the time to the weights' dtype after scaling it by 1000, which in bfloat16 is an error ten
times that of all other rounding.

Two conventions of the released weights differ from these blocks and are settled once, when the
weights are converted: the channel order of queries and keys, and the halves of the last modulation.
"""

import torch
from diffusers import CacheMixin, ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin
from diffusers.models.embeddings import CombinedTimestepTextProjEmbeddings
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import AdaLayerNormContinuous
from diffusers.models.transformers.transformer_flux import (
    FluxPosEmbed,
    FluxSingleTransformerBlock,
    FluxTransformerBlock,
)
from torch import nn

# The network reads time as 0 (clean) to 1000 (noise).
TIME_FACTOR = 1000.0
ROPE_THETA = 10000


class OpenSoraTransformer3DModel(
    ModelMixin, ConfigMixin, AttentionMixin, CacheMixin, PeftAdapterMixin
):
    """Predicts the velocity, noise minus video, of packed latents. Defaults: the released 11B.

    Args:
        in_channels: of a packed token, in and out: 16 latent channels x 2 x 2 positions.
        cond_channels: of a packed condition token: 4 of the mask, then 64 of reference latents.
        num_layers: blocks with separate weights for text and video.
        num_single_layers: blocks with shared weights.
        attention_head_dim: the sum of `axes_dims_rope`.
        num_attention_heads: their number; the width is this times `attention_head_dim`.
        joint_attention_dim: width of the T5 states.
        pooled_projection_dim: width of the pooled CLIP vector.
        axes_dims_rope: channels of a head that turn with time, height and width.
    """

    _no_split_modules = ("FluxTransformerBlock", "FluxSingleTransformerBlock")
    _repeated_blocks = ("FluxTransformerBlock", "FluxSingleTransformerBlock")
    _skip_layerwise_casting_patterns = ("pos_embed", "norm")
    _cp_plan = {  # noqa: RUF012 - diffusers reads the plan from the class
        "": {
            "hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
            "cond": ContextParallelInput(split_dim=1, expected_dims=3),
            "encoder_hidden_states": ContextParallelInput(split_dim=1, expected_dims=3),
            "img_ids": ContextParallelInput(split_dim=0, expected_dims=2),
            "txt_ids": ContextParallelInput(split_dim=0, expected_dims=2),
        },
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config
    def __init__(
        self,
        in_channels: int = 64,
        cond_channels: int = 68,
        num_layers: int = 19,
        num_single_layers: int = 38,
        attention_head_dim: int = 128,
        num_attention_heads: int = 24,
        joint_attention_dim: int = 4096,
        pooled_projection_dim: int = 768,
        axes_dims_rope: tuple[int, int, int] = (16, 56, 56),
    ) -> None:
        super().__init__()
        if sum(axes_dims_rope) != attention_head_dim:
            raise ValueError(
                f"axes_dims_rope {tuple(axes_dims_rope)} must sum to attention_head_dim, "
                f"{attention_head_dim}"
            )
        width = num_attention_heads * attention_head_dim
        self.pos_embed = FluxPosEmbed(theta=ROPE_THETA, axes_dim=list(axes_dims_rope))
        self.time_text_embed = CombinedTimestepTextProjEmbeddings(width, pooled_projection_dim)
        self.context_embedder = nn.Linear(joint_attention_dim, width)
        self.x_embedder = nn.Linear(in_channels, width)
        self.cond_embedder = nn.Linear(cond_channels, width)
        self.transformer_blocks = nn.ModuleList(
            FluxTransformerBlock(width, num_attention_heads, attention_head_dim)
            for _ in range(num_layers)
        )
        self.single_transformer_blocks = nn.ModuleList(
            FluxSingleTransformerBlock(width, num_attention_heads, attention_head_dim)
            for _ in range(num_single_layers)
        )
        self.norm_out = AdaLayerNormContinuous(width, width, elementwise_affine=False, eps=1e-6)
        self.proj_out = nn.Linear(width, in_channels)

    def rotary_table(
        self, img_ids: torch.Tensor, txt_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cosine and sine for each token, text first: (S + L, attention_head_dim) each."""
        table: tuple[torch.Tensor, torch.Tensor] = self.pos_embed(torch.cat((txt_ids, img_ids)))
        return table

    def forward(
        self,
        hidden_states: torch.Tensor,
        cond: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        pooled_projections: torch.Tensor,
        timestep: torch.Tensor,
        img_ids: torch.Tensor,
        txt_ids: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict the velocity of each video token.

        Args:
            hidden_states: (B, L, in_channels), packed noisy latents.
            cond: (B, L, cond_channels), packed condition; zeros for text to video. It always
                counts: the embedding of zeros is a bias.
            encoder_hidden_states: (B, S, joint_attention_dim), T5's states, padding included.
            pooled_projections: (B, pooled_projection_dim), CLIP's pooled state.
            timestep: (B,), from 0 (clean) to 1 (noise); keep it float32.
            img_ids: (L, 3), time, row and column of each video token, float32.
            txt_ids: (S, 3), zeros.
            image_rotary_emb: `rotary_table(img_ids, txt_ids)`, where the caller keeps it from pass
                to pass.
            return_dict: False gives a tuple instead of an output object.

        Returns:
            (B, L, in_channels): the velocity, noise minus clean.
        """
        hidden_states = self.x_embedder(hidden_states) + self.cond_embedder(cond)
        encoder_hidden_states = self.context_embedder(encoder_hidden_states)
        # In float32: hpcaitech/Open-Sora@7ad6a96 compiles its timestep embedding, and the product
        # is not rounded there.
        temb = self.time_text_embed(timestep.float() * TIME_FACTOR, pooled_projections)
        rotary = image_rotary_emb or self.rotary_table(img_ids, txt_ids)
        for block in self.transformer_blocks:
            encoder_hidden_states, hidden_states = block(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                temb=temb,
                image_rotary_emb=rotary,
            )
        for block in self.single_transformer_blocks:
            encoder_hidden_states, hidden_states = block(
                hidden_states=hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                temb=temb,
                image_rotary_emb=rotary,
            )
        velocity = self.proj_out(self.norm_out(hidden_states, temb))
        if not return_dict:
            return (velocity,)
        return Transformer2DModelOutput(sample=velocity)
