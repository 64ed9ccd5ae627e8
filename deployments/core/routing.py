"""Which of the configured models may make a request, and why those.

The rest is decided when a model becomes free: `Dispatcher` takes the first of them that is ready.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deployments.core.errors import BackendUnavailable, InvalidRequest
from deployments.core.loras import NO_LORAS, Stock, refuse_missing
from deployments.core.spec import AUTO, ModelCard, VideoRequest, refuse_impossible

# Asked for by name with an image, it is the request that is wrong, whatever is configured.
TEXT_ONLY = ("mochi",)


@dataclass(frozen=True)
class Route:
    """The models that may get a job, in configured order, and why not the others."""

    models: tuple[str, ...]
    reason: str


def route(request: VideoRequest, cards: Sequence[ModelCard], stock: Stock = NO_LORAS) -> Route:
    """Return the models that can serve `request`.

    Args: stock: the LoRA files of each model; of use only where some are asked for.

    Raises:
        InvalidRequest: none can, or not the preferred one; the message says what can.
        BackendUnavailable: the preferred model is not configured.
    """
    if request.prefer_backend != AUTO:
        return _preferred(request, cards, stock)
    able, refusals = [], []
    for card in cards:
        try:
            _refuse(request, card, cards, stock)
        except InvalidRequest as refusal:
            refusals.append((card, refusal))
        else:
            able.append(card)
    if not able:
        if {refusal.field for _, refusal in refusals} == {"loras"}:
            raise InvalidRequest("loras", "; ".join(refusal.reason for _, refusal in refusals))
        # With an image, what a model that takes images lacks is what the user can mend.
        raise min(
            (refusal for _, refusal in refusals), key=lambda refusal: refusal.field == "image"
        )
    reasons = [_why_not(card, refusal, request, able) for card, refusal in refusals]
    # Nobody who has a model's real weights wants a drawing because that model was busy.
    demos = [card for card in able if card.bundled]
    if 0 < len(demos) < len(able):
        able = [card for card in able if not card.bundled]
        reasons += [f"{card.name} has its demo checkpoint only" for card in demos]
    if not reasons and len(able) == 1:
        reasons = [f"{able[0].name} is the only model here"]
    return Route(tuple(card.name for card in able), "; ".join(dict.fromkeys(reasons)))


def first_free(models: Sequence[str]) -> str:
    """Return the reason for a model that was taken because it was free before the others."""
    return f"first of {', '.join(models)} that was free"


def also(routing: str, reason: str) -> str:
    """Add a reason; a job that starts for the second time has it already."""
    reasons = routing.split("; ") if routing else []
    return "; ".join(dict.fromkeys([*reasons, reason]))


def _refuse(
    request: VideoRequest, card: ModelCard, cards: Sequence[ModelCard], stock: Stock
) -> None:
    """Raise InvalidRequest for what `card`'s model cannot make of `request`."""
    refuse_impossible(request, card, cards)
    refuse_missing(request.loras, card.name, stock.get(card.name, ()))


def _preferred(request: VideoRequest, cards: Sequence[ModelCard], stock: Stock) -> Route:
    name = request.prefer_backend
    card = next((card for card in cards if card.name == name), None)
    if card is not None:
        _refuse(request, card, cards, stock)
        return Route((name,), "prefer_backend")
    if request.has_image and name in TEXT_ONLY:
        raise InvalidRequest("image", f"{name} makes videos from text only; leave the image out")
    names = ", ".join(card.name for card in cards)
    raise BackendUnavailable(f"prefer_backend: {name} is not configured here; there is {names}")


def _why_not(
    card: ModelCard, refusal: InvalidRequest, request: VideoRequest, able: Sequence[ModelCard]
) -> str:
    """Say what sent the request past the model of `card`."""
    names = " and ".join(other.name for other in able)
    if refusal.field == "image":
        make = "makes" if len(able) == 1 else "make"
        return f"image given: {names} {make} videos from images"
    if refusal.field == "num_frames":
        return f"{request.num_frames} frames: more than {card.name}'s {card.max_frames}"
    if refusal.field == "quality":
        return f"{card.name} has no {request.quality} mode"
    return str(refusal)
