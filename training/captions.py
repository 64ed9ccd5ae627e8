"""Words for a scene: several forms of caption for what is drawn, and nothing that is not."""

from typing import Final

import numpy as np

from training.scenes import PLAIN, Scene, Thing

SHAPE_WORDS: Final = {
    "ball": ("ball", "ball", "circle"),
    "square": ("square", "square", "box"),
    "triangle": ("triangle",),
}
MOTION_WORDS: Final = {
    "left": ("moving left", "moving to the left", "going left", "flying left", "sliding left"),
    "right": (
        "moving right",
        "moving to the right",
        "going right",
        "flying right",
        "sliding right",
    ),
    "up": ("moving up", "going up", "rising", "moving upward", "flying up"),
    "down": ("moving down", "going down", "falling", "moving downward", "sinking"),
    "bouncing": ("bouncing", "bouncing up and down", "jumping"),
    "still": ("standing still", "not moving", "resting", ""),
}
PLACE_WORDS: Final = {
    "sea": ("the sea", "the ocean", "a calm sea", "the open ocean"),
    "lake": ("a lake", "the lake", "a serene lake", "a quiet lake"),
    "mountains": ("the mountains", "mountains", "a mountain landscape"),
    "meadow": ("a meadow", "a green meadow", "a grass field", "the meadow"),
    "desert": ("the desert", "a desert", "a sandy desert"),
    "forest": ("a forest", "the forest", "the woods"),
    "city": ("the city", "a city", "a city street"),
    "snow": ("snow", "a snowy field", "the snow", "a winter landscape"),
}
SKY_WORDS: Final = {
    "noon": ("at noon", "at noon", "under a blue sky", "on a sunny day", "in daylight", ""),
    "sunset": ("at sunset", "at sunset", "at dusk", "in the evening", "under a sunset sky"),
    "night": ("at night", "at night", "under a dark sky", "by moonlight", "under the stars"),
}
OPENINGS: Final = ("a video of ", "a clip of ", "there is ", "we see ", "a shot of ")
PRAISE: Final = ("beautiful", "serene", "calm", "stunning", "peaceful", "wide")
ENDINGS: Final = (", cinematic", ", high quality", ", 4k", ", in a simple style", ", animation")

# Words without a meaning in this world; seen now and then, so that any text is taken calmly.
_UNKNOWN: Final = (
    "cat dog bird fish horse car train tree house child woman man people robot dragon yarn "
    "playing running walking dancing drinking reading through near slowly quickly gently and "
    "very old young wooden golden dramatic light camera zoom lens detailed realistic style "
    "of for it its they while behind under into from time summer spring autumn river road "
    "bridge flower garden kitchen table coffee book guitar music happy sad waves sand fog "
    "storm mist reflection silhouette landscape scenic aerial view close portrait macro"
)
UNKNOWN_WORDS: Final = tuple(_UNKNOWN.split())


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[int(rng.integers(len(words)))]


def _thing_words(rng: np.random.Generator, thing: Thing) -> str:
    noun = f"{thing.colour} {_pick(rng, SHAPE_WORDS[thing.shape])}"
    size = ""
    if rng.uniform() < 0.3:
        size = "big " if thing.radius > 0.22 else "small " if thing.radius < 0.205 else "bright "
    article = "an" if not size and noun.startswith("orange") else "a"
    if rng.uniform() < 0.1:
        article = "the"
    phrase = f"{article} {size}{noun}"
    motion = _pick(rng, MOTION_WORDS[thing.motion])
    if motion and rng.uniform() < 0.12:
        return f"{phrase} is {motion}"
    return f"{phrase} {motion}".strip()


def _place_words(rng: np.random.Generator, scene: Scene, *, bare: bool) -> str:
    """Where it happens, led by a preposition unless `bare`."""
    if scene.background in PLAIN:
        return _pick(rng, ("on a ", "on a ", "against a ", "in front of a ")) + (
            f"{scene.background} background"
        )
    place = _pick(rng, PLACE_WORDS[scene.background])
    if bare and rng.uniform() < 0.3 and place.startswith("a "):
        place = f"a {_pick(rng, PRAISE)} {place[2:]}"
    return place if bare else f"{_pick(rng, ('over', 'over', 'above', 'in front of'))} {place}"


def _extras_words(rng: np.random.Generator, scene: Scene) -> list[str]:
    words = []
    if scene.mountains:
        words.append(_pick(rng, ("mountains", "mountains in the background", "tall mountains")))
    if scene.clouds:
        words.append(_pick(rng, ("clouds", "clouds in the sky", "a cloudy sky")))
    if scene.boat:
        words.append(_pick(rng, ("a boat", "a sailing boat", "a small boat")))
    if scene.sun and scene.thing is not None:
        words.append("the moon" if scene.sky == "night" else "the sun")
    elif scene.sun and scene.sky != "sunset" and rng.uniform() < 0.5:
        words.append("a full moon" if scene.sky == "night" else "a bright sun")
    return [words[i] for i in rng.permutation(len(words))]


def _view_words(rng: np.random.Generator, scene: Scene, sky: str) -> str:
    """A scene without an object: the view itself is the subject."""
    place = _place_words(rng, scene, bare=True)
    form = rng.uniform()
    if scene.sky == "sunset" and form < 0.25:
        return f"a {_pick(rng, PRAISE)} sunset over {place}"
    if scene.sky == "night" and form < 0.15:
        return f"a {_pick(rng, PRAISE)} night over {place}"
    if sky and form > 0.85:
        return f"{sky}, {place}"
    return f"{place} {sky}".strip()


def caption(rng: np.random.Generator, scene: Scene) -> str:
    """One of many captions that describe this scene truly."""
    sky = _pick(rng, SKY_WORDS[scene.sky]) if scene.sky else ""
    if scene.thing is None:
        text = _view_words(rng, scene, sky)
    else:
        thing = _thing_words(rng, scene.thing)
        place = _place_words(rng, scene, bare=False)
        form = rng.uniform()
        if form < 0.7:
            text = f"{thing} {place} {sky}".strip()
        elif form < 0.85:
            text = f"{place} {sky}".strip() + f", {thing}"
        else:
            text = f"{sky}, {thing} {place}" if sky else f"{thing} {place}"
    if extras := _extras_words(rng, scene):
        text += " with " + " and ".join(extras)
    if rng.uniform() < 0.12:
        text = _pick(rng, OPENINGS) + text
    if rng.uniform() < 0.12:
        text += _pick(rng, ENDINGS)
    elif rng.uniform() < 0.15:
        text += "."
    return text


def training_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption as training sees it: 10 % empty (guidance), 6 % with words to be ignored."""
    chance = rng.uniform()
    if chance < 0.1:
        return ""
    text = caption(rng, scene)
    if chance < 0.16:
        words = text.split()
        for _ in range(int(rng.integers(1, 4))):
            words.insert(int(rng.integers(len(words) + 1)), _pick(rng, UNKNOWN_WORDS))
        text = " ".join(words)
    return text


def plain_prompt(scene: Scene) -> str:
    """The caption used for evaluation: one fixed form, as a user would type it."""
    thing = scene.thing
    if thing is None:
        raise ValueError("an evaluation prompt names an object")
    article = "an" if thing.colour == "orange" else "a"
    motion = {"bouncing": "bouncing", "still": "standing still"}.get(
        thing.motion, f"moving {thing.motion}"
    )
    subject = f"{article} {thing.colour} {thing.shape} {motion}"
    if scene.sky is None:
        return f"{subject} on a {scene.background} background"
    return f"{subject} over {PLACE_WORDS[scene.background][0]} at {scene.sky}"
