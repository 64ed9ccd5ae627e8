"""Where networks lie, and what is said when they do not fit; a GPU is only pretended."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from deployments.core.errors import InsufficientVram
from deployments.core.events import Notice, Waiting
from deployments.core.memory import MODES, peak_gb
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip
from deployments.core.spec import VideoRequest, resolve
from deployments.ladder import Attempt
from deployments.placed_job import PlacedJob
from deployments.placement import Placer
from tests.pretended_memory import PretendedMemory
from tests.published_cards import MOCHI as CARD

TEXT = ("text_encoder", "text_encoder_2")
FIGURES = MochiFigures()
SPEC = resolve(VideoRequest(prompt="a fox", seed=0), CARD)
CLIP, LONGEST = Clip(720, 720, 67), Clip(720, 720, 163)


class Network(nn.Module):
    """Keeps where it was moved to, and takes no memory."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, place: str) -> "Network":
        self.places.append(place)
        return self

    def enable_group_offload(self, **_: object) -> None:
        self.places.append("streamed")


class FullGpu(Network):
    """Finds no room on the GPU."""

    def to(self, place: str) -> Network:
        if place == "gpu":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().to(place)


def parts() -> SimpleNamespace:
    return SimpleNamespace(**{name: Network() for name in ("transformer", "vae", *TEXT)})


def placer(memory: PretendedMemory) -> Placer:
    made = Placer("mochi", "gpu", TEXT, memory)
    made.plan(FIGURES, LONGEST)
    return made


@pytest.mark.parametrize(
    ("available_gb", "on_cpu"),
    [(40, set()), (30, set(TEXT)), (26.5, {*TEXT, "transformer", "vae"})],
)
def test_the_less_memory_the_more_rests_on_the_cpu(available_gb: float, on_cpu: set[str]) -> None:
    """So that the other models of the card have the memory between jobs."""
    assert placer(PretendedMemory(available_gb)).on_cpu == on_cpu


def test_a_job_that_does_not_fit_is_refused_before_it_starts() -> None:
    """Nothing is computed; the need is that of the plan, in the smallest mode here."""
    need_gb = peak_gb(FIGURES, CLIP, MODES[-1])
    for available_gb, instead in (
        (1.0, "No shorter or smaller video"),
        (8.0, "It would fit with"),
    ):
        with (
            pytest.raises(InsufficientVram) as refusal,
            placer(PretendedMemory(available_gb)).job(SPEC, CARD, parts()),
        ):
            pytest.fail("the job began")
        needs = f"Insufficient VRAM: mochi needs ~{need_gb:.1f}GB, "
        said = f"{needs}but only {available_gb:.1f}GB available. {instead}"
        assert str(refusal.value).startswith(said)


def short_of_memory(job: PlacedJob, times: int) -> Attempt[str]:
    """Run a phase that runs out of memory so many times."""
    left = [times]

    def attempt(job: PlacedJob) -> Attempt[str]:
        yield Waiting()
        job.take("transformer")
        if left[0]:
            left[0] -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return "done"

    return job.run("denoise", attempt)


def test_memory_that_runs_out_during_a_job_is_said_in_the_same_words() -> None:
    """Another process has taken it meanwhile: what is left is told, and what would fit there."""
    need_gb = peak_gb(FIGURES, CLIP, MODES[0])
    memory = PretendedMemory(40)
    with placer(memory).job(SPEC, CARD, parts()) as job:
        memory.free_gb = 33.0
        with pytest.raises(InsufficientVram, match=rf"mochi needs ~{need_gb:.1f}GB") as failure:
            list(short_of_memory(job, times=3))
    assert "but only 33.0GB available. It would fit with" in str(failure.value)


def test_a_job_that_took_more_than_planned_says_so() -> None:
    """The plan was wrong, so that the need is more than what there was; something clearly smaller
    is named in its place."""
    with (
        pytest.raises(InsufficientVram, match=r"needs ~40\.0GB, but only 40\.0GB") as failure,
        placer(PretendedMemory(40)).job(SPEC, CARD, parts()) as job,
    ):
        list(short_of_memory(job, times=3))
    width, height = map(int, str(failure.value).rpartition("at ")[2].rstrip(".").split("x"))
    less_gb = peak_gb(FIGURES, Clip(width, height, 67), MODES[0])
    assert less_gb <= 0.9 * peak_gb(FIGURES, CLIP, MODES[0])


