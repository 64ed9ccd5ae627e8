"""LoRA through the backends: in the frames of the job that asks for it, and in no other's."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deployments.core.config import ModelConfig
from deployments.core.errors import InvalidRequest
from deployments.core.events import Decoded, Frames
from deployments.core.networks.figures import MochiFigures
from deployments.core.networks.model import Clip
from deployments.core.spec import Lora, VideoSpec
from deployments.loras import Loras
from deployments.mochi import Mochi
from deployments.opensora import OpenSora
from deployments.placement import Placer
from tests import test_mochi, test_opensora, tiny_mochi, tiny_opensora
from tests.tiny_lora import random_lora, write_lora

CLIP = Clip(256, 256, 13)
BACKENDS: dict[str, tuple[Any, Any]] = {
    "mochi": (Mochi, test_mochi),
    "opensora": (OpenSora, test_opensora),
}


@pytest.fixture(scope="module", params=["mochi", "opensora"])
def made(
    request: pytest.FixtureRequest, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, VideoSpec, Path]]:
    """A loaded backend, a spec for it, and its folder of LoRA files."""
    backend, tests = BACKENDS[request.param]
    source, loras = folder, tmp_path_factory.mktemp("loras")
    if request.param == "opensora":
        source = tmp_path_factory.mktemp("opensora-random")
        tiny_opensora.tiny_pipeline().save_pretrained(source)
    threads = torch.get_num_threads()
    config = ModelConfig(name=request.param, cpu_threads=1, loras_dir=str(loras))
    model = backend(config, tests.checkpoint(source), "cpu")
    model.load()
    yield model, tests.spec(), loras
    torch.set_num_threads(threads)


def frames(model: Any, spec: VideoSpec, *loras: Lora) -> Frames:
    events = model.generate(spec.model_copy(update={"loras": loras}), None)
    return np.concatenate([event.frames for event in events if isinstance(event, Decoded)])


def distance(one: Frames, other: Frames) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_a_job_has_its_lora_and_the_next_one_none(made: tuple[Any, VideoSpec, Path]) -> None:
    """Without, each byte is that of a model that never had any; the strength says how far the
    frames are from those."""
    model, spec, folder = made
    fresh = frames(model, spec)
    network = model._parts.transformer
    layers = [f"transformer_blocks.{block}.{name}" for block in (0, 1) for name in ("ff.net.2",)]
    matrices = random_lora(network, layers, rank=4)
    write_lora(folder / "style.safetensors", matrices)
    little, much = (frames(model, spec, Lora(name="style", strength=s)) for s in (0.05, 1.0))
    assert np.array_equal(frames(model, spec), fresh)
    assert 0 < distance(little, fresh) < distance(much, fresh)
    assert np.array_equal(frames(model, spec, Lora(name="style", strength=0.0)), fresh)
    assert np.array_equal(frames(model, spec, Lora(name="style", strength=1.0)), much)


def test_a_fast_job_takes_a_lora_too(made: tuple[Any, VideoSpec, Path]) -> None:
    """What is reused between its steps is its own, and gone with it."""
    model, spec, folder = made
    fast = spec.model_copy(update={"quality": "fast", "fast_threshold": 0.5})
    fresh, plain = frames(model, fast), frames(model, spec)
    layers = ["transformer_blocks.0.ff.net.2"]
    write_lora(folder / "style.safetensors", random_lora(model._parts.transformer, layers, rank=4))
    styled = frames(model, fast, Lora(name="style"))
    assert distance(styled, fresh) > 0
    assert np.array_equal(frames(model, fast), fresh)
    assert np.array_equal(frames(model, spec), plain)


def test_a_job_that_is_stopped_leaves_no_lora(made: tuple[Any, VideoSpec, Path]) -> None:
    model, spec, folder = made
    fresh = frames(model, spec)
    layers = ["transformer_blocks.0.ff.net.2"]
    write_lora(folder / "style.safetensors", random_lora(model._parts.transformer, layers))
    events = model.generate(spec.model_copy(update={"loras": (Lora(name="style"),)}), None)
    while type(next(events)).__name__ != "Step":
        pass
    events.close()
    assert np.array_equal(frames(model, spec), fresh)


def test_a_file_that_does_not_fit_ends_the_job_with_its_first_wrong_key(
    made: tuple[Any, VideoSpec, Path],
) -> None:
    """The model's own folder decides, on whatever node it is."""
    model, spec, folder = made
    one = {"single.0": (torch.zeros(2, 4), torch.zeros(4, 2))}
    write_lora(folder / "flux.safetensors", one)
    with pytest.raises(
        InvalidRequest, match=r"loras: flux\.safetensors: transformer\.single\.0\.lora_A"
    ):
        frames(model, spec, Lora(name="flux"))
    with pytest.raises(InvalidRequest, match="loras: gone is not there; there is"):
        frames(model, spec, Lora(name="gone"))


def test_a_lora_is_counted_before_the_job_begins(tmp_path: Path) -> None:
    """As a larger transformer is; without strength it is not loaded."""
    network = tiny_mochi.tiny_transformer()
    write_lora(tmp_path / "style.safetensors", random_lora(network, ["proj_out"], rank=100))
    placer = Placer("mochi", "cuda", (), None, Loras(str(tmp_path)))
    placer.plan(MochiFigures(), CLIP)
    plain, none, some = (
        placer.need_gb(test_mochi.spec(loras=loras))
        for loras in ((), (Lora(name="style", strength=0.0),), (Lora(name="style"),))
    )
    assert plain == none < some
