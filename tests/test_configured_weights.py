"""`weights` in the configuration: how both backends load, what they make and what they say."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from deployments.core.config import ModelConfig, Weights
from deployments.core.events import Decoded, Frames, Notice
from deployments.core.memory import Mode
from deployments.core.networks.figures import MochiFigures
from deployments.core.networks.model import Clip
from deployments.mochi import IN_TILES, Mochi
from deployments.models.mochi1 import loading
from deployments.models.quantised import Int8Linear, Nf4Linear
from deployments.models.streaming import is_streamed
from deployments.opensora import OpenSora
from deployments.placement import Placer
from tests import test_mochi, test_opensora
from tests.pretended_memory import PretendedMemory
from tests.tiny_opensora import tiny_pipeline

# The stock rotary embedding asks for an autocast that the CPU lacks.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture(scope="module")
def opensora_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("opensora-random")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(params=["mochi", "opensora"])
def family(request: pytest.FixtureRequest, folder: Path, opensora_folder: Path) -> Iterator[Any]:
    """A backend, its checkpoint and a small video."""
    threads = torch.get_num_threads()
    if request.param == "mochi":
        yield Mochi, test_mochi.checkpoint(folder), test_mochi.spec()
    else:
        yield OpenSora, test_opensora.checkpoint(opensora_folder), test_opensora.spec()
    torch.set_num_threads(threads)


def made(family: Any, weights: Weights) -> tuple[Any, Frames, list[str]]:
    """Return the loaded backend, the frames of the video and what is said besides of the prompt."""
    kind, checkpoint, spec = family
    backend = kind(ModelConfig(name=spec.model, cpu_threads=1, weights=weights), checkpoint, "cpu")
    backend.load()
    events = list(backend.generate(spec, None))
    frames = np.concatenate([each.frames for each in events if isinstance(each, Decoded)])
    notices = [each.text for each in events if isinstance(each, Notice)]
    return backend, frames, [text for text in notices if "longer than" not in text]


def test_streamed_weights_make_the_same_video(family: Any) -> None:
    """And nothing has to be said of them."""
    _, expected, said = made(family, "auto")
    streaming, frames, notices = made(family, "streamed")
    assert is_streamed(streaming._parts.transformer)
    assert np.array_equal(frames, expected)
    assert said == notices == []


@pytest.mark.parametrize(
    ("weights", "bits"), [("fp8", "8-bit floating point"), ("int8", "of 8 bits"), ("nf4", "4 bits")]
)
def test_weights_in_fewer_bits_are_said_in_every_job(
    family: Any, weights: Weights, bits: str
) -> None:
    """The frames are other ones, close to those of the published weights."""
    backend, frames, notices = made(family, weights)
    _, expected, _ = made(family, "resident")
    assert np.abs(frames.astype(int) - expected).mean() < 8
    assert len(notices) == 1
    assert bits in notices[0]
    assert "changes the frames" in notices[0]
    kinds = {type(layer) for layer in backend._parts.transformer.modules()}
    assert (Int8Linear in kinds, Nf4Linear in kinds) == (weights != "fp8", weights == "nf4")


def test_on_a_gpu_asked_for_weights_are_kept_and_the_rest_is_placed() -> None:
    """By what is free; `auto` streams where the networks in turns do not fit."""
    text, largest = ("text_encoder",), Clip(720, 720, 163)
    for weights, available_gb, expected in (
        ("nf4", 23.5, Mode(transformer="nf4", text_on_gpu=False)),
        ("nf4", 8.0, Mode(transformer="nf4", text_on_gpu=False, take_turns=True)),
        ("resident", 8.0, Mode(text_on_gpu=False, take_turns=True)),
        ("auto", 8.0, Mode(transformer="streamed", text_on_gpu=False, take_turns=True)),
    ):
        placer = Placer("mochi", "gpu", text, PretendedMemory(available_gb), weights=weights)
        placer.plan(MochiFigures(), largest)
        assert placer.mode == expected


def test_a_host_without_memory_for_streamed_weights_is_told_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence is the replica's reason: `VideoModel` shows what loading raises."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    monkeypatch.setattr(loading.MOCHI.networks["transformer"], "from_pretrained", None)
    with pytest.raises(MemoryError, match=r"they need 2\.0 GB of it, and 1\.0 GB are free"):
        loading.load(str(folder), "cuda", weights="streamed")


@pytest.mark.parametrize("width", [256, 288])
def test_mochi_decodes_in_tiles_with_low_vram_and_says_so(folder: Path, width: int) -> None:
    """Where one tile does not hold the frames; all of them come in larger runs."""
    backend = Mochi(test_mochi.CONFIG, test_mochi.checkpoint(folder), "cpu")
    backend.load()
    size = {"width": width, "height": 64, "generated_width": width, "generated_height": 64}
    spec = test_mochi.spec(**size, num_inference_steps=2, low_vram=True)
    events = list(backend.generate(spec, None))
    runs = [event for event in events if isinstance(event, Decoded)]
    assert [(run.first_frame, run.frames.shape) for run in runs] == [(0, (8, 64, width, 3))]
    assert (Notice(IN_TILES) in events) is (width > 256)
