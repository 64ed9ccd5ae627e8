"""What a request would take, before anybody makes it: which model, how much memory, how long."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from deployments.core.errors import InsufficientVram
from deployments.core.events import ABLE, ModelState, ReplicaState
from deployments.core.loras import NO_LORAS, Stock
from deployments.core.memory import MODES, MemoryPlan, Placement, plan
from deployments.core.memory_fit import Nearest, nearest_that_fit
from deployments.core.networks.model import ModelFigures
from deployments.core.routing import route
from deployments.core.spec import Frozen, ModelCard, VideoRequest, VideoSpec, resolve

Figures = Mapping[str, ModelFigures]
"""By the model's name; a model of which nothing is known is left out."""


class Times(Frozen):
    """About how long, in seconds; None while nobody can say."""

    start_s: float | None = Field(default=None, description="Until a model would begin.")
    make_s: float | None = Field(default=None, description="From then until the file is there.")


class Candidate(Frozen):
    """A model that may make the video, and how the video fits into its memory.

    Attributes:
        state: `ready` or `unloaded` where one of its replicas is; `loading` before one was heard
            of.
        device: what its replicas run on.
        placement: of the replica where it fits worst, as any may get it; None on the CPU, and while
            no replica has told.
        plan: of that replica; without one, of a GPU that holds all networks. None where nothing is
            known of the model.
    """

    state: ModelState
    device: Literal["cpu", "gpu", "unknown"]
    spec: VideoSpec
    placement: Placement | None
    plan: MemoryPlan | None

    @property
    def fits(self) -> bool | None:
        """Whether the GPU has the memory; None where there is nothing to compare."""
        if self.placement is None or self.plan is None:
            return None
        return self.plan.peak_gb <= self.placement.available_gb


class Outlook(Frozen):
    """What a request would take.

    Attributes:
        candidates: the models that may make it, in configured order.
        reason: why those.
        chosen: of those that can take it and have the memory the one that is free first, else the
            first.
        nearest: what would fit in place of the request, where `chosen` has too little memory.
        times: of `chosen`.
    """

    candidates: tuple[Candidate, ...]
    reason: str
    chosen: Candidate
    nearest: Nearest | None
    times: Times


def outlook(
    request: VideoRequest,
    cards: Sequence[ModelCard],
    figures: Figures,
    replicas: Sequence[ReplicaState],
    times: Mapping[str, Times],
    stock: Stock = NO_LORAS,
) -> Outlook:
    """Return what `request` would take now. Some ten milliseconds where it does not fit.

    Args:
        figures: with those of the LoRA files asked for.
        times: of this request, by model.
        stock: the LoRA files of each model.

    Raises: InvalidRequest, BackendUnavailable: it is refused when it is to be made, too.
    """
    way = route(request, cards, stock)
    by_name = {card.name: card for card in cards}
    candidates = tuple(
        candidate(resolve(request, by_name[name]), figures.get(name), replicas)
        for name in way.models
    )
    able = [one for one in candidates if one.state in ABLE and one.fits is not False]
    chosen = min(able, key=lambda one: _wait_s(one, times), default=candidates[0])
    name, at = chosen.spec.model, chosen.placement
    nearest = None
    if at is not None and chosen.fits is False:
        nearest = nearest_that_fit(request, by_name[name], figures[name], at.mode, at.available_gb)
    return Outlook(
        candidates=candidates,
        reason=way.reason,
        chosen=chosen,
        nearest=nearest,
        times=times.get(name, Times()),
    )


def _wait_s(one: Candidate, times: Mapping[str, Times]) -> float:
    """Return the seconds until its model would begin, infinite while nobody can say."""
    start_s = times.get(one.spec.model, Times()).start_s
    return math.inf if start_s is None else start_s


def candidate(
    spec: VideoSpec, figures: ModelFigures | None, replicas: Sequence[ReplicaState]
) -> Candidate:
    """Return how `spec` stands with its model's replicas, which are among `replicas`."""
    mine = [replica for replica in replicas if replica.model == spec.model]
    able = [replica for replica in mine if replica.state in ABLE]
    known = (able or mine)[:1]
    placements = [replica.placement for replica in able if replica.placement is not None]
    placement, planned = None, None
    if figures is not None and not placements:
        planned = plan(figures, spec, MODES[0])
    elif figures is not None:
        plans = [(at, plan(figures, spec, at.mode)) for at in placements]
        placement, planned = min(plans, key=lambda one: one[0].available_gb - one[1].peak_gb)
    on_cpu = [replica.device == "cpu" for replica in known]
    return Candidate(
        state=known[0].state if known else "loading",
        device="unknown" if not on_cpu else "cpu" if on_cpu[0] else "gpu",
        spec=spec,
        placement=placement,
        plan=planned,
    )


def never_fits(
    request: VideoRequest,
    card: ModelCard,
    figures: ModelFigures,
    placements: Sequence[Placement],
) -> InsufficientVram | None:
    """Return the refusal of what none of these GPUs can ever hold, even whole and with `low_vram`.

    Args:
        card: of a model that can make it.
        placements: of all replicas of that model.
    """
    spec = resolve(request, card)
    smallest = spec.model_copy(update={"low_vram": True})
    if any(plan(figures, smallest, at.mode).peak_gb <= at.total_gb for at in placements):
        return None
    at = max(placements, key=lambda one: one.total_gb)
    nearest = nearest_that_fit(request, card, figures, at.mode, at.total_gb)
    need_gb = plan(figures, spec, at.mode).peak_gb
    return InsufficientVram(card.name, need_gb, at.total_gb, nearest.sentence)
