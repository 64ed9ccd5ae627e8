import asyncio
import logging
from collections.abc import Iterator

import pytest

from deployments.core.log import following, logger


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    """What the logger hands to its handlers."""
    kept, level = Kept(), logger.level
    logger.addHandler(kept)
    logger.setLevel(logging.INFO)
    yield kept.records
    logger.setLevel(level)
    logger.removeHandler(kept)


def facts(record: logging.LogRecord) -> tuple[str, str]:
    return getattr(record, "video_id", ""), record.getMessage()


def test_a_line_about_a_job_has_a_field_and_can_be_read(lines: list[logging.LogRecord]) -> None:
    """A program reads the field, a person the sentence."""
    logger.info("video_id=%s: took %d %%", "video_1", 5)
    assert facts(lines[0]) == ("video_1", "video_id=video_1: took 5 %")


def test_a_line_about_no_job_stays_as_it_is(lines: list[logging.LogRecord]) -> None:
    """Neither field nor prefix."""
    logger.info("ready")
    assert facts(lines[0]) == ("", "ready")
    assert not hasattr(lines[0], "video_id")


def test_what_a_followed_coroutine_calls_names_the_job_too(
    lines: list[logging.LogRecord],
) -> None:
    """Also in a thread, and not in the job beside it."""

    async def work(video_id: str) -> None:
        with following(video_id):
            await asyncio.sleep(0)
            await asyncio.to_thread(logger.error, "no frame can be read")
            logger.info("video_id=%s: another's", "video_9")
        logger.info("after")

    async def both() -> None:
        await asyncio.gather(work("video_1"), work("video_2"))

    asyncio.run(both())
    assert sorted({facts(record) for record in lines}) == [
        ("", "after"),
        ("video_1", "video_id=video_1: no frame can be read"),
        ("video_2", "video_id=video_2: no frame can be read"),
        ("video_9", "video_id=video_9: another's"),
    ]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("CALL report OK 11.7ms", False),
        ("CALL report REPLICA_UNAVAILABLE 3.0ms", True),
        ("GET /v1/videos 200 8.4ms", True),
    ],
)
def test_what_replicas_tell_each_other_every_second_is_not_logged(line: str, kept: bool) -> None:
    """What failed is, and so is what came from outside."""
    serve, handler = logging.getLogger("ray.serve"), Kept()
    serve.addHandler(handler)
    serve.warning(line, extra={"serve_access_log": True})
    serve.removeHandler(handler)
    assert [record.getMessage() for record in handler.records] == [line] * kept
