"""Times and guidance are the authors'."""

import json
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from tests.tiny_opensora import CONFORMANCE, reference

DATA = json.loads((CONFORMANCE / "schedule.json").read_text())


def alpha_of(row: dict[str, Any]) -> float:
    if not row["shift"]:
        return 1.0
    if row["flow_shift"] is not None:
        return row["flow_shift"]
    return flow_shift(row["latent_frames"], row["image_seq_len"])


def test_all_schedules_are_the_authors() -> None:
    """Over their sizes, lengths and step counts; given shifts, and none."""
    assert len(DATA["schedules"]) > 40
    for row in DATA["schedules"]:
        if row["shift"]:
            assert alpha_of(row) == pytest.approx(row["alpha"], abs=1e-6)
        assert timesteps(row["num_steps"], alpha_of(row)) == pytest.approx(
            row["timesteps"], abs=1e-6, rel=0
        )


def test_diffusers_scheduler_gives_the_same_times() -> None:
    """So the pipeline can leave them to its scheduler."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear")
    for row in DATA["schedules"]:
        even = timesteps(row["num_steps"], 1.0)[:-1]
        scheduler.set_timesteps(sigmas=even, mu=alpha_of(row))
        ours = timesteps(row["num_steps"], alpha_of(row))
        assert scheduler.sigmas.tolist() == pytest.approx(ours, abs=1e-6, rel=0)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.7326, 11.8721])
def test_times_fall_from_exactly_one_to_exactly_zero(alpha: float) -> None:
    """The network never sees a time beyond 1, and the last step ends on the clean latents."""
    times = timesteps(50, alpha)
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert all(time > following for time, following in pairwise(times))


def test_text_guidance_rests_at_odd_steps_from_the_eleventh_on() -> None:
    """Steps count from 0: the first without guidance is step 11."""
    stored = DATA["oscillation"]
    guidance = Guidance(text=stored["guidance"])
    assert [guidance.text_scale(step) for step in range(50)] == stored["gs"]
    steady = Guidance(text=7.5, text_oscillation=False)
    assert {steady.text_scale(step) for step in range(50)} == {7.5}


def test_image_guidance_grows_along_the_clip_and_fades_over_the_steps() -> None:
    """The authors' weights for 13 steps and 3 latent frames; at resting steps all are 1."""
    expected = reference("packing_conditions")["temporal_image_gs"]
    guidance = Guidance(image=3.0, image_oscillation=False)
    ours = torch.tensor([guidance.image_scales(step, 13, 3) for step in range(13)])
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    assert Guidance(image=3.0).image_scales(11, 13, 3) == [1.0, 1.0, 1.0]


def test_image_guidance_without_scaling_is_the_same_for_all_frames() -> None:
    """With and without oscillation."""
    guidance = Guidance(image=3.0, temporal_image_scaling=False)
    assert guidance.image_scales(10, 50, 3) == [3.0, 3.0, 3.0]
    assert guidance.image_scales(11, 50, 3) == [1.0, 1.0, 1.0]
    steady = Guidance(image=3.0, temporal_image_scaling=False, image_oscillation=False)
    assert steady.image_scales(11, 50, 3) == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", ["text", "image"])
def test_a_scale_below_one_is_refused_by_name(name: str) -> None:
    """It would push away from what was asked for."""
    with pytest.raises(ValueError, match=rf"guidance\.{name} must be at least 1"):
        Guidance(**{name: 0.5})


@pytest.mark.parametrize(
    ("arguments", "message"), [((0, 1.0), "num_steps"), ((4, 0.0), "alpha"), ((4, -1.0), "alpha")]
)
def test_a_schedule_without_steps_or_with_a_shift_that_is_none_is_refused(
    arguments: tuple[int, float], message: str
) -> None:
    """By name."""
    with pytest.raises(ValueError, match=message):
        timesteps(*arguments)
