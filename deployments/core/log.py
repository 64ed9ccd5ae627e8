"""The service's logger: a child of Serve's own, so that its lines land in the replicas' log files.

A line about a job begins with its id, `logger.info("video_id=%s: completed", job_id)`; in JSON it
then has a field `video_id`, by which programs follow a job through all replicas. (Serve's logger
drops a field called `job_id`: that is the name of Ray's own jobs.) Lines of functions that do not
know their job get both inside `with following(job_id):`.
"""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

PREFIX = "video_id=%s: "
_followed: ContextVar[str] = ContextVar("video_id", default="")


@contextlib.contextmanager
def following(video_id: str) -> Iterator[None]:
    """Make every line in this block one about the job, those of called functions too.

    Not for generators: the block would last into whoever advances them.
    """
    token = _followed.set(video_id)
    try:
        yield
    finally:
        _followed.reset(token)


class _NameTheJob(logging.Filter):
    """Gives each line about a job its field; all lines pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        if str(record.msg).startswith(PREFIX) and isinstance(record.args, tuple) and record.args:
            record.video_id = record.args[0]
        elif video_id := _followed.get():
            record.video_id = video_id
            record.msg = f"video_id={video_id}: {record.msg}"
        return True


def _is_no_routine_call(record: logging.LogRecord) -> bool:
    """Whether a line of Serve's is anything else than a call between replicas that went well. They
    call each other every second, for as long as the service is up."""
    routine = getattr(record, "serve_access_log", False) and record.msg.startswith("CALL ")
    return not (routine and " OK " in record.msg)


logger = logging.getLogger("ray.serve.video")
logger.addFilter(_NameTheJob())
# Serve's own lines; ours are of a child, and do not pass here.
logging.getLogger("ray.serve").addFilter(_is_no_routine_call)
