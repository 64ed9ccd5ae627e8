"""A `JobsService` that does as it is told, and a real server around the application.

Jobs end at once with a file of `VIDEO` bytes, unless `hold` keeps them in progress until a test
says `finish` or `fail`; `refuse` makes `submit` raise.
"""

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.errors import InvalidRequest, NotFound, VideoServiceError
from deployments.core.events import (
    Changes,
    DeletedJob,
    GpuState,
    JobPage,
    JobView,
    ModelState,
    Preview,
    ReplicaState,
    ServiceState,
)
from deployments.core.lora_figures import figures_with
from deployments.core.loras import LoraFolders
from deployments.core.memory import Placement
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.outlook import Figures, Outlook, Times, outlook
from deployments.core.routing import route
from deployments.core.service import JobQuery, Submission
from deployments.core.spec import ModelCard, VideoRequest, resolve
from deployments.ingress import create_app
from deployments.latest_previews import LatestPreviews
from tests.e2e.graph import free_port

BASE_URL = "http://localhost:8000"
VIDEO = bytes(range(256)) * 40
POSTER, SHEET = b"poster" * 99, b"sheet" * 99
FILE_NAME = "20250127_143022_serene_lake.mp4"
MOCHI = ModelCard(
    name="mochi",
    checkpoint="mochi-tiny",
    bundled=True,
    native_area=128 * 128,
    max_frames=163,
    frame_step=6,
    accepts_image=False,
    num_inference_steps=20,
    guidance_scale=4.0,
    example_prompts=("a red ball moving right",),
)
OPENSORA = MOCHI.model_copy(
    update={
        "name": "opensora",
        "max_frames": 240,
        "frame_step": 4,
        "segment_frames": 129,
        "accepts_image": True,
        "licence": "Apache 2.0",
    }
)
GPU = GpuState(
    uuid="GPU-1",
    index=0,
    name="NVIDIA H200",
    total_gb=139.81,
    used_gb=2.34,
    free_gb=137.47,
    load_percent=41,
)


