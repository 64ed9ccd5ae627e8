"""What both models' attention processors do alike: video and prompt tokens attend to each other.

A processor differs in the order of the two, in what is rotated, and in what follows.
"""

from typing import TypeAlias

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn
from diffusers.models.attention_processor import MochiAttention
from diffusers.models.transformers.transformer_flux import FluxAttention

Projections: TypeAlias = MochiAttention | FluxAttention
Heads: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class JointAttention:
    """An attention processor whose kernel is chosen by diffusers' dispatcher."""

    # Set by `set_attention_backend` and `enable_parallelism` of diffusers.
    _attention_backend: AttentionBackendName | None = None
    _parallel_config = None

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Return the values as the queries weigh them.

        Args:
            query: (B, n, heads, head_dim), as are the others.

        Returns: (B, n, heads * head_dim).
        """
        joint: torch.Tensor = dispatch_attention_fn(
            query,
            key,
            value,
            backend=self._attention_backend,
            parallel_config=self._parallel_config,
        )
        return joint.flatten(2, 3)


def video_heads(attn: Projections, tokens: torch.Tensor) -> Heads:
    """Return normed queries and keys, and values, of video tokens.

    Args:
        tokens: (B, N, width).

    Returns: (B, N, heads, head_dim) each.
    """
    heads = (attn.heads, -1)
    query = attn.norm_q(attn.to_q(tokens).unflatten(2, heads))
    key = attn.norm_k(attn.to_k(tokens).unflatten(2, heads))
    return query, key, attn.to_v(tokens).unflatten(2, heads)


def prompt_heads(attn: Projections, tokens: torch.Tensor) -> Heads:
    """Return the same of prompt tokens, (B, n, width), by projections of their own."""
    heads = (attn.heads, -1)
    query = attn.norm_added_q(attn.add_q_proj(tokens).unflatten(2, heads))
    key = attn.norm_added_k(attn.add_k_proj(tokens).unflatten(2, heads))
    return query, key, attn.add_v_proj(tokens).unflatten(2, heads)
