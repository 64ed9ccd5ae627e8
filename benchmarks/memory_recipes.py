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
MODES = {
    "all resident": Mode(),
    "text on CPU": Mode(text_on_gpu=False),
    "in turns": Mode(text_on_gpu=False, take_turns=True),
    "fp8, in turns": Mode(text_on_gpu=False, take_turns=True, transformer="fp8"),
    "streamed, in turns": Mode(text_on_gpu=False, take_turns=True, transformer="streamed"),
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
    """Print what each clip takes in each mode, by phase, and the longest clip of each card."""
    for family in FAMILIES:
        print(f"\n{family.name}: GB to denoise / to decode, overhead included\n")
        titles = [f"{_name(clip)}{' low_vram' if low else ''}" for clip, low in family.clips]
        print(f"| mode | {' | '.join(titles)} |")
        print("|---" * (len(titles) + 1) + "|")
        for title, mode in MODES.items():
            cells = [_by_phase(family.figures, clip, mode, low) for clip, low in family.clips]
            print(f"| {title} | {' | '.join(cells)} |")
        print(f"\n{family.name}: most frames at the size of the clip, by card\n")
        print(f"| card, GB | mode | {' | '.join(titles)} |")
        print("|---" * (len(titles) + 2) + "|")
        for card in CARDS_GB:
            for title, mode in MODES.items():
                cells = [_most_frames(family, clip, mode, low, card) for clip, low in family.clips]
                if any(cell != "-" for cell in cells):
                    print(f"| {card} | {title} | {' | '.join(cells)} |")


def _by_phase(figures: ModelFigures, clip: Clip, mode: Mode, low_vram: bool) -> str:
    taken = {phase.name: phase.total_gb for phase in phases(figures, clip, mode, low_vram=low_vram)}
    return f"{taken['denoise']:.1f} / {taken['decode']:.1f}"


def _most_frames(family: Family, clip: Clip, mode: Mode, low_vram: bool, card_gb: int) -> str:
    """Return the most frames, up to those of `clip`, that fit on the card; "-" for none."""
    for num_frames in range(clip.num_frames, 0, -family.frame_step):
        shorter = Clip(clip.width, clip.height, num_frames)
        need_gb = peak_gb(family.figures, shorter, mode, low_vram=low_vram)
        if need_gb <= card_gb - RESERVED_GB:
            return str(num_frames)
    return "-"


def _name(clip: Clip) -> str:
    return f"{clip.width}x{clip.height}x{clip.num_frames}"
