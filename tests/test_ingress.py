"""The application as a whole, and the jobs deployment as the ingress sees it through a handle."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ray.exceptions import ActorDiedError, RayTaskError, WorkerCrashedError

from deployments.core import mp4
from deployments.core.errors import (
    BackendUnavailable,
    InvalidRequest,
    NotFound,
    QueueFull,
    VideoServiceError,
)
from deployments.core.service import Submission
from deployments.core.spec import VideoRequest
from deployments.ingress import Ingress, RemoteJobs, create_app
from deployments.lost import cause_of
from tests.in_process import CHECKPOINT, painter_config, running
from tests.painter import Painter
from tests.scripted_jobs import MOCHI, form, service_config

REQUEST = VideoRequest(prompt="a red ball", seed=1)
SUBMISSION = Submission(job_id="video_1", request=REQUEST, image=b"image")


class Handle:
    """A deployment handle that gives its scripted answers one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    @property
    def ask(self) -> "Method":
        return Method(lambda method, *args: self._call(method, args))

    async def _call(self, method: str, args: tuple[Any, ...]) -> Any:
        self.calls.append((method, args))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException) and not isinstance(answer, VideoServiceError):
            raise answer
        return answer


class Method:
    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.remote = call


def wrapped(error: Exception) -> Exception:
    """The error as Ray delivers it: a subclass of its class and of `RayTaskError`."""
    text = "Traceback (most recent call last): ..."
    delivered: Exception = RayTaskError("submit", text, error).as_instanceof_cause()
    return delivered


@pytest.mark.parametrize(
    "error", [InvalidRequest("fps", "0 is less than 1"), QueueFull(3, 9), NotFound("no such job")]
)
def test_an_error_of_ours_arrives_as_it_was_raised(error: Exception) -> None:
    """Without Ray's wrapping, whose text holds a traceback."""
    jobs = RemoteJobs(Handle(error))  # type: ignore[arg-type]
    with pytest.raises(type(error)) as caught:
        asyncio.run(jobs.submit(SUBMISSION))
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(
    "lost",
    [ActorDiedError(), WorkerCrashedError(), wrapped(ActorDiedError())],
    ids=["actor", "worker", "wrapped actor"],
)
def test_a_call_is_made_again_when_the_jobs_replica_died(lost: Exception) -> None:
    """The same job id again, so that nothing is made twice."""
    job = SimpleNamespace(id="video_1")
    handle = Handle(lost, lost, job)
    jobs = RemoteJobs(handle, pause_s=0.001)  # type: ignore[arg-type]
    assert asyncio.run(jobs.submit(SUBMISSION)) is job
    assert handle.calls == [("submit", (SUBMISSION,))] * 3


def test_a_jobs_replica_that_stays_away_is_unavailable() -> None:
    """After the time it takes to start one."""
    jobs = RemoteJobs(Handle(ActorDiedError()), retry_for_s=0.05, pause_s=0.01)  # type: ignore[arg-type]
    began = time.monotonic()
    with pytest.raises(BackendUnavailable, match="does not answer"):
        asyncio.run(jobs.get("video_1"))
    assert 0.05 <= time.monotonic() - began < 1


def test_an_error_that_is_not_ours_is_not_hidden_and_not_repeated() -> None:
    """It is a fault in the program; the guard logs it and answers 500."""
    handle = Handle(wrapped(ZeroDivisionError("x")))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(RemoteJobs(handle).get("video_1"))  # type: ignore[arg-type]
    assert len(handle.calls) == 1


def test_every_method_of_the_contract_goes_through_the_handle() -> None:
    """With its arguments; a wait is cut to two seconds."""
    handle = Handle("answer")
    jobs = RemoteJobs(handle)  # type: ignore[arg-type]

    async def call_all() -> None:
        await jobs.get("a")
        await jobs.wait("a", 60)
        await jobs.cancel("a")
        await jobs.find_output("f.mp4")
        await jobs.state()

    asyncio.run(call_all())
    assert handle.calls == [
        ("get", ("a",)),
        ("wait", ("a", 2.0)),
        ("cancel", ("a",)),
        ("find_output", ("f.mp4",)),
        ("state", ()),
    ]


