"""What a video takes on the GPU, against figures counted on the full-size networks."""

import pytest
import torch
from diffusers import AutoencoderKLMochi, MochiTransformer3DModel

from deployments.core.errors import InsufficientVram
from deployments.core.memory import (
    GIB,
    MOCHI_FRAMES_PER_LATENT,
    PLACEMENTS,
    Clip,
    Weights,
    fastest_placement,
    mochi_activations,
    need_gb,
    opensora_activations,
    refuse_too_large,
    tokens,
)

# bfloat16: 10.03, 4.76 and 0.46 thousand million parameters.
FULL_SIZE = Weights(transformer_gb=18.7, text_encoder_gb=8.9, vae_gb=0.86)
DEFAULT, LONGEST = Clip(720, 720, 67), Clip(848, 480, 163)
RESIDENT, TEXT_ON_CPU, IN_TURNS = PLACEMENTS


def test_the_default_request_is_24300_tokens_and_the_longest_native_clip_44520() -> None:
    """genmo's README counts 44,520 visual tokens for 848x480 and 163 frames."""
    assert tokens(DEFAULT, MOCHI_FRAMES_PER_LATENT) == 24_300
    assert tokens(LONGEST, MOCHI_FRAMES_PER_LATENT) == 44_520


def test_the_full_size_networks_weigh_what_the_formulas_take() -> None:
    """Counted on the meta device, without memory for the weights."""
    with torch.device("meta"):
        transformer, vae = MochiTransformer3DModel(), AutoencoderKLMochi()
    for network, size_gb in ((transformer, FULL_SIZE.transformer_gb), (vae, FULL_SIZE.vae_gb)):
        count = sum(parameter.numel() for parameter in network.parameters())
        assert 2 * count / GIB == pytest.approx(size_gb, abs=0.05)


def test_denoising_and_decoding_do_not_add_up() -> None:
    """The need is the weights, the larger of both peaks and the overhead."""
    need = need_gb(mochi_activations(DEFAULT), FULL_SIZE, TEXT_ON_CPU)
    assert need == pytest.approx(18.7 + 0.86 + 12.7e3 * 720 * 720 / GIB + 1.5)
    longer = need_gb(mochi_activations(Clip(720, 720, 241)), FULL_SIZE, TEXT_ON_CPU)
    assert longer == pytest.approx(18.7 + 0.86 + 97e3 * 41 * 45 * 45 / GIB + 1.5)


def test_each_placement_takes_less_than_the_one_before() -> None:
    """They are listed from fast to small."""
    needs = [need_gb(mochi_activations(DEFAULT), FULL_SIZE, p) for p in PLACEMENTS]
    assert needs == sorted(needs, reverse=True)


@pytest.mark.parametrize(
    ("available_gb", "expected"),
    [(138.0, RESIDENT), (39.0, RESIDENT), (30.0, TEXT_ON_CPU), (23.5, IN_TURNS), (4.0, IN_TURNS)],
)
def test_the_fastest_placement_that_fits_is_taken(available_gb: float, expected: object) -> None:
    """A card of 24 GB serves the default request with the networks taking turns."""
    assert fastest_placement(mochi_activations(LONGEST), FULL_SIZE, available_gb) == expected
    assert need_gb(mochi_activations(DEFAULT), FULL_SIZE, IN_TURNS) < 23.5


def test_what_does_not_fit_is_refused_in_the_documented_sentence() -> None:
    """The sentence of the API reference."""
    refuse_too_large("mochi", 4.2, 4.2)
    with pytest.raises(InsufficientVram) as refusal:
        refuse_too_large("mochi", 6.0, 4.2)
    sentence = "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
    assert str(refusal.value) == sentence


def test_open_sora_at_768_pixels_takes_what_its_authors_report_of_one_pass() -> None:
    """They run three passes at once and see 60.3 GB: 34 GB of weights and three times this."""
    authors = Clip(1024, 576, 129)
    assert tokens(authors, 4) == 76_032
    assert 3 * opensora_activations(authors).denoise_gb * GIB == pytest.approx(24.3e9, rel=0.01)


def test_decoding_open_sora_in_runs_of_frames_takes_less() -> None:
    """What `low_vram` is for; a short clip is one run anyway."""
    long, short = Clip(1024, 576, 129), Clip(1024, 576, 33)
    tiled = opensora_activations(long, tiled_in_time=True)
    assert tiled.decode_gb < 0.6 * opensora_activations(long).decode_gb
    assert tiled.denoise_gb == opensora_activations(long).denoise_gb
    assert opensora_activations(short, tiled_in_time=True) == opensora_activations(short)
