import itertools

import pytest
from pydantic import ValidationError

from deployments.core.errors import InvalidRequest
from deployments.core.spec import (
    MAX_SEED,
    ModelCard,
    VideoRequest,
    VideoSpec,
    generated_size,
    random_seed,
    resolve,
    split_segments,
)

TINY = 128 * 128
PUBLISHED = 848 * 480


def card(name: str = "mochi", **changes: object) -> ModelCard:
    values = {
        "name": name,
        "checkpoint": "mochi-tiny",
        "bundled": True,
        "native_area": TINY,
        "max_frames": 163,
        "frame_step": 6,
        "accepts_image": False,
        "num_inference_steps": 20,
        "guidance_scale": 4.0,
    }
    return ModelCard.model_validate(values | changes)


def request(**changes: object) -> VideoRequest:
    return VideoRequest.model_validate({"prompt": "a red ball", "seed": 1} | changes)


def test_defaults_are_those_of_the_api_reference() -> None:
    """720 x 720, 64 frames, 24 fps, any model, no low VRAM."""
    asked = request()
    assert (asked.width, asked.height, asked.num_frames, asked.fps) == (720, 720, 64, 24)
    assert (asked.prefer_backend, asked.low_vram, asked.quality) == ("auto", False, "exact")


def test_resolve_fills_every_default_from_the_card() -> None:
    """A spec has no None left in it."""
    spec = resolve(request(), card())
    assert None not in spec.model_dump().values()
    assert (spec.num_inference_steps, spec.guidance_scale) == (20, 4.0)


def test_resolve_keeps_what_the_user_set() -> None:
    """The card fills gaps, it overrides nothing."""
    spec = resolve(request(num_inference_steps=7, guidance_scale=1.0), card())
    assert (spec.num_inference_steps, spec.guidance_scale) == (7, 1.0)


def test_resolve_names_the_most_frames_a_model_makes() -> None:
    """More frames than the model can: the message holds the limit."""
    with pytest.raises(InvalidRequest, match="mochi makes at most 163"):
        resolve(request(num_frames=240), card())


def test_an_image_is_refused_by_a_model_that_takes_none() -> None:
    """No silent fall-back to text only."""
    with pytest.raises(InvalidRequest, match="image: mochi"):
        resolve(request(has_image=True), card())


def test_a_quality_that_a_model_lacks_is_refused_with_those_it_has() -> None:
    """What cannot be honoured is refused."""
    with pytest.raises(InvalidRequest, match="mochi has no draft mode; it has exact and fast"):
        resolve(request(quality="draft"), card(fast_threshold=0.1))
    with pytest.raises(InvalidRequest, match="mochi has no fast mode; it has exact and draft"):
        resolve(request(quality="fast"), card(draft_steps=8))


def test_draft_takes_the_draft_steps() -> None:
    """`quality: draft` is a number of steps of the model's own."""
    spec = resolve(request(quality="draft"), card(draft_steps=8))
    assert (spec.num_inference_steps, spec.guidance_scale) == (8, 4.0)
    assert resolve(request(), card(draft_steps=8)).num_inference_steps == 20


def test_a_draft_of_another_checkpoint_has_that_ones_settings() -> None:
    """And says whose it is: the recipe holds the checkpoint."""
    distilled = card(draft_steps=8, draft_guidance_scale=1.5, draft_checkpoint="fast-mochi")
    spec = resolve(request(quality="draft"), distilled)
    assert (spec.checkpoint, spec.guidance_scale) == ("fast-mochi", 1.5)
    assert resolve(request(), distilled).checkpoint == "mochi-tiny"


def test_the_recipe_of_a_fast_video_holds_its_threshold() -> None:
    """It decides on the bits; others have none."""
    quick = card(fast_threshold=0.12)
    assert resolve(request(quality="fast"), quick).fast_threshold == 0.12
    assert resolve(request(), quick).fast_threshold == 0.0


