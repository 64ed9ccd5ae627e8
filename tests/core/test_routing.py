"""Which models may make a request, why, and what is said when none can."""

import pytest

from deployments.core.errors import BackendUnavailable, InvalidRequest
from deployments.core.routing import Route, first_free, route
from deployments.core.spec import ModelCard, VideoRequest
from tests.core.test_spec import card, request

MOCHI = card("mochi")
OPENSORA = card(
    "opensora",
    max_frames=240,
    frame_step=4,
    segment_frames=129,
    accepts_image=True,
    draft_steps=8,
    fast_threshold=0.1,
)
BOTH = [MOCHI, OPENSORA]


def test_every_model_that_can_is_a_candidate_in_configured_order() -> None:
    """Which of them it will be is decided when one is free; until then there is no reason."""
    assert route(request(), BOTH) == Route(("mochi", "opensora"), "")
    assert route(request(), BOTH[::-1]).models == ("opensora", "mochi")
    assert first_free(("mochi", "opensora")) == "first of mochi, opensora that was free"


def test_a_single_model_is_its_own_reason() -> None:
    """Nothing was chosen."""
    assert route(request(), [MOCHI]) == Route(("mochi",), "mochi is the only model here")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(has_image=True), "image given: opensora makes videos from images"),
        (request(num_frames=240), "240 frames: more than mochi's 163"),
        (request(num_frames=164), "164 frames: more than mochi's 163"),
        (request(quality="draft"), "mochi has no draft mode"),
        (request(quality="fast"), "mochi has no fast mode"),
    ],
)
def test_what_mochi_cannot_do_goes_to_opensora(asked: VideoRequest, reason: str) -> None:
    """An image, or a long clip; the reason says which."""
    assert route(asked, BOTH) == Route(("opensora",), reason)


def test_a_demo_checkpoint_does_not_stand_in_for_real_weights() -> None:
    """Where one model has its published weights, the other's drawings are only for those who ask
    for them, or for what nothing else can make."""
    demo = OPENSORA.model_copy(update={"bundled": True})
    cards = [MOCHI.model_copy(update={"bundled": False}), demo]
    assert route(request(), cards) == Route(("mochi",), "opensora has its demo checkpoint only")
    assert route(request(prefer_backend="opensora"), cards).models == ("opensora",)
    assert route(request(has_image=True), cards).models == ("opensora",)
    assert route(request(), [MOCHI.model_copy(update={"bundled": True}), demo]).models == (
        "mochi",
        "opensora",
    )


def test_several_models_that_take_images_share_a_reason() -> None:
    """One sentence for all of them."""
    second = card("second", accepts_image=True)
    way = route(request(has_image=True), [MOCHI, OPENSORA, second])
    assert way.models == ("opensora", "second")
    assert way.reason == "image given: opensora and second make videos from images"


def test_a_preferred_model_is_the_only_candidate() -> None:
    """Also when another could."""
    for name in ("mochi", "opensora"):
        way = route(request(prefer_backend=name), BOTH)
        assert way == Route((name,), "prefer_backend")


@pytest.mark.parametrize(
    ("changes", "cards", "sentence"),
    [
        ({"prefer_backend": "mochi"}, BOTH, "mochi makes at most 163; opensora makes up to 240"),
        ({"prefer_backend": "mochi"}, [MOCHI], "mochi makes at most 163"),
        ({}, [MOCHI], "mochi makes at most 163"),
        ({}, [card("longer", max_frames=200), MOCHI], "longer makes at most 200"),
        (
            {},
            [MOCHI, card("longer", max_frames=200)],
            "mochi makes at most 163; longer makes up to 200",
        ),
        ({"has_image": True}, [MOCHI, card("pic", accepts_image=True)], "pic makes at most 163"),
    ],
)
def test_too_many_frames_are_refused_with_what_can(
    changes: dict[str, object], cards: list[ModelCard], sentence: str
) -> None:
    """The text names the limit, and the model that makes more, if there is one."""
    with pytest.raises(InvalidRequest) as refused:
        route(request(num_frames=240, **changes), cards)
    assert str(refused.value) == f"num_frames: 240 frames: {sentence}"


@pytest.mark.parametrize(
    ("cards", "instead"),
    [
        (BOTH, "leave the image out, or take opensora"),
        ([MOCHI], "leave the image out"),
        ([OPENSORA], "leave the image out"),
    ],
)
def test_mochi_with_an_image_is_refused_always(cards: list[ModelCard], instead: str) -> None:
    """Also where it is not configured: no configuration would make it work."""
    with pytest.raises(InvalidRequest) as refused:
        route(request(prefer_backend="mochi", has_image=True), cards)
    assert str(refused.value) == f"image: mochi makes videos from text only; {instead}"


def test_an_image_without_a_model_for_it_is_refused() -> None:
    """`auto` does not fall back to the text alone."""
    with pytest.raises(InvalidRequest, match="image: mochi makes videos from text only"):
        route(request(has_image=True), [MOCHI])


def test_a_preferred_model_that_is_not_configured_is_unavailable() -> None:
    """The API's name is right, but this installation has not got it."""
    with pytest.raises(BackendUnavailable, match="opensora is not configured here; there is mochi"):
        route(request(prefer_backend="opensora", has_image=True), [MOCHI])