class ScriptedJobs:
    """Keeps jobs in a dict and records what it was asked."""

    def __init__(self, config: ServiceConfig, cards: list[ModelCard] | None = None) -> None:
        self.config = config
        self.cards = cards or [MOCHI]
        self.hold = False
        self.down = False
        self.refuse: VideoServiceError | None = None
        self.video = VIDEO
        self.jobs: dict[str, JobView] = {}
        self.deleted: list[DeletedJob] = []
        self.last_change = 0
        self.previews = LatestPreviews()
        self.images: list[bytes | None] = []
        self.pictures: dict[str, bytes] = {}
        self.requests: list[VideoRequest] = []
        self.submissions: list[Submission] = []
        self.cancelled: list[str] = []
        self.replicas: tuple[ReplicaState, ...] = (replica(),)
        self.figures: Figures = {"mochi": MochiFigures(), "opensora": OpenSoraFigures()}
        self.times: dict[str, Times] = {}
        self.loras = LoraFolders({})

    async def submit(self, submission: Submission) -> JobView:
        job_id, request = submission.job_id, submission.request
        if self.refuse:
            raise self.refuse
        key = submission.idempotency_key
        before = [one.job_id for one in self.submissions if key and one.idempotency_key == key]
        self.submissions.append(submission)
        if before:
            return self.jobs[before[0]]
        way = route(request, self.cards, await self.loras.stock_for(request))
        name = way.models[0]
        card = next(card for card in self.cards if card.name == name)
        spec = resolve(request, card)
        self.images.append(submission.image)
        if submission.image is not None:
            self.pictures[job_id] = submission.image
        self.requests.append(request)
        self.jobs[job_id] = JobView(
            id=job_id,
            status="in_progress",
            phase="denoise",
            progress=40,
            step=8,
            num_steps=spec.total_steps,
            queue_position=0,
            request=request,
            model=name,
            routing=way.reason,
            spec=spec,
            notices=(),
            attempts=1,
            created_at=time.time(),
            started_at=time.time(),
            finished_at=None,
            file_name=None,
            file_bytes=None,
            error_code=None,
            error_message=None,
            remixed_from=submission.remixed_from,
            caller=submission.caller,
            sequence=self._next_change(),
            changed_at=time.time(),
            seconds_left=30.0,
        )
        if not self.hold:
            self.finish(job_id)
        return self.jobs[job_id]

    async def estimate(self, request: VideoRequest) -> Outlook:
        self._must_be_up()
        stock = await self.loras.stock_for(request)
        figures = figures_with(self.figures, request.loras, stock)
        return outlook(request, self.cards, figures, self.replicas, self.times, stock)

    async def get(self, job_id: str) -> JobView:
        self._must_be_up()
        if job_id not in self.jobs:
            raise NotFound("There is no such job.")
        return self.jobs[job_id]

    async def image(self, job_id: str) -> bytes | None:
        await self.get(job_id)
        return self.pictures.get(job_id)

    async def list_jobs(self, query: JobQuery) -> JobPage:
        self._must_be_up()
        ids = list(self.jobs)
        if query.order == "desc":
            ids.reverse()
        if query.after is not None:
            if query.after not in ids:
                raise InvalidRequest("after", f"there is no video {query.after!r}")
            ids = ids[ids.index(query.after) + 1 :]
        found = [job for job in map(self.jobs.__getitem__, ids) if _matches(job, query)]
        has_more = len(found) > query.limit
        return JobPage(
            jobs=tuple(found[: query.limit]), has_more=has_more, last_change=self.last_change
        )

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        deadline = time.monotonic() + timeout_s
        while not (job := await self.get(job_id)).done and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return job

    async def changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        self._must_be_up()
        if after is None or after > self.last_change:
            jobs = tuple(self.jobs[job_id] for job_id in self.running)
            previews = self.previews.after(previews_after)
            return Changes(jobs=jobs, previews=previews, last=self.last_change)
        deadline = time.monotonic() + timeout_s
        while after == self.last_change and time.monotonic() < deadline:
            if self.previews.after(previews_after):
                break
            await asyncio.sleep(0.01)
            self._must_be_up()
        changed = sorted(self.jobs.values(), key=lambda job: job.sequence)
        return Changes(
            jobs=tuple(job for job in changed if job.sequence > after),
            deleted=tuple(job for job in self.deleted if job.sequence > after),
            previews=self.previews.after(previews_after),
            last=self.last_change,
        )

    def preview(self, job_id: str, step: int, picture: bytes = b"jpeg") -> None:
        self.previews.show(job_id, self.jobs[job_id].caller, Preview(step, picture))

    async def abandon(self, job_id: str) -> None:
        await self.cancel(job_id)

    async def pin(self, job_id: str, pinned: bool) -> JobView:
        await self.get(job_id)
        self.set(job_id, pinned=pinned)
        return self.jobs[job_id]

    async def delete(self, job_id: str) -> None:
        self._must_be_up()
        gone = self.jobs.pop(job_id)
        self.deleted.append(DeletedJob(id=job_id, caller=gone.caller, sequence=self._next_change()))

    async def cancel(self, job_id: str) -> JobView:
        job = await self.get(job_id)
        self.cancelled.append(job_id)
        if not job.done:
            self.fail(job_id, "cancelled", "The job was cancelled.")
        return self.jobs[job_id]

    async def find_output(self, file_name: str) -> JobView:
        self._must_be_up()
        for job in self.jobs.values():
            if job.file_name == file_name and job.status == "completed":
                return job
        raise NotFound("There is no such video.")

    async def state(self) -> ServiceState:
        self._must_be_up()
        return ServiceState(replicas=self.replicas, jobs_queued=0, jobs_running=len(self.running))

    @property
    def running(self) -> list[str]:
        """The jobs that have not ended."""
        return [job.id for job in self.jobs.values() if not job.done]

    @property
    def last(self) -> JobView:
        """The newest job."""
        return list(self.jobs.values())[-1]

    def finish(self, job_id: str) -> None:
        """Complete the job, with a file."""
        stem, _, ending = FILE_NAME.partition(".")
        count = sum(job.file_name is not None for job in self.jobs.values())
        name = FILE_NAME if not count else f"{stem}_{count + 1}.{ending}"
        path = Path(self.config.outputs_dir) / name
        path.write_bytes(self.video)
        for picture, data in zip(outputs.picture_paths(path), (POSTER, SHEET), strict=True):
            outputs.write_whole(picture, data)
        self.set(
            job_id,
            status="completed",
            phase="saved",
            progress=100,
            step=self.jobs[job_id].num_steps,
            finished_at=time.time(),
            seconds_left=None,
            file_name=name,
            file_bytes=len(self.video),
        )

    def fail(self, job_id: str, code: str, message: str) -> None:
        """End the job with an error."""
        self.set(
            job_id,
            status="failed",
            finished_at=time.time(),
            seconds_left=None,
            error_code=code,
            error_message=message,
        )

    def set(self, job_id: str, **changes: object) -> None:
        """Change what the job shows."""
        changes = {"sequence": self._next_change(), "changed_at": time.time()} | changes
        self.jobs[job_id] = self.jobs[job_id].model_copy(update=changes)
        if self.jobs[job_id].status != "in_progress":
            self.previews.ended(job_id)

    def _next_change(self) -> int:
        self.last_change += 1
        return self.last_change

    def _must_be_up(self) -> None:
        if self.down:
            raise VideoServiceError("The jobs deployment does not answer.")