def test_more_than_full_hd_is_refused() -> None:
    """1920 on both sides is within the sides' limits but over the area."""
    with pytest.raises(InvalidRequest, match="1920 x 1080"):
        resolve(request(width=1920, height=1920), card())


@pytest.mark.parametrize("side", [255, 248, 1928, 257, 300])
def test_sides_outside_the_grid_are_refused(side: int) -> None:
    """256-1920 in steps of 8."""
    with pytest.raises(ValidationError):
        request(width=side)


def test_a_wrong_side_names_the_nearest_right_ones() -> None:
    """The message says what would do."""
    with pytest.raises(ValidationError, match="nearest are 296 and 304"):
        request(width=300)


@pytest.mark.parametrize("native_area", [TINY, PUBLISHED])
def test_generated_sizes_are_patches_within_the_native_area_at_the_same_aspect(
    native_area: int,
) -> None:
    """Every size of the API maps to 16-multiples that the network can make."""
    sides = [*range(256, 1921, 104), 264, 1080, 1920]
    for width, height in itertools.product(sides, sides):
        made = generated_size(width, height, native_area)
        assert made[0] % 16 == 0
        assert made[1] % 16 == 0
        assert made[0] * made[1] <= 1.35 * native_area
        stretch = (made[0] / made[1]) / (width / height)
        assert 0.7 < stretch < 1.43, (width, height, made)


def test_up_to_the_native_area_sizes_are_only_rounded_up() -> None:
    """264 x 360 is made at 272 x 368 and cropped; 720 x 720 is close enough to native."""
    assert generated_size(264, 360, PUBLISHED) == (272, 368)
    assert generated_size(720, 720, PUBLISHED) == (720, 720)
    assert generated_size(1920, 1080, PUBLISHED) == (848, 480)


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (7, 7), (8, 13), (64, 67), (163, 163)])
def test_frames_are_generated_in_whole_latent_groups(asked: int, made: int) -> None:
    """Mochi makes 6k + 1 frames; the rest is trimmed."""
    assert split_segments(asked, 6, 163) == (1, made)


@pytest.mark.parametrize("longest", [37, 129])
def test_a_long_clip_is_made_of_as_few_equal_segments_as_will_do(longest: int) -> None:
    """Joined, they hold every frame that was asked for, and less than a step more of each."""
    for asked in range(8, 241):
        segments, frames = split_segments(asked, 4, longest)
        assert frames % 4 == 1
        assert frames <= longest
        joined = frames + (segments - 1) * (frames - 1)
        assert asked <= joined < asked + 4 * segments
        assert (segments - 1) * (longest - 1) + 1 < asked, "one segment fewer would do"


def test_a_clip_beyond_one_segment_takes_more_steps() -> None:
    """The spec says how the clip is put together; shorter ones are as they always were."""
    long = card("opensora", max_frames=240, frame_step=4, segment_frames=129)
    spec = resolve(request(num_frames=240), long)
    assert (spec.segments, spec.generated_frames, spec.total_steps) == (2, 121, 40)
    spec = resolve(request(num_frames=129), long)
    assert (spec.segments, spec.generated_frames, spec.total_steps) == (1, 129, 20)


def test_a_spec_from_before_there_were_images_can_be_read() -> None:
    """Old rows of the job table stay readable."""
    old = resolve(request(), card()).model_dump(exclude={"conditioned", "segments"})
    spec = VideoSpec.model_validate(old)
    assert (spec.conditioned, spec.segments) == (False, 1)


@pytest.mark.parametrize("frames", [128, 1, 4])
def test_a_segment_is_a_length_that_the_model_makes(frames: int) -> None:
    """4k + 1, and more than the frame that is repeated."""
    with pytest.raises(ValidationError, match="segment_frames"):
        card(frame_step=4, segment_frames=frames)


def test_random_seeds_stay_in_range() -> None:
    """0 to 2**32 - 1."""
    assert all(0 <= random_seed() <= MAX_SEED for _ in range(100))
