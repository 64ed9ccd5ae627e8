"""The drawn world: deterministic, captioned truly, and honest about what is held out."""

import numpy as np
import pytest

from training.captions import caption, plain_prompt, training_caption
from training.render import path, render
from training.scenes import (
    BACKGROUNDS,
    COLOURS,
    MOTIONS,
    PLAIN,
    SHAPES,
    Scene,
    draw_scene,
    draw_thing,
    draw_training_scene,
    held_out_combinations,
    is_held_out,
)


def test_a_seed_draws_the_same_clip_again() -> None:
    """Scene, caption and pixels depend on the seed alone."""
    clips = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        scene = draw_training_scene(rng)
        clips.append((scene, caption(rng, scene), render(scene, 64, 96, 7)))
    assert clips[0][:2] == clips[1][:2]
    np.testing.assert_array_equal(clips[0][2], clips[1][2])


def test_held_out_combinations_are_never_drawn_in_training() -> None:
    """4,000 scenes draw none of the about ten percent that are held out."""
    rng = np.random.default_rng(0)
    for _ in range(4000):
        scene = draw_training_scene(rng)
        if (thing := scene.thing) is not None:
            assert not is_held_out(thing.colour, thing.shape, thing.motion, scene.background)


def test_about_one_combination_in_ten_is_held_out_and_every_word_still_trained() -> None:
    """Held out are combinations, not words: each word stays in nine tenths of its uses."""
    held_out = held_out_combinations()
    total = len(COLOURS) * len(SHAPES) * len(MOTIONS) * len(BACKGROUNDS)
    assert 0.08 < len(held_out) / total < 0.13
    for axis, words in enumerate((COLOURS, SHAPES, MOTIONS, BACKGROUNDS)):
        for word in words:
            share = sum(combination[axis] == word for combination in held_out)
            assert share / (total / len(words)) < 0.25


@pytest.mark.parametrize("motion", MOTIONS)
def test_objects_stay_inside_and_cross_a_quarter_of_the_frame(motion: str) -> None:
    """In any clip of 19 frames or more, in any aspect ratio."""
    rng = np.random.default_rng(1)
    for aspect in ((1.0, 1.0), (1.0, 1.8), (1.8, 1.0)):
        thing = draw_thing(rng, "red", "ball", motion)
        way = path(thing, aspect, 25)
        assert (way - thing.radius >= 0.03).all()
        assert (way + thing.radius <= np.array(aspect) - 0.03).all()
        travelled = np.abs(way[-1] - way[0]) / np.array(aspect)
        if motion in ("left", "right", "up", "down"):
            axis = 1 if motion in ("left", "right") else 0
            assert travelled[axis] > 0.25
            assert travelled[1 - axis] == pytest.approx(0, abs=1e-6)
        if motion == "still":
            assert travelled.max() == pytest.approx(0, abs=1e-6)


def test_a_caption_names_what_is_drawn() -> None:
    """Colour and plain background are always told in the same words."""
    rng = np.random.default_rng(2)
    for _ in range(300):
        scene = draw_training_scene(rng)
        text = caption(rng, scene)
        if scene.thing is not None:
            assert scene.thing.colour in text
        if scene.background in PLAIN:
            assert f"{scene.background} background" in text


def test_one_caption_in_ten_is_empty() -> None:
    """Guidance needs a model that also knows the unconditional case."""
    rng = np.random.default_rng(3)
    scene = draw_scene(rng, background="sea")
    empty = sum(not training_caption(rng, scene) for _ in range(2000))
    assert 150 < empty < 250


def test_an_evaluation_prompt_reads_as_a_user_would_type_it() -> None:
    """One fixed form: subject, motion, background, sky."""
    thing = draw_thing(np.random.default_rng(0), "orange", "ball", "bouncing")
    assert plain_prompt(Scene("sea", "night", thing)) == (
        "an orange ball bouncing over the sea at night"
    )
    assert plain_prompt(Scene("teal", None, thing)) == (
        "an orange ball bouncing on a teal background"
    )
