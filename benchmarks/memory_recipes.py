"""What the memory plan says of cards of 12 to 80 GB: which mode fits which clip, and what streaming
moves over the bus.

Arithmetic of `deployments/core`, no count and no measurement; `benchmarks.memory_plan --recipes`
prints the tables of docs/memory.md, and `comments` are those of `config/recipes/`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deployments.core.checkpoints import Checkpoint
from deployments.core.config import ModelConfig
from deployments.core.memory import (
    GIB,
    ITEMSIZES,
    MODES,
    PLACEMENTS,
    Mode,
    Stored,
    fastest_mode,
    peak_gb,
    phases,
)
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.spec import ModelCard, VideoRequest, resolve
from deployments.mochi import Mochi
from deployments.opensora import OpenSora

CARDS_GB = (12, 16, 24, 48, 80)
# The driver's own part of a card; and the CUDA context of another model's process.
RESERVED_GB, CONTEXT_GB = 0.5, 0.5
# How the recipe of each card stores the transformers.
RECIPES: dict[int, Stored] = {
    12: "streamed",
    16: "streamed",
    24: "streamed",
    48: "resident",
    80: "resident",
}
IN_TURNS = PLACEMENTS[-1]
TITLES = {
    "all resident": PLACEMENTS[0],
    "text on the CPU": PLACEMENTS[1],
    "in turns": IN_TURNS,
    **{
        f"{stored}, in turns": IN_TURNS.model_copy(update={"transformer": stored})
        for stored in ("streamed", "fp8", "int8", "nf4")
    },
}
PLACES = ("all else resident", "text on the CPU", "in turns")
# What a bus of PCIe 4.0 with 16 lanes moves from page-locked memory; not measured here.
BUS_BYTES_S = 24e9


@dataclass(frozen=True)
class Family:
    """A model with its published networks, and the clips that the tables ask about.

    Attributes:
        largest: what a replica plans for when it starts.
        clips: each with `low_vram` or without.
        sizes: in pixels; how long a clip may be is asked of each.
    """

    name: str
    figures: ModelFigures
    backend: type[Mochi] | type[OpenSora]
    frame_step: int
    clips: tuple[tuple[Clip, bool], ...]
    sizes: tuple[tuple[int, int], ...]

    @property
    def largest(self) -> Clip:
        """The largest clip of the published checkpoint."""
        generation = self.backend.published.generation
        return Clip.largest(generation.native_area, generation.max_frames)

    def most_frames(self, size: tuple[int, int], fits: Callable[[Clip], bool]) -> int:
        """Return the length of the longest clip of this size that `fits`, 0 where none does."""
        longest = self.backend.published.generation.max_frames
        lengths = range(longest, 0, -self.frame_step)
        return next((frames for frames in lengths if fits(Clip(*size, frames))), 0)


FAMILIES = (
    Family(
        "mochi",
        MochiFigures(),
        Mochi,
        6,
        (
            (Clip(848, 480, 163), False),
            (Clip(848, 480, 163), True),
            (Clip(720, 720, 67), False),
            (Clip(720, 720, 163), False),
            (Clip(512, 512, 49), False),
        ),
        ((848, 480), (720, 720), (512, 512)),
    ),
    Family(
        "opensora",
        OpenSoraFigures(),
        OpenSora,
        4,
        (
            (Clip(1024, 576, 129), False),
            (Clip(1024, 576, 129), True),
            (Clip(720, 720, 65), False),
            (Clip(256, 256, 129), False),
        ),
        ((1024, 576), (720, 720), (256, 256)),
    ),
)


def print_recipes() -> None:
    """Print the tables of docs/memory.md."""
    for family in FAMILIES:
        titles = [f"{_name(clip)}{', low_vram' if low else ''}" for clip, low in family.clips]
        _print_head(f"{family.name}: denoise / decode, GB", *titles)
        for title, mode in TITLES.items():
            _print_row(title, *(_by_phase(family.figures, *case, mode) for case in family.clips))
        _print_head(f"{family.name}: card, GB", *titles)
        for card_gb in CARDS_GB:
            _print_row(str(card_gb), *(_on_card(family, *case, card_gb) for case in family.clips))
    _print_head("streamed", "GB a pass", "s a pass", "passes", "s a video", "hidden below, TFLOP/s")
    for family in FAMILIES:
        for clip, low in family.clips:
            if not low:
                _print_row(f"{family.name} {_name(clip)}", *_transfers(family, clip))
    _print_head("recipe, GB", "model", "mode", "size: most frames (with low_vram)")
    for card_gb in CARDS_GB:
        for family in FAMILIES:
            _print_row(str(card_gb), family.name, *_in_recipe(family, card_gb))


def comments(card_gb: int) -> Iterator[str]:
    """Yield the lines that say, in the recipe of a card, what it serves."""
    for family in FAMILIES:
        mode, sizes = _in_recipe(family, card_gb)
        yield f"# {family.name}: {mode}"
        yield f"#   most frames (with low_vram): {sizes}"


def _print_head(*titles: str) -> None:
    print()
    _print_row(*titles)
    print("|---" * len(titles) + "|")


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def _by_phase(figures: ModelFigures, clip: Clip, low_vram: bool, mode: Mode) -> str:
    taken = {phase.name: phase.total_gb for phase in phases(figures, clip, mode, low_vram=low_vram)}
    return f"{taken['denoise']:.1f} / {taken['decode']:.1f}"


def _on_card(family: Family, clip: Clip, low_vram: bool, card_gb: int) -> str:
    """Return the fastest mode that serves the clip with the published weights; where none does, how
    many of its frames the smallest does."""

    def fits(made: Clip, mode: Mode) -> bool:
        taken_gb = peak_gb(family.figures, made, mode, low_vram=low_vram)
        return taken_gb <= card_gb - RESERVED_GB

    for mode in MODES:
        if fits(clip, mode):
            return _mode_name(mode)
    smallest = MODES[-1]
    frames = family.most_frames((clip.width, clip.height), lambda made: fits(made, smallest))
    return f"{frames} frames {_mode_name(smallest)}" if frames else "-"


def _transfers(family: Family, clip: Clip) -> tuple[str, ...]:
    """Return what crosses the bus, and how fast a GPU must be for it to wait for that."""
    size = ITEMSIZES["bfloat16"] * family.figures.counts().transformer
    pass_s = size / BUS_BYTES_S
    work = family.figures.work(resolve(_request(clip), _card(family)))
    per_pass = work.denoise_flops / work.passes
    return (
        f"{size / GIB:.1f}",
        f"{pass_s:.2f}",
        str(work.passes),
        f"{work.passes * pass_s:.0f}",
        f"{per_pass / pass_s / 1e12:,.0f}",
    )


def _request(clip: Clip) -> VideoRequest:
    return VideoRequest(
        prompt="a fox", seed=0, width=clip.width, height=clip.height, num_frames=clip.num_frames
    )


def _card(family: Family) -> ModelCard:
    published = family.backend.published
    checkpoint = Checkpoint(
        source="", label=published.repo_id, bundled=False, generation=published.generation
    )
    return family.backend.card(ModelConfig(name=family.name), checkpoint)


def _in_recipe(family: Family, card_gb: int) -> tuple[str, str]:
    """Return the mode that the recipe of a card comes to, and what it serves."""
    available_gb = card_gb - RESERVED_GB - CONTEXT_GB
    mode = fastest_mode(family.figures, family.largest, available_gb, RECIPES[card_gb])

    def most(size: tuple[int, int], low_vram: bool) -> int:
        return family.most_frames(
            size,
            lambda clip: peak_gb(family.figures, clip, mode, low_vram=low_vram) <= available_gb,
        )

    sizes = (
        f"{width}x{height}: {most((width, height), False)} ({most((width, height), True)})"
        for width, height in family.sizes
    )
    return _mode_name(mode), ", ".join(sizes)


def _mode_name(mode: Mode) -> str:
    place = PLACES[PLACEMENTS.index(mode.model_copy(update={"transformer": "resident"}))]
    if mode.transformer == "resident":
        return "all resident" if mode == PLACEMENTS[0] else place
    return f"{mode.transformer}, {place}"


def _name(clip: Clip) -> str:
    return f"{clip.width}x{clip.height}x{clip.num_frames}"
