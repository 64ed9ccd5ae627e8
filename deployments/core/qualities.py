"""What each quality changes, in words: before it is chosen, and in the job."""

from dataclasses import dataclass

from deployments.core.spec import ModelCard, Quality, VideoSpec


@dataclass
class Reuse:
    """How many passes through the transformer a job has made, and how many of them reused."""

    passes: int = 0
    reused: int = 0

    def add(self, passes: int, reused: int) -> None:
        """Count some more."""
        self.passes += passes
        self.reused += reused


def describe(card: ModelCard) -> dict[Quality, str]:
    """Return the qualities that a model has, and a sentence on what each means there."""
    sentences: dict[Quality, str] = {
        "exact": f"All {card.num_inference_steps} steps in full.",
        "fast": (
            f"All {card.num_inference_steps} steps, but a pass that begins much like the last one "
            f"reuses most of it (threshold {card.fast_threshold})."
        ),
        "draft": f"{_draft(card, card.draft_steps or 0)}: quick and rough.",
    }
    return {quality: sentences[quality] for quality in card.qualities}


def fast_notice(spec: VideoSpec, made: Reuse) -> str:
    """Say in a fast job what was left out."""
    return (
        f"Fast: {made.reused} of {made.passes} passes reused most of the last one "
        f"(threshold {spec.fast_threshold})."
    )


def draft_notice(spec: VideoSpec, card: ModelCard) -> str:
    """Say in a draft what it is."""
    return f"Draft: {_draft(card, spec.num_inference_steps)}."


def _draft(card: ModelCard, steps: int) -> str:
    if card.draft_checkpoint:
        return f"{steps} steps of {card.draft_checkpoint}"
    return f"{steps} steps instead of {card.num_inference_steps}"