def _matches(job: JobView, query: JobQuery) -> bool:
    return (
        query.search.lower() in job.request.prompt.lower()
        and query.caller in (None, job.caller)
        and query.model in (None, job.model)
        and query.status in (None, job.status)
        and query.pinned in (None, job.pinned)
    )


def replica(
    state: ModelState = "ready",
    model: str = "mochi",
    *,
    gpu: bool = False,
    reason: str = "",
    placement: Placement | None = None,
) -> ReplicaState:
    return ReplicaState(
        replica_id=f"{model}#1",
        model=model,
        checkpoint=f"{model}-tiny",
        state=state,
        reason=reason,
        device="cuda" if gpu else "cpu",
        node="head",
        gpus=(GPU,) if gpu else (),
        placement=placement,
        pid=1,
        reported_at=time.time(),
    )


@dataclasses.dataclass
class Api:
    """The application with scripted jobs behind it, and a client in front."""

    http: TestClient
    jobs: ScriptedJobs
    app: FastAPI

    def refresh(self) -> None:
        """Bring the copy of the state up to date now, not within a second."""
        portal = self.http.portal
        assert portal is not None
        portal.call(self.app.state.door.watch.refresh)


@contextlib.contextmanager
def open_api(
    folder: Path,
    *,
    cards: list[ModelCard] | None = None,
    loras: LoraFolders | None = None,
    **settings: object,
) -> Iterator[Api]:
    """Give an `Api` whose files lie in `folder`; `settings` are those of the config."""
    config = service_config(folder, **settings)
    jobs = ScriptedJobs(config, cards)
    jobs.loras = loras or jobs.loras
    app = create_app(jobs, config, jobs.cards, loras=jobs.loras)
    with TestClient(app, base_url=BASE_URL, raise_server_exceptions=False) as http:
        api = Api(http, jobs, app)
        api.refresh()
        yield api


def service_config(folder: Path, **settings: object) -> ServiceConfig:
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    return ServiceConfig.model_validate(
        {"outputs_dir": str(outputs), "state_dir": str(folder / "state"), **settings}
    )


@contextlib.contextmanager
def served(app: FastAPI, port: int | None = None, **settings: Any) -> Iterator[str]:
    """Run `app` in a thread, on a free port if none is given; gives its base URL. `settings` are
    uvicorn's."""
    port = port or free_port()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, **{"log_level": "warning", **settings}
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)


def form(**fields: object) -> dict[str, str]:
    """A form that is accepted, with `fields` changed; None leaves one out."""
    values = {"prompt": "a red ball", "lawful_use_consent": "true"} | fields
    return {name: str(value) for name, value in values.items() if value is not None}
