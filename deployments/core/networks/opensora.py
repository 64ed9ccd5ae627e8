"""Open-Sora's transformer as numbers.

Shapes: deployments/models/opensora/transformer_opensora.py and, of its blocks, diffusers 0.42.1
models/transformers/transformer_flux.py.
"""

from dataclasses import dataclass

from deployments.core.networks.model import Matrices

FLOAT32 = 4
TIME_CHANNELS = 256
MLP_RATIO = 4
# The sampler's own tensors: latents, velocity and predicted latents, of this step and the last.
LATENTS_HELD = 5


@dataclass(frozen=True)
class OpenSoraTransformer:
    """Open-Sora 2.0's transformer; by default the published one of 12 thousand million."""

    in_channels: int = 64
    cond_channels: int = 68
    num_layers: int = 19
    num_single_layers: int = 38
    attention_head_dim: int = 128
    num_attention_heads: int = 24
    joint_attention_dim: int = 4096
    pooled_projection_dim: int = 768

    @property
    def width(self) -> int:
        """Channels of a token, of text or of video."""
        return self.num_attention_heads * self.attention_head_dim

    def num_parameters(self) -> int:
        """Return the number of weights."""
        return (
            self.num_outside_blocks()
            + self.num_layers * self.num_in_block()
            + self.num_single_layers * self._num_in_single_block()
        )

    def num_in_block(self) -> int:
        """Return the weights of a block of two streams; one of a single stream has fewer."""
        width = self.width
        stream = (4 + 2 * MLP_RATIO) * width**2 + (4 + MLP_RATIO + 1) * width
        return 2 * (stream + self._num_norms_in_stream(6))

    def num_outside_blocks(self) -> int:
        """Return the weights outside of the blocks."""
        width = self.width
        inputs = self.in_channels + self.cond_channels + self.joint_attention_dim
        embedders = TIME_CHANNELS + self.pooled_projection_dim + 2 * width
        entrances = (inputs + embedders + 7) * width
        return entrances + (width + 1) * (2 * width + self.in_channels)

    def num_kept_from_fp8(self) -> int:
        """Return the weights that keep their dtype when the others are stored in 8 bits: those in
        norms, and the last layer.

        From: diffusers 0.42.1 hooks/layerwise_casting.py (DEFAULT_SKIP_MODULES_PATTERN).
        """
        norms = self.num_layers * 2 * self._num_norms_in_stream(6)
        norms += self.num_single_layers * self._num_norms_in_stream(3)
        return norms + (self.width + 1) * (2 * self.width + self.in_channels)

    def num_in_largest_layer(self) -> int:
        """Return the weights of the largest matrix, out of a block of one stream."""
        return (1 + MLP_RATIO) * self.width**2

    def matrices(self) -> tuple[Matrices, Matrices]:
        """Return the linear layers in the blocks: those of tokens, and those in norms."""
        width, double, single = self.width, self.num_layers, self.num_single_layers
        rows = double * 2 * (5 + MLP_RATIO) + single * (4 + MLP_RATIO)
        norms = double * 2 * 6 + single * 3
        layers = (2 * double + single) * (4 + 2 * MLP_RATIO) * width**2
        return Matrices(layers, rows * width), Matrices(norms * width**2, norms * width)

    def _num_in_single_block(self) -> int:
        width = self.width
        layers = (4 + 2 * MLP_RATIO) * width**2 + (3 + MLP_RATIO + 1) * width
        return layers + self._num_norms_in_stream(3)

    def _num_norms_in_stream(self, modulations: int) -> int:
        return (self.width + 1) * modulations * self.width + 2 * self.attention_head_dim

    def flops(self, visual_tokens: int, text_tokens: int) -> int:
        """Return the operations of one pass."""
        width, tokens = self.width, visual_tokens + text_tokens
        per_token = (4 + 2 * MLP_RATIO) * width**2
        attention = 4 * width * tokens**2
        blocks = self.num_layers * (2 * (tokens * per_token + 12 * width**2) + attention)
        single = self.num_single_layers * (2 * (tokens * per_token + 3 * width**2) + attention)
        visual_ends = visual_tokens * (2 * self.in_channels + self.cond_channels) * width
        text_ends = text_tokens * self.joint_attention_dim * width
        once = (TIME_CHANNELS + self.pooled_projection_dim + 4 * width) * width
        return blocks + single + 2 * (visual_ends + text_ends + once)

    def activation_bytes(self, visual_tokens: int, text_tokens: int, itemsize: int) -> int:
        """Return the peak of one pass: in the end of a single block.

        Alive are the block's input in two parts and joined, its normalised form, the activated
        feed forward layer, attention's output, the two joined, the last projection of that before
        and after its gate; sine and cosine, and the network's input.
        """
        width, tokens = self.width, visual_tokens + text_tokens
        in_dtype = itemsize * (7 + 2 * MLP_RATIO) * width
        tables = FLOAT32 * 2 * self.attention_head_dim
        # Both conditions, with and without images, are kept.
        inputs = itemsize * (self.in_channels + 2 * self.cond_channels)
        latents = LATENTS_HELD * FLOAT32 * self.in_channels
        text = itemsize * 2 * self.joint_attention_dim * text_tokens
        return tokens * (in_dtype + tables) + visual_tokens * (inputs + latents) + text

    def lora_bytes(self, visual_tokens: int, text_tokens: int, itemsize: int) -> int:
        """Return what LoRA in the last projection of a single block adds to that peak: its part of
        the result lies beside the layer's own. In other layers it adds less, or nothing."""
        return itemsize * self.width * (visual_tokens + text_tokens)
