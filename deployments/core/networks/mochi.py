"""Mochi's transformer and autoencoder as numbers.

Shapes: diffusers 0.42.1 models/transformers/transformer_mochi.py, models/embeddings.py and
models/autoencoders/autoencoder_kl_mochi.py; what is alive together: models/mochi1 as it runs them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from deployments.core.networks.model import Matrices

PATCH_AREA = 4
FLOAT32 = 4
# The sampler's own tensors: latents, velocity and predicted latents, of this step and the last.
LATENTS_HELD = 5
# With low_vram: tiles of 256 pixels at a distance of 192, four latents at a time.
TILE_SIDE, TILE_STRIDE, TILE_LATENTS = 256, 192, 4


@dataclass(frozen=True)
class MochiTransformer:
    """Mochi's asymmetric transformer; by default the published one of 10 thousand million."""

    num_layers: int = 48
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    pooled_projection_dim: int = 1536
    in_channels: int = 12
    text_embed_dim: int = 4096
    time_embed_dim: int = 256

    @property
    def width(self) -> int:
        """Channels of a visual token; a text token has `pooled_projection_dim`."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def _feed_forward(self) -> int:
        return 8 * self.width // 3

    @property
    def _text_feed_forward(self) -> int:
        return 8 * self.pooled_projection_dim // 3

    @property
    def _patch(self) -> int:
        return PATCH_AREA * self.in_channels

    @property
    def _modulation(self) -> int:
        """The weights of a block's two modulations, which diffusers calls norms."""
        return 4 * self.width * (self.width + self.pooled_projection_dim)

    def num_parameters(self) -> int:
        """Return the number of weights."""
        return self.num_outside_blocks() + self.num_layers * self.num_in_block() - self._absent()

    def num_in_block(self) -> int:
        """Return the weights of one block."""
        width, text = self.width, self.pooled_projection_dim
        visual_layers = 4 * width**2 + width + 3 * width * self._feed_forward
        text_layers = 4 * width * text + text + 3 * text * self._text_feed_forward
        return visual_layers + text_layers + self._num_norms_in_block()

    def num_outside_blocks(self) -> int:
        """Return the weights outside of the blocks."""
        width, embedded, text = self.width, self.text_embed_dim, self.pooled_projection_dim
        time = (self.time_embed_dim + 1) * width + (width + 1) * width
        pooler = (3 * embedded + width) * (embedded + 1)
        frequencies = 3 * width // 2
        caption = (embedded + 1) * text
        output = (width + 1) * (2 * width + self._patch)
        return (self._patch + 1) * width + time + pooler + caption + frequencies + output

    def num_kept_from_fp8(self) -> int:
        """Return the weights that keep their dtype when the others are stored in 8 bits: those in
        norms, and the first and last layer.

        From: diffusers 0.42.1 hooks/layerwise_casting.py (DEFAULT_SKIP_MODULES_PATTERN).
        """
        width, text = self.width, self.pooled_projection_dim
        norms = self.num_layers * self._num_norms_in_block() - 3 * (width + 1) * text
        ends = (self._patch + 1) * width + (width + 1) * (2 * width + self._patch)
        return norms + ends + 3 * width // 2

    def num_in_largest_layer(self) -> int:
        """Return the weights of the largest matrix, into a block's feed forward layer."""
        return max(2 * self.width * self._feed_forward, 2 * self.text_embed_dim**2)

    def matrices(self) -> tuple[Matrices, Matrices]:
        """Return the linear layers in the blocks: those of tokens, and those in norms."""
        width, text = self.width, self.pooled_projection_dim
        forward, text_forward = self._feed_forward, self._text_feed_forward
        visual = Matrices(4 * width**2 + 3 * width * forward, 5 * width + 2 * forward)
        of_text = Matrices(
            4 * width * text + 3 * text * text_forward, 3 * width + 2 * text + 2 * text_forward
        )
        # The last block's text has no output and no feed forward; see `_absent`.
        absent = Matrices(text * width + 3 * text * text_forward, 2 * text + 2 * text_forward)
        depth = self.num_layers
        return (
            Matrices(
                depth * (visual.weights + of_text.weights) - absent.weights,
                depth * (visual.rows + of_text.rows) - absent.rows,
            ),
            Matrices(
                depth * self._modulation - 3 * width * text, depth * 4 * (width + text) - 3 * text
            ),
        )

    def _num_norms_in_block(self) -> int:
        biases = 4 * (self.width + self.pooled_projection_dim)
        return self._modulation + biases + 4 * self.attention_head_dim

    def _absent(self) -> int:
        """The last block's text is not used: it has no output, no feed forward, and one of four
        modulations."""
        width, text = self.width, self.pooled_projection_dim
        output = (width + 1) * text
        return output + 3 * text * self._text_feed_forward + 3 * (width + 1) * text

    def flops(self, visual_tokens: int, text_tokens: int) -> int:
        """Return the operations of one pass.

        Args: text_tokens: 0 for an empty prompt: the network then sees one, and masks it.
        """
        width, text, embedded = self.width, self.pooled_projection_dim, self.text_embed_dim
        seen = max(text_tokens, 1)
        per_visual = 4 * width**2 + 3 * width * self._feed_forward
        per_text = 4 * width * text + 3 * text * self._text_feed_forward
        last_text = per_text - 3 * text * width  # what the last block lacks
        attention = 4 * width * (visual_tokens + text_tokens) ** 2
        blocks = self.num_layers * (
            2 * (visual_tokens * per_visual + seen * per_text + self._modulation) + attention
        ) - 2 * (seen * last_text + 3 * width * text)
        pooler = (seen + 1) * 2 * embedded**2 + embedded**2 + embedded * width
        once = (self.time_embed_dim + width) * width + pooler + 2 * width**2
        ends = visual_tokens * (2 * self._patch * width + 3 * width // 2) + seen * embedded * text
        return blocks + 2 * (once + ends) + 4 * embedded * (seen + 1)

    def activation_bytes(self, visual_tokens: int, text_tokens: int, itemsize: int) -> int:
        """Return the peak of one pass: in the last block's feed forward layer.

        Alive are the block's input, the sum after attention, its normalised form, attention's
        output before and after the last projection; the rotation's sine and cosine, in float32;
        twice the feed forward's width, its gate and their product.
        """
        per_visual = itemsize * (5 * self.width + 4 * self._feed_forward) + FLOAT32 * self.width
        latents = LATENTS_HELD * FLOAT32 * self._patch
        text = itemsize * self.width * text_tokens
        return visual_tokens * (per_visual + latents) + text

    def lora_bytes(self, visual_tokens: int, itemsize: int, widest: int) -> int:
        """Return what LoRA adds to that peak: its part of the feed forward's gated layer lies
        beside that layer's own; in narrower layers it is let go before the peak."""
        gated = 2 * self._feed_forward
        return visual_tokens * itemsize * gated if widest >= gated else 0


@dataclass(frozen=True)
class MochiAutoencoder:
    """Mochi's autoencoder, decoded as `models/mochi1/decode.py` does; by default the published."""

    in_channels: int = 15
    out_channels: int = 3
    latent_channels: int = 12
    encoder_block_out_channels: tuple[int, ...] = (64, 128, 256, 384)
    decoder_block_out_channels: tuple[int, ...] = (128, 256, 512, 768)
    layers_per_block: tuple[int, ...] = (3, 3, 4, 6, 3)
    temporal_expansions: tuple[int, ...] = (1, 2, 3)
    spatial_expansions: tuple[int, ...] = (2, 2, 2)
    add_attention_block: tuple[bool, ...] = (False, True, True, True, True)

    def num_parameters(self) -> int:
        """Return the number of weights, the encoder's included."""
        return self._num_in_encoder() + self._num_in_decoder()

    def _num_in_encoder(self) -> int:
        channels = self.encoder_block_out_channels
        total = (self.in_channels + 1) * channels[0]
        total += channels[-1] * (2 + 2 * self.latent_channels)
        places = (*channels, channels[-1])
        for width, layers, attends in zip(
            places, self.layers_per_block, self.add_attention_block, strict=True
        ):
            attention = 4 * width**2 + 3 * width if attends else 0
            total += layers * (_resnet_parameters(width) + attention)
        steps = zip(self.temporal_expansions, self.spatial_expansions, strict=True)
        for (width, wider), (time, side) in zip(pairwise(channels), steps, strict=True):
            total += (time * side**2 * width + 1) * wider
        return total

    def _num_in_decoder(self) -> int:
        first, last = self.decoder_block_out_channels[-1], self.decoder_block_out_channels[0]
        total = (self.latent_channels + 1) * first + (last + 1) * self.out_channels
        for stage in self._stages():
            total += stage.layers * _resnet_parameters(stage.width)
            total += (stage.width + 1) * stage.projection
        return total

    def flops(self, width: int, height: int, latents: int) -> int:
        """Return the operations of decoding `latents` latent frames; sides in pixels."""
        side = self._side_per_latent()
        positions = (width // side) * (height // side)
        first, last = self.decoder_block_out_channels[-1], self.decoder_block_out_channels[0]
        frames = latents
        total = self.latent_channels * first * frames * positions
        for stage in self._stages():
            each = stage.layers * 2 * 27 * stage.width**2 + stage.width * stage.projection
            total += each * frames * positions
            # The first frames that an expansion in time makes are dropped.
            frames = frames * stage.time - (stage.time - 1)
            positions *= stage.side**2
        return 2 * (total + last * self.out_channels * frames * positions)

    def tiled_flops(self, width: int, height: int, latents: int) -> int:
        """Return the operations of decoding in tiles; sides in pixels."""
        return sum(
            self.flops(columns, rows, latents)
            for rows in tile_sides(height, max(height, width))
            for columns in tile_sides(width, max(height, width))
        )

    def tiled_activation_bytes(self, width: int, height: int, itemsize: int) -> int:
        """Return the peak of decoding in tiles: that of the largest; the rest is on the CPU."""
        columns = max(tile_sides(width, max(height, width)))
        rows = max(tile_sides(height, max(height, width)))
        return self.activation_bytes(columns, rows, itemsize, TILE_LATENTS)

    def activation_bytes(self, width: int, height: int, itemsize: int, latents: int = 1) -> int:
        """Return the peak of decoding `latents` latents and one frame at a time, whatever the
        length of the clip.

        Alive are two frames of the input of each convolution that was passed; the result of each
        expansion; and in the last stage, at full size, the block's input, its activated form, that
        with the frames before it (3), the same with borders, the convolution's result, and the
        convolution's memory before and after (one more of 2).
        """
        pixels = width * height
        last = self.decoder_block_out_channels[0]
        carried, expanded = 0.0, 0.0
        share = 1 / self._side_per_latent() ** 2
        for stage in self._stages():
            carried += stage.layers * 2 * 2 * stage.width * share
            share *= stage.side**2
            expanded += stage.projection // stage.side**2 * share if stage.projection else 0
        borders = 3 * last * ((width + 2) * (height + 2) - pixels)
        working = (1 + 1 + 3 + 3 + 1 + 2) * last
        # The frames of these latents so far, and those of the last ones.
        frames = (itemsize + FLOAT32) * self.out_channels * _product(self.temporal_expansions)
        frames *= latents
        per_pixel = itemsize * (carried + expanded + working) + frames
        return round(per_pixel * pixels) + itemsize * borders

    def _stages(self) -> Iterator["_Stage"]:
        """Yield the decoder's stages from latents to frames; each but the last ends with an
        expansion, made by a projection to as many channels."""
        widths = self.decoder_block_out_channels[::-1]
        layers = self.layers_per_block[::-1]
        times, sides = self.temporal_expansions[::-1], self.spatial_expansions[::-1]
        yield _Stage(widths[0], layers[0], 0, 1, 1)
        for i, (width, following) in enumerate(pairwise(widths)):
            projection = following * times[i] * sides[i] ** 2
            yield _Stage(width, layers[i + 1], projection, times[i], sides[i])
        yield _Stage(widths[-1], layers[-1], 0, 1, 1)

    def _side_per_latent(self) -> int:
        return _product(self.spatial_expansions)


@dataclass(frozen=True)
class _Stage:
    """A stage of the decoder: `layers` residual blocks, then a projection that is expanded."""

    width: int
    layers: int
    projection: int
    time: int
    side: int


def tile_sides(side: int, longer_side: int) -> list[int]:
    """Return the lengths of the tiles along a side, as models/tiling.py cuts them; in pixels."""
    if longer_side <= TILE_SIDE:
        return [side]
    starts = range(0, max(1, side - (TILE_SIDE - TILE_STRIDE)), TILE_STRIDE)
    return [min(TILE_SIDE, side - start) for start in starts]


def _resnet_parameters(width: int) -> int:
    """Return the weights of two convolutions of 3 x 3 x 3 and two norms."""
    return 2 * ((27 * width + 1) * width + 2 * width)


def _product(numbers: tuple[int, ...]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product
