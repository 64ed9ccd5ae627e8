"""The settings nearest to a request that fit into the memory there is: what a refusal may name."""

from collections.abc import Iterator

from pydantic import Field

from deployments.core.errors import InvalidRequest
from deployments.core.memory import Mode, need_gb
from deployments.core.networks.model import ModelFigures
from deployments.core.spec import (
    MIN_SIDE,
    SIDE_STEP,
    Frozen,
    ModelCard,
    VideoRequest,
    VideoSpec,
    request_again,
    resolve,
)

FEWEST_FRAMES = 8


class Size(Frozen):
    """A size of frames, in pixels, as the API takes it."""

    width: int
    height: int


class Nearest(Frozen):
    """What fits in a request's place; each changes one setting only and leaves the others."""

    low_vram: bool = Field(description="Whether the request fits as it is with `low_vram`.")
    num_frames: int | None = Field(description="Most frames below those asked, if any fit.")
    size: Size | None = Field(
        description="Largest size below the one asked, of about its aspect, if any fits."
    )

    @property
    def sentence(self) -> str:
        """The same in words."""
        ways = ["with low_vram"] if self.low_vram else []
        if self.num_frames is not None:
            ways.append(f"with at most {self.num_frames} frames")
        if self.size is not None:
            ways.append(f"at {self.size.width}x{self.size.height}")
        if not ways:
            return "No shorter or smaller video fits either."
        return f"It would fit {', or '.join(ways)}."


def nearest_that_fit(
    request: VideoRequest,
    card: ModelCard,
    figures: ModelFigures,
    mode: Mode,
    available_gb: float,
) -> Nearest:
    """Return what may be changed in `request` so that it fits into `available_gb`."""

    def fits(**changed: int | bool) -> bool:
        changed_request = request.model_copy(update=changed)
        try:
            return need_gb(figures, resolve(changed_request, card), mode) <= available_gb
        except InvalidRequest:
            return False

    shorter = range(request.num_frames - 1, FEWEST_FRAMES - 1, -1)
    smaller = _smaller_sizes(request.width, request.height)
    return Nearest(
        low_vram=fits(low_vram=True),
        num_frames=next((count for count in shorter if fits(num_frames=count)), None),
        size=next((size for size in smaller if fits(width=size.width, height=size.height)), None),
    )


def nearest_to(
    spec: VideoSpec, card: ModelCard, figures: ModelFigures, mode: Mode, available_gb: float
) -> Nearest:
    """Return what may be changed in the request that became `spec`; see `nearest_that_fit`."""
    return nearest_that_fit(request_again(spec.prompt, spec), card, figures, mode, available_gb)


def _smaller_sizes(width: int, height: int) -> Iterator[Size]:
    """Yield the sizes of about the same aspect below the given one, the largest first."""
    for longer in range(max(width, height) - SIDE_STEP, MIN_SIDE - 1, -SIDE_STEP):
        exact = longer * min(width, height) / max(width, height)
        shorter = round(exact / SIDE_STEP) * SIDE_STEP
        if shorter < MIN_SIDE:
            return
        yield Size(
            width=longer if width >= height else shorter,
            height=shorter if width >= height else longer,
        )
