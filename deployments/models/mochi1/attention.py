"""Mochi's attention through diffusers' dispatcher, and its rotary tables once a clip.

diffusers' own processor calls torch's attention itself, so that `set_attention_backend` has no
effect, and it looks up each prompt's real tokens in every layer, for which a GPU has to be waited
for. It wants no such look-up when prompts come trimmed to their real length, as `sampling` gives
them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from diffusers import MochiTransformer3DModel
from diffusers.models.attention_processor import MochiAttention
from diffusers.models.transformers.transformer_mochi import MochiRoPE

from deployments.models.joint_attention import JointAttention, prompt_heads, video_heads
from deployments.models.rotary import rotate


class TrimmedAttnProcessor(JointAttention):
    """Joint attention of video and prompt tokens, none of which is padding.

    The arithmetic is that of diffusers 0.42.1 attention_processor.py (MochiAttnProcessor2_0). It
    does not read the mask: all prompts of a batch have one length. Goes with `ClipRoPE`.
    """

    def __call__(
        self,
        attn: MochiAttention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the video and the prompt tokens become.

        Args:
            attn: the layer, whose projections and norms are used.
            hidden_states: (B, N, D), video tokens.
            encoder_hidden_states: (B, n, E), prompt tokens; n may be 0.
            attention_mask: not read.
            image_rotary_emb: (N, heads, head_dim / 2, 2), float32, from `ClipRoPE`.
        """
        query, key, value = video_heads(attn, hidden_states)
        query, key = rotate(query, image_rotary_emb), rotate(key, image_rotary_emb)
        num_prompt_tokens = encoder_hidden_states.shape[1]
        # Without a prompt there is nothing to join, and three copies are saved.
        if num_prompt_tokens:
            of_prompt = prompt_heads(attn, encoder_hidden_states)
            query = torch.cat([query, of_prompt[0]], dim=1)
            key = torch.cat([key, of_prompt[1]], dim=1)
            value = torch.cat([value, of_prompt[2]], dim=1)
        joint = self.attend(query, key, value)
        video, prompt = joint.split_with_sizes((hidden_states.shape[1], num_prompt_tokens), dim=1)
        video = attn.to_out[1](attn.to_out[0](video))
        # The last layer's prompt tokens are not read any more.
        return video, prompt if attn.context_pre_only else attn.to_add_out(prompt)


class ClipRoPE(MochiRoPE):
    """Mochi's rotary table, built once while `kept` holds instead of in every pass.

    At full size it takes 12.3 kB a token, so it is let go with the clip. Unlike its parent it
    returns cosine and sine in one tensor, (N, heads, head_dim / 2, 2).
    """

    def __init__(self) -> None:
        super().__init__()
        self._keeping = False
        self._kept: tuple[tuple[int, ...], torch.Tensor] | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the latest table until the end; the weights must not change meanwhile."""
        self._keeping = True
        try:
            yield
        finally:
            self._keeping, self._kept = False, None

    def forward(
        self,
        pos_frequencies: torch.Tensor,
        num_frames: int,
        height: int,
        width: int,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """Return the table of a clip of this many latent frames, rows and columns of tokens."""
        shape = (num_frames, height, width)
        if self._kept is not None and self._kept[0] == shape:
            return self._kept[1]
        pair = super().forward(pos_frequencies, num_frames, height, width, device, dtype)
        table = torch.stack(pair, dim=-1)
        if self._keeping:
            self._kept = shape, table
        return table


def use_trimmed_attention(transformer: MochiTransformer3DModel) -> None:
    """Let `transformer` attend as above, in place; `sampling.denoise` works either way."""
    for block in transformer.transformer_blocks:
        block.attn1.processor = TrimmedAttnProcessor()
    transformer.rope = ClipRoPE()
