"""What the memory plan says of cards of 12 to 80 GB: which mode fits which clip.

Arithmetic of `deployments/core`, no count and no measurement; `benchmarks.memory_plan --recipes`
prints it.
"""

from dataclasses import dataclass

from deployments.core.memory import Mode, peak_gb, phases
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip, ModelFigures

CARDS_GB = (12, 16, 24, 48, 80)
# The driver's own part of a card.
RESERVED_GB = 0.5
# From fast to slow; those that no replica runs yet carry a star.
TODAY = {
    "all resident": Mode(),
    "text on the CPU": Mode(text_on_gpu=False),
    "in turns": Mode(text_on_gpu=False, take_turns=True),
}
PLANNED = {
    "fp8*": Mode(text_on_gpu=False, take_turns=True, transformer="fp8"),
    "streamed*": Mode(text_on_gpu=False, take_turns=True, transformer="streamed"),
}


@dataclass(frozen=True)
class Family:
    """A model with its published networks, and the clips that the table asks about."""

    name: str
    figures: ModelFigures
    frame_step: int
    clips: tuple[tuple[Clip, bool], ...]  # with `low_vram` or without


FAMILIES = (
    Family(
        "mochi",
        MochiFigures(),
        6,
        (
            (Clip(848, 480, 163), False),
            (Clip(720, 720, 67), False),
            (Clip(720, 720, 163), False),
            (Clip(512, 512, 49), False),
        ),
    ),
    Family(
        "opensora",
        OpenSoraFigures(),
        4,
        (
            (Clip(1024, 576, 129), False),
            (Clip(1024, 576, 129), True),
            (Clip(720, 720, 65), False),
            (Clip(336, 192, 129), False),
        ),
    ),
)


def print_recipes() -> None:
    """Print what each clip takes in each mode, by phase, and which mode serves it on each card."""
    for family in FAMILIES:
        titles = [f"{_name(clip)}{', low_vram' if low else ''}" for clip, low in family.clips]
        for first in ("denoise / decode, GB", "card, GB"):
            print(f"\n| {family.name}: {first} | {' | '.join(titles)} |")
            print("|---" * (len(titles) + 1) + "|")
            if first == "card, GB":
                for card_gb in CARDS_GB:
                    cells = [_on_card(family, *case, card_gb) for case in family.clips]
                    print(f"| {card_gb} | {' | '.join(cells)} |")
                continue
            for title, mode in (TODAY | PLANNED).items():
                cells = [_by_phase(family.figures, *case, mode) for case in family.clips]
                print(f"| {title} | {' | '.join(cells)} |")


def _by_phase(figures: ModelFigures, clip: Clip, low_vram: bool, mode: Mode) -> str:
    taken = {phase.name: phase.total_gb for phase in phases(figures, clip, mode, low_vram=low_vram)}
    return f"{taken['denoise']:.1f} / {taken['decode']:.1f}"


def _on_card(family: Family, clip: Clip, low_vram: bool, card_gb: int) -> str:
    """Return the fastest mode that serves the clip; where none of today's does, how many of its
    frames the smallest of them does, and the fastest planned one."""

    def fits(num_frames: int, mode: Mode) -> bool:
        made = Clip(clip.width, clip.height, num_frames)
        taken_gb = peak_gb(family.figures, made, mode, low_vram=low_vram)
        return taken_gb <= card_gb - RESERVED_GB

    for title, mode in TODAY.items():
        if fits(clip.num_frames, mode):
            return title
    title, mode = list(TODAY.items())[-1]
    lengths = range(clip.num_frames, 1, -family.frame_step)
    partly = [f"{n} frames {title}" for n in lengths if fits(n, mode)][:1]
    planned = [title for title, mode in PLANNED.items() if fits(clip.num_frames, mode)][:1]
    return "; ".join(partly + planned) or "-"


def _name(clip: Clip) -> str:
    return f"{clip.width}x{clip.height}x{clip.num_frames}"
