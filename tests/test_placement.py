"""Where networks lie, and what is said when they do not fit; a GPU is only pretended."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deployments.core.errors import InsufficientVram
from deployments.core.memory import MODES, peak_gb
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip
from deployments.core.spec import VideoRequest, resolve
from deployments.placement import Placer
from tests.pretended_memory import PretendedMemory
from tests.published_cards import MOCHI as CARD

TEXT = ("text_encoder", "text_encoder_2")
FIGURES = MochiFigures()
SPEC = resolve(VideoRequest(prompt="a fox", seed=0), CARD)
CLIP, LONGEST = Clip(720, 720, 67), Clip(720, 720, 163)
PARTS = SimpleNamespace(transformer=nn.Linear(1, 1), vae=nn.Linear(1, 1))


def placer(available_gb: float) -> Placer:
    made = Placer("mochi", "cpu", TEXT, PretendedMemory(available_gb))
    made.plan(FIGURES, LONGEST)
    return made


@pytest.mark.parametrize(
    ("available_gb", "on_cpu"),
    [(40, set()), (30, set(TEXT)), (26.5, {*TEXT, "transformer", "vae"})],
)
def test_the_less_memory_the_more_rests_on_the_cpu(available_gb: float, on_cpu: set[str]) -> None:
    """So that the other models of the card have the memory between jobs."""
    assert placer(available_gb).on_cpu == on_cpu


def test_a_job_that_does_not_fit_is_refused_before_it_starts() -> None:
    """Nothing is computed; the need is that of the plan, in the smallest mode here."""
    need_gb = peak_gb(FIGURES, CLIP, MODES[-1])
    for available_gb, instead in (
        (8.0, "No shorter or smaller video"),
        (22.0, "It would fit with"),
    ):
        with (
            pytest.raises(InsufficientVram) as refusal,
            placer(available_gb).job(SPEC, CARD, PARTS),
        ):
            pytest.fail("the job began")
        needs = f"Insufficient VRAM: mochi needs ~{need_gb:.1f}GB, "
        said = f"{needs}but only {available_gb:.1f}GB available. {instead}"
        assert str(refusal.value).startswith(said)


def test_memory_that_runs_out_during_a_job_is_said_in_the_same_words() -> None:
    """Another process may have taken it meanwhile."""
    need_gb = peak_gb(FIGURES, CLIP, MODES[0])
    with (
        pytest.raises(InsufficientVram, match=rf"mochi needs ~{need_gb:.1f}GB"),
        placer(40).job(SPEC, CARD, PARTS),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_low_vram_takes_less() -> None:
    """The networks take turns then; nothing is less where they do already."""
    large = placer(40)
    assert large.need_gb(CLIP, low_vram=True) < large.need_gb(CLIP, low_vram=False)
    small = placer(8)
    assert small.need_gb(CLIP, low_vram=True) == small.need_gb(CLIP, low_vram=False)


@pytest.mark.parametrize("low_vram", [False, True])
def test_the_autoencoder_makes_room_at_once_where_memory_is_to_be_saved(low_vram: bool) -> None:
    """It rests on the GPU between jobs, and the plan does not count it while denoising."""
    moved: list[str] = []
    watched = SimpleNamespace(to=moved.append)
    parts = SimpleNamespace(transformer=nn.Linear(1, 1), vae=watched)
    spec = SPEC.model_copy(update={"low_vram": low_vram})
    with placer(40).job(spec, CARD, parts):
        assert moved == (["cpu"] if low_vram else [])


def test_an_image_is_planned_for() -> None:
    """Encoding it never takes more than decoding the clip."""
    made = Placer("opensora", "cpu", TEXT, PretendedMemory(138.0))
    made.plan(OpenSoraFigures(), CLIP)
    need_gb = made.need_gb(CLIP, low_vram=False, conditioned=True)
    assert need_gb == made.need_gb(CLIP, low_vram=False)


def test_on_a_cpu_everything_stays_where_it_is() -> None:
    """No refusal, no move."""
    made = Placer("mochi", "cpu", TEXT, None)
    made.plan(FIGURES, LONGEST)
    assert made.on_cpu == set()
    with made.job(SPEC.model_copy(update={"low_vram": True}), CARD, PARTS):
        assert made.take(PARTS.vae) is PARTS.vae
        made.step_aside(PARTS.vae, low_vram=True)
