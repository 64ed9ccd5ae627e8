"""Open-Sora's attention: that of FLUX.1's blocks, with queries and keys turned in less memory."""

import torch
from diffusers.models.transformers.transformer_flux import FluxAttention

from deployments.models.joint_attention import JointAttention, prompt_heads, video_heads
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.rotary import rotate


class JointAttnProcessor(JointAttention):
    """Joint attention of prompt and video tokens.

    The results are those of diffusers 0.42.1 transformer_flux.py (FluxAttnProcessor), whose
    rotation passes over memory seven times and holds three tensors in float32.
    """

    def __call__(
        self,
        attn: FluxAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None,
        attention_mask: None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return what the video and the prompt tokens become, in one where they came in one.

        Args:
            attn: the layer, whose projections and norms are used.
            hidden_states: (B, N, D), video tokens, behind the prompt's in blocks of one stream.
            encoder_hidden_states: (B, n, D), prompt tokens; None in blocks of one stream.
            attention_mask: never given.
            image_rotary_emb: cosine and sine of all tokens, the prompt's first, (n + N, head_dim)
                each, two neighbours alike.
        """
        query, key, value = video_heads(attn, hidden_states)
        if encoder_hidden_states is not None:
            of_prompt = prompt_heads(attn, encoder_hidden_states)
            query = torch.cat([of_prompt[0], query], dim=1)
            key = torch.cat([of_prompt[1], key], dim=1)
            value = torch.cat([of_prompt[2], value], dim=1)
        table = torch.stack([half[:, None, ::2] for half in image_rotary_emb], dim=-1)
        # One after the other, so that only one of them is there twice.
        query = rotate(query, table)
        key = rotate(key, table)
        joint = self.attend(query, key, value)
        if encoder_hidden_states is None:
            return joint
        sizes = (encoder_hidden_states.shape[1], hidden_states.shape[1])
        prompt, video = joint.split_with_sizes(sizes, dim=1)
        video = attn.to_out[1](attn.to_out[0](video.contiguous()))
        return video, attn.to_add_out(prompt.contiguous())


def use_joint_attention(transformer: OpenSoraTransformer3DModel) -> None:
    """Let `transformer` attend as above, in place."""
    transformer.set_attn_processor(JointAttnProcessor())
