"""The latent space: 12 leading principal components of 6x8x8 pixel patches of the world.

Frames are grouped as Mochi's causal autoencoder groups them (the first frame alone, then six by
six); the first frame is repeated to fill its group. The decoder can therefore be started at the
exact linear inverse (`init_linear_decoder`), and the transformer needs no encoder to train.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLMochi
from torch import Tensor, nn

from training.render import render
from training.scenes import draw_training_scene

Array = npt.NDArray[np.float32]

GROUP, PATCH, CHANNELS, COMPONENTS = 6, 8, 3, 12
PATCH_VALUES: Final = GROUP * PATCH * PATCH * CHANNELS
VAE_CONFIG: Final = {
    "in_channels": 15,
    "encoder_block_out_channels": (32, 32, 32, 96),
    "decoder_block_out_channels": (32, 32, 96, 96),
    "layers_per_block": (0, 1, 1, 1, 0),
    "add_attention_block": (False, False, False, False, False),
    # The components are scaled to unit variance already.
    "latents_mean": (0.0,) * COMPONENTS,
    "latents_std": (1.0,) * COMPONENTS,
    "scaling_factor": 1.0,
}


def to_patches(frames: Array, group: int = GROUP) -> Array:
    """Cut a clip into the patches that one latent position stands for.

    Args:
        frames: (group * (T-1) + 1, 8h, 8w, 3) in 0..1.
        group: frames of a latent frame; the first frame is repeated to fill its group.
    Returns: (T, h, w, group * 192) in -1..1, the last axis ordered (frame, row, column, colour).
    """
    padded = np.concatenate([np.repeat(frames[:1], group - 1, axis=0), frames]) * 2 - 1
    groups, height, width = len(padded) // group, frames.shape[1] // PATCH, frames.shape[2] // PATCH
    cut = padded.reshape(groups, group, height, PATCH, width, PATCH, CHANNELS)
    return cut.transpose(0, 2, 4, 1, 3, 5, 6).reshape(groups, height, width, -1)


@dataclass(frozen=True)
class LatentSpace:
    """A linear map between patches and latents of zero mean and unit variance.

    For Mochi, `mean` is (1152,), `components` (1152, 12) with orthonormal columns, `scale` (12,).
    """

    mean: Array
    components: Array
    scale: Array

    @property
    def group(self) -> int:
        """Frames that one latent frame stands for."""
        return len(self.mean) // (PATCH * PATCH * CHANNELS)

    def encode(self, frames: Array) -> Array:
        """(n, H, W, 3) in 0..1 -> latents (12, T, H/8, W/8)."""
        latents = (to_patches(frames, self.group) - self.mean) @ (self.components / self.scale)
        return np.ascontiguousarray(latents.transpose(3, 0, 1, 2), dtype=np.float32)

    @property
    def inverse(self) -> Array:
        """(12, 1152): patch = mean + latent @ inverse."""
        return (self.components * self.scale).T.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write as .npz."""
        np.savez(path, mean=self.mean, components=self.components, scale=self.scale)

    @classmethod
    def load(cls, path: Path) -> "LatentSpace":
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(stored["mean"], stored["components"], stored["scale"])


def fit_latent_space(seed: int, clips: int = 900) -> LatentSpace:
    """Principal components of random clips of several sizes (deterministic by seed)."""
    rng = np.random.default_rng(seed)
    total, outer, count = np.zeros(PATCH_VALUES), np.zeros((PATCH_VALUES, PATCH_VALUES)), 0
    for _ in range(clips):
        side = int(rng.choice((64, 96, 128, 128)))
        frames = render(draw_training_scene(rng), side, side, int(rng.choice((7, 13, 25))))
        patches = to_patches(frames).reshape(-1, PATCH_VALUES)
        patches = patches[rng.permutation(len(patches))[:200]]
        total += patches.sum(axis=0)
        outer += patches.T @ patches
        count += len(patches)
    mean = total / count
    values, vectors = np.linalg.eigh(outer / count - np.outer(mean, mean))
    return LatentSpace(
        mean.astype(np.float32),
        np.ascontiguousarray(vectors[:, ::-1][:, :COMPONENTS], dtype=np.float32),
        np.sqrt(values[::-1][:COMPONENTS]).astype(np.float32),
    )


