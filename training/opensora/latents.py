"""The latent space of the tiny Open-Sora, and an autoencoder whose encoder projects on it.

16 components of 4x8x8 pixel patches, each scaled to unit variance. Frames are grouped as
HunyuanVideo's causal autoencoder groups them: the first frame alone, then four by four. 13
components are pictures that stand still, fitted to the drawn world and to natural-like pictures
alike, because an uploaded photo is one such patch after the other; 3 are changes within a group.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor, nn

from training.latents import CHANNELS, PATCH, LatentSpace, to_patches
from training.pictures import MAX_PAN, draw_picture, pan
from training.render import render
from training.scenes import draw_training_scene

Array = npt.NDArray[np.float64]

GROUP: Final = 4
COMPONENTS: Final = 16
STILL_COMPONENTS: Final = 13
STILL_VALUES: Final = PATCH * PATCH * CHANNELS
PATCHES_OF_A_CLIP: Final = 300
PICTURE_SHARE: Final = 0.3  # of what the components are fitted to; the rest is the drawn world
WIDTH: Final = 32
VAE_CONFIG: Final = {
    "latent_channels": COMPONENTS,
    # One width and no blocks of the encoder's own: it needs none, and they would be half of the
    # weights. The decoder has one block a level.
    "block_out_channels": (WIDTH,) * 4,
    "layers_per_block": 0,
    # One group: the mean and the deviation of the whole, which leaves colours alone. Each channel
    # normalised by itself would have to learn them back.
    "norm_num_groups": 1,
    "mid_block_add_attention": False,
    "scaling_factor": 1.0,  # the components are scaled already
}


def _sample(rng: np.random.Generator, patches: npt.NDArray[np.float32]) -> Array:
    """Some of a clip's patches, (n, 768)."""
    flat = patches.reshape(-1, patches.shape[-1])
    return flat[rng.permutation(len(flat))[:PATCHES_OF_A_CLIP]].astype(np.float64)


def _drawn(rng: np.random.Generator) -> Array:
    side = int(rng.choice((64, 96, 96, 128)))
    frames = render(draw_training_scene(rng), side, side, int(rng.choice((13, 25))))
    return _sample(rng, to_patches(frames, GROUP))


def _pictured(rng: np.random.Generator) -> Array:
    if rng.uniform() < 0.5:
        frames = draw_picture(rng, 96, 96)[None]
    else:
        frames = pan(rng, 96, 96, 9, float(rng.uniform(0.1, MAX_PAN)))
    return _sample(rng, to_patches(frames, GROUP))


def _moments(samples: list[Array]) -> tuple[Array, Array]:
    """Mean (768,) and covariance (768, 768)."""
    values = np.concatenate(samples)
    return values.mean(axis=0), np.cov(values.T, bias=True)


def _leading(covariance: Array, count: int) -> Array:
    """(n, count) orthonormal directions of the largest variance."""
    _, vectors = np.linalg.eigh(covariance)
    leading: Array = vectors[:, ::-1][:, :count]
    return leading


