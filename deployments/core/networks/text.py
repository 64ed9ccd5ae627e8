"""The text encoders as numbers: T5 v1.1, of both models, and CLIP's, of Open-Sora.

Shapes: transformers 5.23.0 models/t5/modeling_t5.py, models/clip/modeling_clip.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class T5Encoder:
    """T5 v1.1's encoder with gated feed forward layers; by default XXL."""

    d_model: int = 4096
    d_kv: int = 64
    d_ff: int = 10240
    num_heads: int = 64
    num_layers: int = 24
    vocab_size: int = 32128
    relative_attention_num_buckets: int = 32

    @property
    def _layer(self) -> int:
        """The weights of one layer's matrices: queries, keys, values, output; in twice, out."""
        return 4 * self.d_model * self.num_heads * self.d_kv + 3 * self.d_model * self.d_ff

    def num_parameters(self) -> int:
        """Return the number of weights; no layer has a bias, and each has two norms."""
        embeddings = self.vocab_size * self.d_model
        positions = self.relative_attention_num_buckets * self.num_heads
        return (
            embeddings
            + positions
            + self.num_layers * (self._layer + 2 * self.d_model)
            + (self.d_model)
        )

    def flops(self, tokens: int) -> int:
        """Return the operations of encoding a prompt of `tokens` tokens."""
        attention = 4 * tokens**2 * self.num_heads * self.d_kv
        return self.num_layers * (2 * tokens * self._layer + attention)

    def activation_bytes(self, tokens: int, itemsize: int) -> int:
        """Return the peak: in attention for long prompts, in the feed forward layer for short."""
        bias = self.num_heads * tokens
        feed_forward = 4 * self.d_model + 4 * self.d_ff + bias
        # The bias is copied to be added to the mask.
        attention = 3 * self.d_model + 4 * self.num_heads * self.d_kv + 2 * bias
        return itemsize * tokens * max(feed_forward, attention)


@dataclass(frozen=True)
class ClipTextEncoder:
    """CLIP's text encoder; by default ViT-L/14's. A fiftieth of T5: only its size counts."""

    hidden_size: int = 768
    intermediate_size: int = 3072
    num_hidden_layers: int = 12
    max_position_embeddings: int = 77
    vocab_size: int = 49408

    @property
    def _layer(self) -> int:
        return 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size

    def num_parameters(self) -> int:
        """Return the number of weights: every matrix with its bias, and two norms a layer."""
        width = self.hidden_size
        small = 4 * width + self.intermediate_size + width + 4 * width
        embeddings = (self.vocab_size + self.max_position_embeddings) * width
        return embeddings + self.num_hidden_layers * (self._layer + small) + 2 * width

    def flops(self) -> int:
        """Return the operations of encoding one prompt, which is padded to its full length."""
        tokens = self.max_position_embeddings
        attention = 4 * tokens**2 * self.hidden_size
        return self.num_hidden_layers * (2 * tokens * self._layer + attention)
