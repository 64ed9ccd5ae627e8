"""The service's HTTP API as a class: one method for each thing that a person does with videos.

Knows HTTP and nothing of terminals.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

# Taking a large image in can keep the service busy for a while.
TIMEOUT = httpx2.Timeout(60, connect=5)
# As many as the service gives at once.
PAGE = 100
OWN_MACHINE = ("localhost", "127.0.0.1", "::1")
KEY_HELP = "This command line takes it from the environment, as VIDEO_SERVICE_KEY."
HELP = "`make serve` starts the service; --url or VIDEO_SERVICE_URL names another address."


class ClientError(Exception):
    """What was asked could not be done; the message is for people.

    Args: status: the HTTP status, None where no answer came.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message, status)
        self.message, self.status = message, status

    def __str__(self) -> str:
        return self.message

    @property
    def may_pass(self) -> bool:
        """Whether the same request can go well later: the service restarts, or is short of
        something."""
        return self.status is None or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


class VideoError(BaseModel, frozen=True):
    """Why a video failed."""

    code: str
    message: str


class ChosenLora(BaseModel, frozen=True):
    """A LoRA file in a video, and how much of it."""

    name: str
    strength: float


class Video(BaseModel, frozen=True):
    """What the service says of a video; keys that this client does not know are left out."""

    id: str
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    model: str
    created_at: int
    prompt: str | None
    size: str
    error: VideoError | None
    phase: str
    step: int
    num_steps: int
    queue_position: int
    seconds_left: float | None = None
    notices: tuple[str, ...]
    video_url: str | None
    num_frames: int
    fps: int
    seed: int
    loras: tuple[ChosenLora, ...] = ()

    @property
    def done(self) -> bool:
        """Whether the video has reached its last state."""
        return self.status in ("completed", "failed")

    @property
    def file_name(self) -> str:
        """The name of the file on the server, without any folder; the id's where it has none."""
        return PurePosixPath(self.video_url or "").name or f"{self.id}.mp4"


class Client:
    """The service at `url`. Every method raises `ClientError`.

    Args: key: the API key, where the service has any.
    """

    def __init__(self, url: str, key: str = "") -> None:
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise ClientError(f"{url!r} is not an address: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ClientError(f"{url!r} is not an address; it looks like http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        # A proxy that the environment names does not know this machine's loopback.
        self._http = httpx2.Client(
            base_url=self._url,
            timeout=TIMEOUT,
            trust_env=parsed.host not in OWN_MACHINE,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._http.close()

    def submit(self, fields: Mapping[str, str], image: Path | None = None) -> str:
        """Ask for a video without waiting for it; returns its id.

        Args:
            fields: those of the form of `POST /generate`.
            image: the picture that the video begins with.
        """
        with contextlib.ExitStack() as opened:
            files: dict[str, Any] = {}
            if image is not None:
                try:
                    files["image"] = (image.name, opened.enter_context(image.open("rb")))
                except OSError as error:
                    raise ClientError(f"{image}: {error.strerror}.") from error
            answer = self._ask(
                "POST",
                "/generate",
                data=dict(fields),
                files=files or None,
                headers={"Prefer": "respond-async"},
            )
        job_id = _object(answer).get("job_id")
        if not isinstance(job_id, str):
            raise _stranger(answer)
        return job_id

    def get(self, video_id: str) -> Video:
        """Return how a video stands."""
        return _video(_object(self._ask("GET", _path(video_id))))

    def newest(self, count: int) -> Iterator[Video]:
        """Give the `count` newest videos, the last one made first; asks for a page at a time."""
        after: dict[str, str] = {}
        while count > 0:
            query = {"order": "desc", "limit": str(min(count, PAGE)), **after}
            answer = self._ask("GET", "/v1/videos", params=query)
            page = _object(answer)
            if not isinstance(page.get("data"), list):
                raise _stranger(answer)
            videos = [_video(found) for found in page["data"]]
            yield from videos
            if not page.get("has_more") or not videos:
                return
            count -= len(videos)
            after = {"after": videos[-1].id}

    def cancel(self, video_id: str) -> Video:
        """Stop a video; one that has ended stays as it is."""
        return _video(_object(self._ask("POST", f"{_path(video_id)}/cancel")))

    def download(self, video: Video, target: Path, seen: Callable[[int, int], object]) -> None:
        """Write the MP4 of a completed video to `target`, which is replaced as a whole.

        Args: seen: is told the bytes that are here, and in all (0: not known).
        """
        if video.video_url is None:
            raise ClientError(f"{video.id} has no file: {state(video)}.")
        part = target.with_name(f"{target.name}.part")
        try:
            with self._connected(), self._http.stream("GET", video.video_url) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _refusal(answer)
                size_bytes = int(answer.headers.get("Content-Length", 0))
                with part.open("wb") as file:
                    for chunk in answer.iter_bytes(1 << 16):
                        file.write(chunk)
                        seen(file.tell(), size_bytes)
            part.replace(target)
        except OSError as error:
            raise ClientError(f"{target}: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)

    def _ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        with self._connected():
            answer = self._http.request(method, path, **request)
        if not answer.is_success:
            raise _refusal(answer)
        return answer

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise ClientError(f"Nothing answers at {self._url}. {HELP}") from error
        except httpx2.TimeoutException as error:
            raise ClientError(f"{self._url} took too long to answer.") from error
        except httpx2.TransportError as error:
            raise ClientError(f"The connection to {self._url} broke: {error}") from error


def state(video: Video) -> str:
    """Return in words how a video stands: its phase, or why it failed."""
    if video.error is not None:
        return "cancelled" if video.error.code == "cancelled" else f"failed: {video.error.message}"
    return {"queued": "it waits", "in_progress": "it is being made"}.get(video.status, "completed")


def _path(video_id: str) -> str:
    return f"/v1/videos/{quote(video_id, safe='')}"


def _refusal(answer: httpx2.Response) -> ClientError:
    """Return the service's own sentence, which has another place under /v1."""
    error = _object(answer).get("error")
    sentence = error.get("message") if isinstance(error, dict) else error
    if not isinstance(sentence, str):
        raise _stranger(answer)
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        sentence = f"{sentence} {KEY_HELP}"
    return ClientError(sentence, answer.status_code)


def _object(answer: httpx2.Response) -> dict[str, Any]:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _stranger(answer)
    return found


def _video(found: dict[str, Any]) -> Video:
    try:
        return Video.model_validate(found)
    except ValidationError as error:
        wrong = ".".join(map(str, error.errors()[0]["loc"]))
        raise ClientError(f"The service is of another version: a video's {wrong} is odd.") from None


def _stranger(answer: httpx2.Response) -> ClientError:
    return ClientError(
        f"{answer.url} answered {answer.status_code}, but not like the video service. {HELP}",
        answer.status_code,
    )
