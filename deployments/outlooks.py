"""What requests would take, from what the jobs deployment knows: who is there, what waits, and how
long videos took here. The arithmetic is in `core.outlook`."""

import asyncio
from collections.abc import Sequence

from deployments.core.errors import InsufficientVram, InvalidRequest
from deployments.core.events import ABLE
from deployments.core.job_store import Job, JobStore
from deployments.core.lora_figures import figures_with
from deployments.core.loras import LoraFolders
from deployments.core.outlook import Figures, Outlook, candidate, never_fits, outlook
from deployments.core.routing import route
from deployments.core.spec import ModelCard, VideoRequest, resolve
from deployments.dispatcher import Dispatcher
from deployments.job_run import Db


class Outlooks:
    """The outlook of each request that somebody thinks of.

    Args:
        figures: what is known of the configured models' networks.
        loras: their LoRA files.
    """

    def __init__(
        self,
        cards: Sequence[ModelCard],
        figures: Figures,
        dispatcher: Dispatcher,
        *,
        store: JobStore,
        db: Db,
        loras: LoraFolders,
    ) -> None:
        self._cards, self._figures, self._dispatcher = cards, figures, dispatcher
        self._by_name = {card.name: card for card in cards}
        self._store, self._db, self._loras = store, db, loras

    async def of(self, request: VideoRequest) -> Outlook:
        """Return what `request` would take. Raises: InvalidRequest, BackendUnavailable."""
        stock = await self._loras.stock_for(request)
        able = route(request, self._cards, stock).models
        await plan_queue(self._dispatcher, self._store, self._db)
        forecast = self._dispatcher.forecast
        times = {
            card.name: forecast.times(resolve(request, card))
            for card in self._cards
            if card.name in able
        }
        replicas = self._dispatcher.fleet.replicas()
        return await asyncio.to_thread(
            outlook,
            request,
            self._cards,
            figures_with(self._figures, request.loras, stock),
            replicas,
            times,
            stock,
        )

    def memory_gb(self, job: Job) -> float | None:
        """Return the most GPU memory that a job takes which is not done, in GB; None on the CPU,
        and while its model has not told of its GPU."""
        replicas = self._dispatcher.fleet.replicas()
        able = [one for one in replicas if one.model == job.model and one.state in ABLE]
        placed = [one for one in able if one.placement is not None]
        if not placed:
            return None
        try:
            spec = job.spec or resolve(job.request, self._by_name[job.model])
        except (InvalidRequest, KeyError):  # the config has changed since; it will be refused
            return None
        figures = figures_with(self._figures, spec.loras, self._loras.last)
        found = candidate(spec, figures.get(job.model), placed)
        return None if found.plan is None else found.plan.peak_gb

    async def refuse_too_large(self, request: VideoRequest, models: Sequence[str]) -> None:
        """Refuse what none of `models`, which can make it otherwise, will ever have the memory for.

        Raises: InsufficientVram: of the first of them.
        """
        stock = await self._loras.stock_for(request)
        figures_of = figures_with(self._figures, request.loras, stock)
        refusals: list[InsufficientVram] = []
        for card in self._cards:
            if card.name not in models or self._dispatcher.fleet.hopeless([card.name]):
                continue
            replicas = self._dispatcher.fleet.complete(card.name)
            placements = [one.placement for one in replicas if one.placement is not None]
            figures = figures_of.get(card.name)
            if figures is None or not placements or len(placements) < len(replicas):
                return  # one of them may have the memory
            refusal = await asyncio.to_thread(never_fits, request, card, figures, placements)
            if refusal is None:
                return
            refusals.append(refusal)
        if refusals:
            raise refusals[0]


async def plan_queue(dispatcher: Dispatcher, store: JobStore, db: Db) -> None:
    """Have the queue thought through, if that was long ago."""
    if dispatcher.forecast.plan_is_old:
        waiting = await db(store.queued)
        dispatcher.forecast.plan(dispatcher.turns.order(waiting))