def test_the_root_cause_of_a_plain_error_is_itself() -> None:
    """Nothing is unwrapped that Ray did not wrap."""
    error = ValueError("x")
    assert cause_of(error) is error


def test_the_ingress_builds_its_application_from_its_handle(tmp_path: Path) -> None:
    """The method that Ray Serve calls in the replica."""
    ingress = Ingress(Handle("state"), service_config(tmp_path), [MOCHI])  # type: ignore[arg-type]
    app = ingress.__serve_build_asgi_app__()
    assert "/generate" in app.openapi()["paths"]


def test_the_application_needs_neither_ray_nor_torch() -> None:
    """In a fresh process: the API can be tried without a cluster, and the ingress stays small."""
    program = (
        "import sys, deployments.ingress, deployments.routes.generate;"
        "print([name for name in ('ray', 'torch', 'diffusers', 'transformers', 'sqlalchemy')"
        " if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == "[]"


# --- with the real jobs, model and encoder in this process ----------------------------------


@contextlib.asynccontextmanager
async def real_service(folder: Path, **limits: int) -> AsyncIterator[httpx.AsyncClient]:
    config = painter_config(folder, **limits)
    async with running(config) as jobs:
        cards = [Painter.card(model, CHECKPOINT) for model in config.models]
        app = create_app(jobs, config, cards)
        transport = httpx.ASGITransport(app=app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as http,
        ):
            yield http


SMALL = {"width": "256", "height": "264", "num_frames": "13", "fps": "10", "seed": "7"}


def test_a_form_becomes_a_real_mp4(tmp_path: Path) -> None:
    """Through the table, the model and the encoder, and back by `/outputs`."""

    async def make() -> None:
        async with real_service(tmp_path) as http:
            answer = (await http.post("/generate", data=form(**SMALL))).json()
            assert answer["success"] is True, answer
            assert answer["notices"] == ["painted, not dreamt"]
            clip = tmp_path / "clip.mp4"
            clip.write_bytes((await http.get(answer["video_url"])).content)
            info = mp4.probe(clip)
            assert (info.width, info.height, info.num_frames) == (256, 264, 13)
            assert Path(answer["mp4_path"]).read_bytes() == clip.read_bytes()
            video = (await http.get(f"/v1/videos/{answer['job_id']}")).json()
            assert (video["status"], video["progress"]) == ("completed", 100)

    asyncio.run(make())


def test_an_asynchronous_video_can_be_watched_and_cancelled(tmp_path: Path) -> None:
    """Its steps are counted while it runs; cancelled, it is failed."""

    async def watch() -> None:
        async with real_service(tmp_path) as http:
            asked = form(prompt="slow", **SMALL)
            accepted = await http.post("/generate", data=asked, headers={"Prefer": "respond-async"})
            url = accepted.json()["status_url"]
            async with asyncio.timeout(20):
                while (video := (await http.get(url)).json())["step"] < 1:
                    await asyncio.sleep(0.02)
            assert (video["status"], video["num_steps"]) == ("in_progress", 8)
            cancelled = (await http.post(f"{url}/cancel")).json()
            assert cancelled["error"]["code"] == "cancelled"

    asyncio.run(watch())


def test_what_the_model_and_the_queue_refuse_reaches_the_client(tmp_path: Path) -> None:
    """In their own words and with their own status."""

    async def refuse() -> None:
        async with real_service(tmp_path, max_queued=1) as http:
            vram = await http.post("/generate", data=form(prompt="vram", **SMALL))
            assert vram.status_code == 503
            assert vram.json()["error"] == (
                "Insufficient VRAM: mochi needs ~6.0GB, but only 4.2GB available."
            )
            failed = await http.post("/generate", data=form(prompt="fail now", **SMALL))
            assert failed.status_code == 500
            assert "paint" not in failed.text
            later = {"Prefer": "respond-async"}
            answers = [
                await http.post("/generate", data=form(prompt="slow", **SMALL), headers=later)
                for _ in range(4)
            ]
            full = [answer for answer in answers if answer.status_code == 429]
            assert full
            assert int(full[0].headers["retry-after"]) > 0

    asyncio.run(refuse())