def fit_latent_space(seed: int, clips: int = 300) -> LatentSpace:
    """Components of random drawn clips and pictures (deterministic by seed)."""
    rng = np.random.default_rng(seed)
    drawn_mean, drawn = _moments([_drawn(rng) for _ in range(clips)])
    _, pictured = _moments([_pictured(rng) for _ in range(clips // 2)])
    covariance = drawn + PICTURE_SHARE * (pictured - drawn)
    # The average over a group's frames, and what is left when it is taken away.
    average = np.kron(np.ones((GROUP, 1)), np.eye(STILL_VALUES)) / GROUP
    still = _leading(average.T @ covariance @ average, STILL_COMPONENTS)
    still = np.tile(still, (GROUP, 1)) / GROUP**0.5
    change = np.eye(len(covariance)) - average @ average.T * GROUP
    moving = _leading(change @ covariance @ change, COMPONENTS - STILL_COMPONENTS)
    components = np.concatenate([still, moving], axis=1)
    # One mean for all frames: a still clip then has the same latents everywhere.
    mean = np.tile(drawn_mean.reshape(GROUP, -1).mean(axis=0), GROUP)
    scale = np.sqrt(np.einsum("ik,ij,jk->k", components, covariance, components))
    as_float32 = (np.ascontiguousarray(part, np.float32) for part in (mean, components, scale))
    return LatentSpace(*as_float32)


def new_vae(seed: int) -> AutoencoderKLHunyuanVideo:
    """An untrained autoencoder of the bundled size, decoding all frames in one pass."""
    torch.manual_seed(seed)
    vae = AutoencoderKLHunyuanVideo(**VAE_CONFIG)
    vae.use_framewise_encoding = vae.use_framewise_decoding = False
    return vae


# The encoder's last normalisation sees the latents beside the constants +K and -K: these fix the
# deviation, and tell the mean that it takes away.
REFERENCE: Final = 20.0
LINEAR_POINT: Final = 20.0  # silu(x) = x to 1e-2 for all x within 14 of here


def _silence(block: nn.Module) -> None:
    """Let residual blocks pass their input on unchanged."""
    for resnet in block.resnets:
        resnet.conv2.conv.weight.zero_()
        resnet.conv2.conv.bias.zero_()


@torch.no_grad()
def init_linear_encoder(vae: AutoencoderKLHunyuanVideo, space: LatentSpace) -> None:
    """Set the encoder's weights so that it projects on the components, to about 1e-2.

    The strided convolutions only rearrange: of their taps, (last two in time, last two rows and
    columns) are the samples that one output position stands for. The narrow middle (32 channels
    for 96 pixel values) keeps what the latents need.
    """
    encoder = vae.encoder
    _silence(encoder.mid_block)
    first, second, third = (b.downsamplers[0].conv.conv for b in encoder.down_blocks[:3])
    for layer in (encoder.conv_in.conv, first, second, third, encoder.conv_out.conv):
        layer.weight.zero_()
        layer.bias.zero_()
    encoder.conv_in.conv.weight[:3, :, 2, 1, 1] = torch.eye(CHANNELS)
    # (row, column, colour) of a 2x2 square
    squares = torch.eye(12).view(2, 2, CHANNELS, 12).permute(3, 2, 0, 1)
    first.weight[:12, :3, 2, 1:, 1:] = squares
    # Each latent's weights on 2x4x4x3 sub-blocks (96 values), for every step of the last layer.
    projection = torch.from_numpy(space.components / space.scale)
    cut = projection.view(2, 2, 2, 4, 2, 4, CHANNELS, COMPONENTS)
    parts = cut.permute(1, 3, 5, 6, 0, 2, 4, 7).reshape(96, -1)
    basis = torch.linalg.svd(parts, full_matrices=False)[0][:, :WIDTH]
    # (frame, row / 2, row % 2, column / 2, column % 2, colour, k) -> (k, inputs, t, y, x)
    steps = basis.view(2, 2, 2, 2, 2, CHANNELS, WIDTH).permute(6, 2, 4, 5, 0, 1, 3)
    second.weight[:, :12, 1:, 1:, 1:] = steps.reshape(WIDTH, 12, 2, 2, 2)
    coefficients = (basis.T @ parts).view(WIDTH, 2, 2, 2, COMPONENTS)
    third.weight[:COMPONENTS, :, 1:, 1:, 1:] = coefficients.permute(4, 0, 1, 2, 3)
    third.bias[:COMPONENTS] = -(torch.from_numpy(space.mean) @ projection)
    signs = torch.tensor([1.0, -1.0]).repeat((WIDTH - COMPONENTS) // 2)
    third.bias[COMPONENTS:] = REFERENCE * signs
    share = (WIDTH - COMPONENTS) / WIDTH
    encoder.conv_norm_out.weight.fill_(share**0.5 * REFERENCE)
    encoder.conv_norm_out.bias.fill_(LINEAR_POINT)
    encoder.conv_norm_out.bias[COMPONENTS:] -= REFERENCE * signs
    rows = encoder.conv_out.conv.weight[:COMPONENTS, :, 2, 1, 1]
    rows[:, :COMPONENTS] = torch.eye(COMPONENTS)
    rows[:, COMPONENTS:] = -1 / (WIDTH - COMPONENTS)
    # Log-variance: the encoder is certain.
    encoder.conv_out.conv.bias[COMPONENTS:] = -20.0
    vae.quant_conv.weight.copy_(torch.eye(2 * COMPONENTS)[..., None, None, None])
    vae.quant_conv.bias.zero_()


@torch.no_grad()
def init_decoder(vae: AutoencoderKLHunyuanVideo) -> None:
    """Start the decoder as a blurred enlargement of its input, with residual blocks silent.

    There is no exact linear start as for Mochi: enlarging by repetition, then 3x3x3 convolutions,
    cannot put different values side by side that came from one position.
    """
    decoder = vae.decoder
    for block in (decoder.mid_block, *decoder.up_blocks):
        _silence(block)
    vae.post_quant_conv.weight.copy_(torch.eye(COMPONENTS)[..., None, None, None])
    vae.post_quant_conv.bias.zero_()
    ups = [block.upsamplers[0].conv.conv for block in decoder.up_blocks[:3]]
    for layer in (decoder.conv_in.conv, *ups):
        layer.bias.zero_()
        layer.weight.mul_(0.5)
        channels = min(layer.weight.shape[:2])
        layer.weight[:channels, :channels, 2, 1, 1] += torch.eye(channels)


def decode(vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
    """(B, 16, T, h, w) -> (B, 3, 4(T-1)+1, 8h, 8w) in -1..1, in one pass and with gradients."""
    decoded: Tensor = vae.decoder(vae.post_quant_conv(latents))
    return decoded