def test_low_vram_takes_less() -> None:
    """The networks take turns then, and the clip is decoded in tiles."""
    for available_gb in (40, 8):
        made = placer(PretendedMemory(available_gb))
        assert made.need_gb(SPEC.model_copy(update={"low_vram": True})) < made.need_gb(SPEC)


@pytest.mark.parametrize("low_vram", [False, True])
def test_the_autoencoder_makes_room_at_once_where_memory_is_to_be_saved(low_vram: bool) -> None:
    """It rests on the GPU between jobs, and the plan does not count it while denoising."""
    networks = parts()
    spec = SPEC.model_copy(update={"low_vram": low_vram})
    with placer(PretendedMemory(40)).job(spec, CARD, networks) as job:
        assert networks.vae.places == (["cpu"] if low_vram else [])
        job.take("vae")
        assert networks.vae.places[-1] == "gpu"
        assert networks.transformer.places == (["cpu"] if low_vram else [])


def test_when_memory_runs_out_the_others_leave_and_then_the_transformer_is_streamed() -> None:
    """The job says both; afterwards everything is back where it rests."""
    networks = parts()
    with placer(PretendedMemory(40)).job(SPEC, CARD, networks) as job:
        job.take_text()
        said = [event.text for event in short_of_memory(job, 2) if isinstance(event, Notice)]
        assert "with the other networks off the GPU" in said[0]
        assert "with the transformer streamed block by block" in said[1]
        assert len(said) == 2
        assert networks.vae.places[-1] == networks.text_encoder.places[-1] == "cpu"
        assert networks.transformer.places[-2:] == ["streamed", "gpu"]
    assert {network.places[-1] for network in vars(networks).values()} == {"gpu"}


def test_a_rung_that_changes_nothing_is_left_out() -> None:
    """With little memory the networks take turns from the start."""
    with placer(PretendedMemory(26.5)).job(SPEC, CARD, parts()) as job:
        said = [event.text for event in short_of_memory(job, 1) if isinstance(event, Notice)]
    assert "streamed block by block" in said[0]


def test_memory_that_does_not_come_back_ends_the_job() -> None:
    """Another try would run out as well."""
    memory = PretendedMemory(40)
    with placer(memory).job(SPEC, CARD, parts()) as job:
        memory.held = 4.0
        with pytest.raises(InsufficientVram):
            list(short_of_memory(job, times=1))


def test_networks_that_find_no_room_rest_on_the_cpu() -> None:
    """The job is done, whatever became of the GPU meanwhile; the next one brings them back."""
    networks = parts()
    with placer(PretendedMemory(40)).job(SPEC, CARD, networks) as job:
        job.take("transformer")
        networks.vae = FullGpu()
    assert networks.transformer.places[-1] == networks.vae.places[-1] == "cpu"


def test_networks_that_have_left_are_brought_back_by_the_next_job() -> None:
    """Each when it is needed, and all of those that rest on the GPU in its end."""
    networks, memory = parts(), PretendedMemory(40)
    made = placer(memory)
    made.leave(networks)
    assert {network.places[-1] for network in vars(networks).values()} == {"cpu"}
    assert (memory.limits, memory.releases) == (1, 1)
    with made.job(SPEC, CARD, networks) as job:
        job.take_text()
        assert networks.text_encoder.places[-1] == networks.text_encoder_2.places[-1] == "gpu"
        assert networks.transformer.places == ["cpu"]
    assert {network.places[-1] for network in vars(networks).values()} == {"gpu"}


def test_an_image_is_planned_for() -> None:
    """Encoding it never takes more than decoding the clip."""
    made = Placer("opensora", "cpu", TEXT, PretendedMemory(138.0))
    made.plan(OpenSoraFigures(), CLIP)
    conditioned = SPEC.model_copy(update={"conditioned": True})
    assert made.need_gb(conditioned) == made.need_gb(SPEC)


def test_on_a_cpu_everything_stays_where_it_is() -> None:
    """No refusal, no move."""
    made = Placer("mochi", "cpu", TEXT, None)
    made.plan(FIGURES, LONGEST)
    assert made.on_cpu == set()
    networks = parts()
    with made.job(SPEC.model_copy(update={"low_vram": True}), CARD, networks) as job:
        assert job.take("vae") is networks.vae
    assert networks.vae.places == ["cpu"]
    assert networks.transformer.places == []
