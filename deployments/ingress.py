"""The HTTP door: one FastAPI application, and the Ray Serve deployment that carries it.

Decides nothing: routes read requests, the jobs deployment does the work, errors become answers.
`create_app` imports no ray, so that the API can be tested without a cluster; nothing here knows
torch.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from deployments.core.config import ServiceConfig
from deployments.core.errors import BackendUnavailable, InvalidRequest, VideoServiceError
from deployments.core.events import Changes, JobPage, JobView, ServiceState
from deployments.core.log import logger
from deployments.core.loras import LoraFolders
from deployments.core.outlook import Outlook
from deployments.core.service import JobQuery, JobsService, Submission
from deployments.core.spec import ModelCard, VideoRequest
from deployments.lost import cause_of, is_away, is_replaced, is_stopping
from deployments.routes import (
    estimate,
    events,
    generate,
    models,
    outputs,
    pins,
    session,
    system,
    video_extensions,
    video_files,
    videos,
)
from deployments.routes.door import Door
from deployments.routes.guard import Guard
from deployments.routes.pages import STATIC_DIR, add_pages
from deployments.routes.wire import error_response, http_error_response

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle


DESCRIPTION = """Make videos from text on your own machine.

`POST /generate` waits for its video; with `Prefer: respond-async` it answers at once and
`/v1/videos/{id}` tells the progress. Errors are sentences that name the field, what is wrong and
what is allowed; under `/v1` they have the form of OpenAI's."""


def create_app(
    jobs: JobsService,
    config: ServiceConfig,
    cards: list[ModelCard],
    *,
    static_dir: Path = STATIC_DIR,
    echo_request_id: bool = True,
    is_stopping: Callable[[], bool] = lambda: False,
    loras: LoraFolders | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        jobs: the jobs deployment, or anything that keeps its contract.
        config: the service's settings.
        cards: what each configured model can do, in the order in which they are preferred.
        static_dir: the web page.
        echo_request_id: put `X-Request-ID` on answers; off under Ray Serve, whose proxy does it.
        is_stopping: whether this process is about to end, so that endless answers have to; may
            block.
        loras: the models' LoRA files on this machine; None for none.
    """
    door = Door(jobs, config, cards, is_stopping, loras or LoraFolders({}))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        running = [asyncio.create_task(door.watch.run()), asyncio.create_task(door.feed.run())]
        yield
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await door.close()

    app = VideoApi(
        title="Video service",
        version=version("video-service"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.door = door
    app.add_middleware(
        Guard,
        allowed_hosts=config.allowed_hosts,
        callers=door.callers,
        echo_request_id=echo_request_id,
    )
    for routes in (
        generate,
        estimate,
        video_extensions,
        videos,
        events,
        video_files,
        pins,
        outputs,
        models,
        session,
        system,
    ):
        app.include_router(routes.router)
    add_pages(app, static_dir)
    _map_errors(app)
    return app


class VideoApi(FastAPI):
    """FastAPI without its 422: here a wrong field is a 400, and documented as one."""

    def openapi(self) -> dict[str, Any]:
        """Return the schema; made at the first call."""
        if self.openapi_schema is None:
            schema = super().openapi()
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            self.state.door.callers.document(schema)
        return super().openapi()


def _map_errors(app: FastAPI) -> None:
    @app.exception_handler(VideoServiceError)
    async def ours(request: Request, error: VideoServiceError) -> Response:
        return error_response(request.url.path, error)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        return http_error_response(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return error_response(
            request.url.path, InvalidRequest(str(first["loc"][-1]), str(first["msg"]))
        )


class Ingress:
    """The ingress: `serve.deployment()(serve.ingress()(Ingress)).bind(jobs, config, cards)`."""

    def __init__(
        self,
        jobs: "DeploymentHandle[Any]",
        config: ServiceConfig,
        cards: list[ModelCard],
        loras: LoraFolders | None = None,
    ) -> None:
        self._jobs = RemoteJobs(jobs)
        self._config = config
        self._cards = cards
        self._loras = loras

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the application in the replica; Ray Serve calls this after the constructor."""
        return create_app(
            self._jobs,
            self._config,
            self._cards,
            echo_request_id=False,
            is_stopping=is_replaced,
            loras=self._loras,
        )


class RemoteJobs:
    """The jobs deployment through its handle: a `JobsService` that outlives a restart of it.

    Every call may be made twice: `submit` is told apart by its job id, the others change nothing a
    second time.
    """

    def __init__(
        self,
        handle: "DeploymentHandle[Any]",
        *,
        retry_for_s: float = 30.0,
        pause_s: float = 0.5,
    ) -> None:
        self._handle = handle
        self._retry_for_s = retry_for_s
        self._pause_s = pause_s

    async def submit(self, submission: Submission) -> JobView:
        """See `JobsService.submit`."""
        view: JobView = await self._call("submit", submission)
        logger.info("video_id=%s: accepted", view.id)
        return view

    async def estimate(self, request: VideoRequest) -> Outlook:
        """See `JobsService.estimate`."""
        return await self._call("estimate", request)

    async def get(self, job_id: str) -> JobView:
        """See `JobsService.get`."""
        return await self._call("get", job_id)

    async def image(self, job_id: str) -> bytes | None:
        """See `JobsService.image`."""
        return await self._call("image", job_id)

    async def list_jobs(self, query: JobQuery) -> JobPage:
        """See `JobsService.list_jobs`."""
        return await self._call("list_jobs", query)

    async def wait(self, job_id: str, timeout_s: float) -> JobView:
        """See `JobsService.wait`; a slice is at most 2 s, so that it never holds up a shutdown."""
        return await self._call("wait", job_id, min(timeout_s, 2.0))

    async def changes(
        self, after: int | None, timeout_s: float, previews_after: int | None = None
    ) -> Changes:
        """See `JobsService.changes`; at most 2 s, like `wait`."""
        return await self._call("changes", after, min(timeout_s, 2.0), previews_after)

    async def cancel(self, job_id: str) -> JobView:
        """See `JobsService.cancel`."""
        return await self._call("cancel", job_id)

    async def delete(self, job_id: str) -> None:
        """See `JobsService.delete`."""
        await self._call("delete", job_id)

    async def pin(self, job_id: str, pinned: bool) -> JobView:
        """See `JobsService.pin`."""
        return await self._call("pin", job_id, pinned)

    async def abandon(self, job_id: str) -> None:
        """See `JobsService.abandon`."""
        if not await asyncio.to_thread(is_stopping):
            await self._call("abandon", job_id)

    async def find_output(self, file_name: str) -> JobView:
        """See `JobsService.find_output`."""
        return await self._call("find_output", file_name)

    async def state(self) -> ServiceState:
        """See `JobsService.state`."""
        return await self._call("state")

    async def _call(self, method: str, *args: Any) -> Any:
        deadline = time.monotonic() + self._retry_for_s
        while True:
            try:
                answer = await self._handle.ask.remote(method, *args)
            except Exception as error:
                cause = cause_of(error)
                if not is_away(cause):
                    raise cause from None
                if time.monotonic() >= deadline:
                    raise BackendUnavailable(
                        "The jobs deployment does not answer; try again in a moment."
                    ) from error
                logger.info("the jobs replica is away, trying again: %r", cause)
                await asyncio.sleep(self._pause_s)
                continue
            if isinstance(answer, VideoServiceError):
                raise answer
            return answer
