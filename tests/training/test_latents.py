"""The latent space is linear, and the decoder can start as its exact inverse."""

import numpy as np
import pytest
import torch

from training.latents import (
    LatentSpace,
    decode,
    fit_latent_space,
    init_linear_decoder,
    init_linear_encoder,
    new_vae,
    to_patches,
)
from training.render import render
from training.scenes import draw_training_scene


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    """Fitted to few clips: exactness does not depend on how many."""
    return fit_latent_space(seed=0, clips=12)


def test_the_linear_decoder_equals_the_components_inverse(space: LatentSpace) -> None:
    """Including the first frame, which is the last of its group of six."""
    frames = render(draw_training_scene(np.random.default_rng(5)), 64, 48, 13)
    latents = space.encode(frames)
    assert latents.shape == (12, 3, 8, 6)
    vae = new_vae(seed=0)
    init_linear_decoder(vae.decoder, space)
    with torch.no_grad():
        decoded = decode(vae.decoder, torch.from_numpy(latents)[None])[0]
    assert decoded.shape == (3, 13, 64, 48)
    patches = to_patches(decoded.permute(1, 2, 3, 0).numpy() / 2 + 0.5)
    inverse = latents.transpose(1, 2, 3, 0) @ space.inverse + space.mean
    np.testing.assert_allclose(patches[1:], inverse[1:], atol=1e-4)
    last_frame = slice(-8 * 8 * 3, None)
    np.testing.assert_allclose(patches[0][..., last_frame], inverse[0][..., last_frame], atol=1e-4)


def test_a_still_clip_has_the_same_latent_everywhere(space: LatentSpace) -> None:
    """The causal first group is the first frame repeated."""
    frame = render(draw_training_scene(np.random.default_rng(6)), 64, 64, 1)
    latents = space.encode(np.repeat(frame, 13, axis=0))
    np.testing.assert_allclose(latents[:, 1:], latents[:, :1].repeat(2, axis=1), atol=1e-4)


def test_the_linear_encoder_equals_the_projection(space: LatentSpace) -> None:
    """Through diffusers' own `encode`, at another aspect ratio, and nearly without variance."""
    frames = render(draw_training_scene(np.random.default_rng(8)), 48, 80, 13)
    vae = new_vae(seed=0)
    init_linear_encoder(vae.encoder, space)
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
    with torch.no_grad():
        encoded = vae.encode(pixels).latent_dist
    expected = space.encode(frames)
    error = encoded.mode()[0].numpy() - expected
    assert np.sqrt((error**2).mean()) < 0.05
    assert float(encoded.std.max()) < 0.01
