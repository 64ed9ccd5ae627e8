"""An exported checkpoint is what the service loads, small enough, and begins with its image."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deployments.core.checkpoints import GenerationConfig
from deployments.models.opensora.loading import verify
from training.export import weight_bytes
from training.latents import LatentSpace
from training.opensora.export import GENERATION_CONFIG, build_pipeline, save
from training.opensora.generator import OpenSoraGenerator
from training.opensora.latents import init_decoder, init_linear_encoder, new_vae
from training.opensora.models import new_model

BUNDLED = Path("checkpoints/opensora-tiny")
MAX_WEIGHT_BYTES = 11_000_000


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opensora")
    vae = new_vae(seed=0)
    init_linear_encoder(vae, LatentSpace.load(Path("training/opensora/latent_space.npz")))
    init_decoder(vae)
    save(build_pipeline(new_model(BUNDLED, seed=0), vae), folder)
    return folder


def test_the_service_takes_the_exported_folder(untrained: Path) -> None:
    verify(untrained)
    GenerationConfig.model_validate(GENERATION_CONFIG)
    assert 0 < weight_bytes(untrained) <= MAX_WEIGHT_BYTES


def test_an_exported_folder_makes_clips_from_text_and_image(untrained: Path) -> None:
    """Of the asked size; the image counts."""
    generator = OpenSoraGenerator(untrained)
    generator.settings["num_inference_steps"] = 2
    image = Image.new("RGB", (40, 30), (200, 40, 40))
    clips = [generator("a red ball", 5, 32, seed=0, image=given) for given in (None, image)]
    assert clips[0].shape == clips[1].shape == (5, 32, 32, 3)
    assert (clips[0][0] != clips[1][0]).any()
    np.testing.assert_array_equal(clips[0], generator("a red ball", 5, 32, seed=0))


def test_the_bundled_weights_take_at_most_11_megabytes() -> None:
    """They are kept in the repository's history for ever."""
    verify(BUNDLED)
    assert 0 < weight_bytes(BUNDLED) <= MAX_WEIGHT_BYTES
