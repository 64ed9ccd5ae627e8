"""Every error that a client can see, as one tree.

    VideoServiceError
    ├── InvalidRequest        400  a field is wrong; names it, and what would do
    ├── UnsupportedOperation  400  a part of OpenAI's API that is not here
    ├── Unauthorized          401  no key, or a wrong one
    ├── ConsentRequired       403  the lawful-use consent was not given
    ├── ForeignOrigin         403  the request comes from another web page or host
    ├── NotFound              404  no such job, file or page
    ├── JobNotReady           404  the job exists, its file does not yet (409 would be retried)
    ├── PayloadTooLarge       413  the body or the image is over its cap
    ├── QueueFull             429  come back after `retry_after_s`
    ├── GenerationFailed      500  the model failed; the log has the cause
    ├── EncodingFailed        500  the MP4 could not be made
    ├── Cancelled             500  the job was cancelled; only a waiting caller sees it
    ├── Interrupted           500  the processes of the job died too often
    ├── DeadlineExceeded      500  the job was not done when its caller wanted it
    ├── BackendUnavailable    503  no model can serve the request now
    ├── InsufficientVram      503  the GPU is too small, or too full
    └── InsufficientDisk      503  the outputs folder has no room

`status` and `code` stand on the class; the ingress maps them to the wire in one place. The message
is for the client and holds no path, prompt or traceback. All arguments go to `super().__init__`,
because the errors are pickled between replicas.
"""


class VideoServiceError(Exception):
    """Base of the tree. `str(error)` is the client's message."""

    status: int = 500
    code: str = "server_error"


class InvalidRequest(VideoServiceError):
    """A field of the request is wrong."""

    status = 400
    code = "invalid_request"

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field, self.reason = field, reason

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}"


class UnsupportedOperation(VideoServiceError):
    """A part of OpenAI's API that this service does not have."""

    status = 400
    code = "unsupported_operation"


class Unauthorized(VideoServiceError):
    """No API key, or a wrong one."""

    status = 401
    code = "unauthorized"


class ConsentRequired(VideoServiceError):
    """The user did not agree to lawful use."""

    status = 403
    code = "consent_required"

    def __init__(self, how: str = "") -> None:
        super().__init__(how)
        self.how = how

    def __str__(self) -> str:
        what = "lawful_use_consent: must be true; you have to agree to use the service lawfully"
        return f"{what}{self.how}."


class ForeignOrigin(VideoServiceError):
    """Another web page, or a request for another host, tries to use the service."""

    status = 403
    code = "foreign_origin"

    def __init__(self, header: str, value: str) -> None:
        super().__init__(header, value)
        self.header, self.value = header, value

    def __str__(self) -> str:
        return (
            f"{self.header} {self.value!r} is not allowed here; "
            "the operator can add it to allowed_hosts in the config."
        )


class NotFound(VideoServiceError):
    """No such job, file or page."""

    status = 404
    code = "not_found"


class JobNotReady(VideoServiceError):
    """The job exists, but its file does not yet."""

    status = 404
    code = "not_ready"


class PayloadTooLarge(VideoServiceError):
    """The body, or one file in it, is over its cap."""

    status = 413
    code = "payload_too_large"

    def __init__(self, field: str, limit_bytes: int) -> None:
        super().__init__(field, limit_bytes)
        self.field, self.limit_bytes = field, limit_bytes

    def __str__(self) -> str:
        return f"{self.field}: larger than the {self.limit_bytes / 2**20:.0f} MiB allowed."


class QueueFull(VideoServiceError):
    """As many jobs wait as the config allows, in all or, `of_caller`, of one API key."""

    status = 429
    code = "queue_full"

    def __init__(self, waiting: int, retry_after_s: int, of_caller: bool = False) -> None:
        super().__init__(waiting, retry_after_s, of_caller)
        self.waiting, self.retry_after_s, self.of_caller = waiting, retry_after_s, of_caller

    def __str__(self) -> str:
        jobs = "jobs of yours" if self.of_caller else "jobs"
        again = f"try again in {self.retry_after_s} s"
        return f"The queue is full ({self.waiting} {jobs} wait); {again}."


class GenerationFailed(VideoServiceError):
    """The model failed during the job."""

    code = "generation_failed"


class EncodingFailed(VideoServiceError):
    """The frames could not be made into a verified MP4."""

    code = "encoding_failed"


class Cancelled(VideoServiceError):
    """The job was cancelled."""

    code = "cancelled"


class Interrupted(VideoServiceError):
    """The job's processes died more often than `max_attempts` allows."""

    code = "interrupted"

    def __init__(self, attempts: int) -> None:
        super().__init__(attempts)
        self.attempts = attempts

    def __str__(self) -> str:
        return f"The job was interrupted {self.attempts} times and is not tried again."


class DeadlineExceeded(VideoServiceError):
    """The job was not completed by its deadline, and is not wanted any more."""

    code = "deadline_exceeded"


class BackendUnavailable(VideoServiceError):
    """No model can serve the request now."""

    status = 503
    code = "backend_unavailable"


class InsufficientVram(VideoServiceError):
    """The GPU has less free memory than the request needs; `instead` says what would fit."""

    status = 503
    code = "insufficient_vram"

    def __init__(self, model: str, need_gb: float, free_gb: float, instead: str = "") -> None:
        super().__init__(model, need_gb, free_gb, instead)
        self.model, self.need_gb, self.free_gb, self.instead = model, need_gb, free_gb, instead

    def __str__(self) -> str:
        refusal = (
            f"Insufficient VRAM: {self.model} needs ~{self.need_gb:.1f}GB, "
            f"but only {self.free_gb:.1f}GB available."
        )
        return f"{refusal} {self.instead}".strip()


class InsufficientDisk(VideoServiceError):
    """The outputs folder has too little room for another video."""

    status = 503
    code = "insufficient_disk"

    def __init__(self, need_mb: float, free_mb: float) -> None:
        super().__init__(need_mb, free_mb)
        self.need_mb, self.free_mb = need_mb, free_mb

    def __str__(self) -> str:
        return (
            f"Insufficient disk space: a video needs ~{self.need_mb:.0f}MB, "
            f"but only {self.free_mb:.0f}MB available."
        )


class StoredError(VideoServiceError):
    """An error as a job row holds it: the same status, code and sentence as the one that ended the
    job."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message
        self.status = next((kind.status for kind in error_classes() if kind.code == code), 500)

    def __str__(self) -> str:
        return self.message


def error_classes() -> list[type[VideoServiceError]]:
    """Return every class of the tree that has a code of its own, base first."""
    found: list[type[VideoServiceError]] = [VideoServiceError]
    for kind in found:
        found.extend(child for child in kind.__subclasses__() if child is not StoredError)
    return found