def new_vae(seed: int) -> AutoencoderKLMochi:
    """An untrained autoencoder of the bundled size."""
    torch.manual_seed(seed)
    return AutoencoderKLMochi(**VAE_CONFIG)


def decode(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Decode in one pass as Mochi's authors do, with gradients.

    After each temporal upsample the first (expansion - 1) frames are dropped; diffusers' own
    decode does not. genmoai/mochi@0c86aeb src/genmo/mochi_preview/vae/models.py DepthToSpaceTime

    Args:
        latents: (B, 12, T, h, w).
    Returns: (B, 3, 6(T-1)+1, 8h, 8w) in -1..1.
    """
    hidden, _ = decoder.block_in(decoder.conv_in(latents))
    for block in decoder.up_blocks:
        hidden, _ = block(hidden)
        hidden = hidden[:, :, block.temporal_expansion - 1 :]
    hidden, _ = decoder.block_out(hidden)
    hidden = decoder.proj_out(decoder.nonlinearity(hidden).permute(0, 2, 3, 4, 1))
    return hidden.permute(0, 4, 1, 2, 3)


def _split(proj: nn.Linear, block: nn.Module, used: int) -> tuple[Tensor, Tensor]:
    """An up block's weight (out, t, y, x, in) and bias (out, t, y, x), the first `used` zeroed.

    The order is that of MochiUpBlock3D: output channel outermost, then time, row, column.
    """
    steps = (block.temporal_expansion, block.spatial_expansion, block.spatial_expansion)
    weight = proj.weight.view(-1, *steps, proj.in_features)
    bias = proj.bias.view(-1, *steps)
    weight[:used], bias[:used] = 0, 0
    return weight, bias


@torch.no_grad()
def init_linear_decoder(decoder: nn.Module, space: LatentSpace) -> None:
    """Set the weights so that decoding equals the principal components' linear inverse.

    The trunk of the decoder is linear where residual branches are silent; the only non-linearity
    left is the last SiLU, and silu(x) - silu(-x) = x. Channels not needed keep their random
    weights and reach the output with weight zero: the training finds uses for them.
    """
    blocks = (decoder.block_in, *decoder.up_blocks, decoder.block_out)
    for resnet in (resnet for block in blocks for resnet in block.resnets):
        resnet.conv2.conv.weight.zero_()
        resnet.conv2.conv.bias.zero_()
    decoder.conv_in.weight[:COMPONENTS] = torch.eye(COMPONENTS)[..., None, None, None]
    decoder.conv_in.bias[:COMPONENTS] = 0
    first, second, third = decoder.up_blocks

    def sub_blocks(values: Array) -> Tensor:
        """(k, 1152) -> (96, 3, 2, 2, k): 2x4x4x3 pixels for every step of the first block."""
        cut = torch.from_numpy(values).view(-1, 3, 2, 2, 4, 2, 4, CHANNELS)
        return cut.permute(2, 4, 6, 7, 1, 3, 5, 0).reshape(96, 3, 2, 2, -1)

    weight, bias = _split(first.proj, first, 96)
    weight[:96, ..., :COMPONENTS] = sub_blocks(space.inverse)
    bias[:96] = sub_blocks(space.mean[None])[..., 0]
    weight, _ = _split(second.proj, second, 12)
    # (2, 4, 4, 3) pixels -> output (2, 2, 3) at step (time, row, column)
    pixels = torch.eye(96).view(2, 2, 2, 2, 2, CHANNELS, 96)
    weight[:12, ..., :96] = pixels.permute(2, 4, 5, 0, 1, 3, 6).reshape(12, 2, 2, 2, 96)
    weight, _ = _split(third.proj, third, 6)
    pixels = torch.eye(12).view(2, 2, CHANNELS, 12).permute(2, 0, 1, 3)[:, None]
    weight[:3, ..., :12], weight[3:6, ..., :12] = pixels, -pixels
    decoder.proj_out.weight.zero_()
    decoder.proj_out.bias.zero_()
    decoder.proj_out.weight[:, :3] = torch.eye(3)
    decoder.proj_out.weight[:, 3:6] = -torch.eye(3)


# In the encoder's last normalisation each latent shares its group with the constants +K and -K:
# they fix the group's variance, and tell the mean that the normalisation takes away.
REFERENCE: Final = 50.0
LINEAR_POINT: Final = 20.0  # silu(x) = x to 1e-2 for all x within 14 of here


@torch.no_grad()
def init_linear_encoder(encoder: nn.Module, space: LatentSpace) -> None:
    """Set the weights so that encoding equals projecting on the components, to about 1e-2.

    The narrow middle (32 channels for 96 pixel values) keeps what the latents need. The last
    layers, a group normalisation and a SiLU, are made transparent: see `REFERENCE`.
    """
    for resnet in (resnet for block in encoder.down_blocks for resnet in block.resnets):
        resnet.conv2.conv.weight.zero_()
        resnet.conv2.conv.bias.zero_()
    first, second, third = (block.conv_in.conv for block in encoder.down_blocks)
    for layer in (encoder.proj_in, first, second, third):
        layer.weight.zero_()
        layer.bias.zero_()
    encoder.proj_in.weight[:3, :3] = torch.eye(3)
    pixels = torch.eye(12).view(2, 2, CHANNELS, 12).permute(3, 2, 0, 1)
    first.weight[:12, :3, 0] = pixels
    # Each latent's weights on 2x4x4x3 sub-blocks (96 values), for every step of the last layer.
    projection = torch.from_numpy(space.components / space.scale)
    cut = projection.view(3, 2, 2, 4, 2, 4, CHANNELS, COMPONENTS)
    parts = cut.permute(1, 3, 5, 6, 0, 2, 4, 7).reshape(96, -1)
    basis = torch.linalg.svd(parts, full_matrices=False)[0][:, :32]
    # (frame, row / 2, row % 2, column / 2, column % 2, colour, k) -> (k, inputs, t, y, x)
    steps = basis.view(2, 2, 2, 2, 2, CHANNELS, 32).permute(6, 2, 4, 5, 0, 1, 3)
    second.weight[:, :12] = steps.reshape(32, 12, 2, 2, 2)
    coefficients = (basis.T @ parts).view(32, 3, 2, 2, COMPONENTS)
    third.weight[0 : 3 * COMPONENTS : 3] = coefficients.permute(4, 0, 1, 2, 3)
    third.bias[0 : 3 * COMPONENTS : 3] = -(torch.from_numpy(space.mean) @ projection)
    third.bias[1::3], third.bias[2::3] = REFERENCE, -REFERENCE
    norm = encoder.norm_out.norm_layer
    norm.weight.fill_((2 / 3) ** 0.5 * REFERENCE)
    norm.bias.view(-1, 3)[:] = LINEAR_POINT + torch.tensor([0.0, -REFERENCE, REFERENCE])
    rows = torch.eye(COMPONENTS)[:, :, None] * torch.tensor([1.0, -0.5, -0.5])
    encoder.proj_out.weight.zero_()
    encoder.proj_out.weight[:COMPONENTS, : 3 * COMPONENTS] = rows.flatten(1)
    # Log-variance -20 from a group without a latent: the encoder is certain.
    encoder.proj_out.weight[COMPONENTS:, 3 * COMPONENTS] = -1.0
