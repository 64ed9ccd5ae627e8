"""The latent space serves pictures as well as clips, and the encoder projects on it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.latents import LatentSpace, to_patches
from training.opensora.latents import (
    STILL_COMPONENTS,
    decode,
    fit_latent_space,
    init_decoder,
    init_linear_encoder,
    new_vae,
)
from training.opensora.train_vae import DecoderOptimiser, decoder_loss
from training.pictures import draw_picture
from training.render import render
from training.scenes import draw_training_scene


@pytest.fixture(scope="module")
def space() -> LatentSpace:
    """The one that the checkpoint is trained in."""
    return LatentSpace.load(Path("training/opensora/latent_space.npz"))


def test_a_fitted_space_has_orthonormal_components() -> None:
    """13 of pictures, the same in all four frames; 3 of changes, which average to nothing."""
    fitted = fit_latent_space(seed=0, clips=4)
    assert fitted.group == 4
    np.testing.assert_allclose(fitted.components.T @ fitted.components, np.eye(16), atol=1e-5)
    frames = fitted.components.reshape(4, -1, 16)
    np.testing.assert_allclose(frames[0, :, :STILL_COMPONENTS], frames[3, :, :STILL_COMPONENTS])
    np.testing.assert_allclose(frames.mean(axis=0)[:, STILL_COMPONENTS:], 0, atol=1e-6)


def test_a_still_clip_has_the_latents_of_its_picture_everywhere(space: LatentSpace) -> None:
    """So that an image given as first or last frame looks like part of the clip."""
    frame = draw_picture(np.random.default_rng(6), 64, 48)[None]
    picture, clip = space.encode(frame), space.encode(np.repeat(frame, 9, axis=0))
    np.testing.assert_allclose(clip, picture.repeat(3, axis=1), atol=1e-4)


@pytest.mark.parametrize(("kind", "least_db"), [("drawn", 27), ("natural", 21)])
def test_the_components_hold_what_a_picture_shows(
    space: LatentSpace, kind: str, least_db: float
) -> None:
    """The best that a linear decoder could do at the native size."""
    rng = np.random.default_rng(9)
    errors = []
    for _ in range(12):
        scene = draw_training_scene(rng)
        frame = render(scene, 96, 96, 1) if kind == "drawn" else draw_picture(rng, 96, 96)[None]
        latents = space.encode(frame).transpose(1, 2, 3, 0)
        error = latents @ space.inverse + space.mean - to_patches(frame, 4)
        errors.append(10 * np.log10(4 / (error**2).mean()))
    assert np.mean(errors) > least_db


def test_the_encoder_projects_on_the_components(space: LatentSpace) -> None:
    """Through diffusers' own `encode`, on a clip and on a picture, nearly without variance."""
    vae = new_vae(seed=0)
    init_linear_encoder(vae, space)
    rng = np.random.default_rng(8)
    for frames in (render(draw_training_scene(rng), 48, 80, 13), draw_picture(rng, 64, 48)[None]):
        pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
        with torch.no_grad():
            encoded = vae.encode(pixels).latent_dist
        error = encoded.mode()[0].numpy() - space.encode(frames)
        assert np.sqrt((error**2).mean()) < 0.02
        assert float(encoded.std.max()) < 0.01


def test_the_decoder_learns_and_keeps_the_shape(space: LatentSpace) -> None:
    """A few steps on one picture halve its error."""
    vae = new_vae(seed=0)
    init_decoder(vae)
    frames = render(draw_training_scene(np.random.default_rng(3)), 32, 48, 5)
    latents = torch.from_numpy(space.encode(frames))[None]
    pixels = torch.from_numpy(frames).permute(3, 0, 1, 2)[None] * 2 - 1
    assert decode(vae, latents).shape == pixels.shape
    optimiser, errors = DecoderOptimiser(vae), []
    torch.manual_seed(0)
    for _ in range(8):
        loss, mse = decoder_loss(vae, pixels, latents)
        optimiser.step(loss, pace=1.0)
        errors.append(mse)
    assert errors[-1] < errors[0] / 2
