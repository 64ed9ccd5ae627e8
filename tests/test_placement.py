"""Where networks lie, and what is said when they do not fit; a GPU is only pretended."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deployments.core.errors import InsufficientVram
from deployments.core.memory import Activations, Weights
from deployments.placement import Placer

TEXT = ("text_encoder", "text_encoder_2")
WEIGHTS = Weights(transformer_gb=20, text_encoder_gb=10, vae_gb=1)
CLIP = Activations(denoise_gb=4, decode_gb=2)
PARTS = SimpleNamespace(transformer=nn.Linear(1, 1), vae=nn.Linear(1, 1))


def placer(available_gb: float, monkeypatch: pytest.MonkeyPatch) -> Placer:
    made = Placer("mochi", "cuda", TEXT)
    monkeypatch.setattr(made, "available_gb", lambda: available_gb)
    monkeypatch.setattr(made, "_rest", lambda parts: None)
    made.plan(WEIGHTS, CLIP)
    return made


@pytest.mark.parametrize(
    ("available_gb", "on_cpu"),
    [(40, set()), (30, set(TEXT)), (26, {*TEXT, "transformer", "vae"})],
)
def test_the_less_memory_the_more_rests_on_the_cpu(
    available_gb: float, on_cpu: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the other models of the card have the memory between jobs."""
    assert placer(available_gb, monkeypatch).on_cpu == on_cpu


def test_a_job_that_does_not_fit_is_refused_before_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is computed; the need is that of weights and clip."""
    small = placer(8.0, monkeypatch)
    with (
        pytest.raises(InsufficientVram, match=r"mochi needs ~25\.5GB, but only 8\.0GB"),
        small.job(CLIP, low_vram=False, parts=PARTS),
    ):
        pytest.fail("the job began")


def test_memory_that_runs_out_during_a_job_is_said_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another process may have taken it meanwhile."""
    with (
        pytest.raises(InsufficientVram, match=r"mochi needs ~36\.5GB"),
        placer(40, monkeypatch).job(CLIP, low_vram=False, parts=PARTS),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_low_vram_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """The networks take turns then; nothing is less where they do already."""
    large = placer(40, monkeypatch)
    assert large.need_gb(CLIP, low_vram=True) == large.need_gb(CLIP, low_vram=False) - 1
    small = placer(8, monkeypatch)
    assert small.need_gb(CLIP, low_vram=True) == small.need_gb(CLIP, low_vram=False)


def test_on_a_cpu_everything_stays_where_it_is() -> None:
    """No plan, no refusal, no move."""
    made = Placer("mochi", "cpu", TEXT)
    made.plan(WEIGHTS, CLIP)
    assert made.on_cpu == set()
    with made.job(CLIP, low_vram=True, parts=PARTS):
        assert made.take(PARTS.vae) is PARTS.vae
        made.step_aside(PARTS.vae, low_vram=True)
