"""The encoder's questions for frames, over plain calls in place of Serve's."""

import asyncio
from typing import Any, cast

import pytest

from deployments.core.events import EncodedVideo, EncodeOrder
from deployments.encoder import FrameSource
from deployments.frame_refs import FrameRefs, FramesUnknown
from deployments.served_encoder import EncoderHandle, ServedEncoder

ORDER = cast("EncodeOrder", "an order")


class Response:
    """Stands for a DeploymentResponse."""

    def __init__(self, work: Any) -> None:
        self._task = asyncio.ensure_future(work)

    def __await__(self) -> Any:
        return self._task.__await__()

    def cancel(self) -> None:
        self._task.cancel()


class Method:
    """Stands for a method of a handle."""

    def __init__(self, function: Any) -> None:
        self._function = function

    def remote(self, *args: Any) -> Response:
        return Response(self._function(*args))


class Counting(ServedEncoder):
    """Encodes nothing; its answer's size is how many references it got."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[Any] = []

    async def encode(self, order: EncodeOrder, source: FrameSource) -> EncodedVideo:
        assert order == ORDER
        async for ref in source:
            self.got.append(ref)
        return EncodedVideo(path="", size_bytes=len(self.got), elapsed_s=0)


class Pair:
    """A handle and an encoder that reach each other."""

    def __init__(self) -> None:
        self.encoder = Counting()
        self.handle = EncoderHandle(self)
        self.encode_under = Method(self._encode_under)
        self.frames = Method(self.handle.frames)
        # Serve's own way to the jobs deployment.
        self.encoder.__dict__["_jobs"] = self
        self.ticket = ""

    async def _encode_under(self, ticket: str, order: EncodeOrder) -> EncodedVideo:
        self.ticket = ticket
        return await self.encoder.encode_under(ticket, order)


async def until_got(pair: Pair, number: int) -> None:
    while len(pair.encoder.got) < number:
        await asyncio.sleep(0.001)


def test_the_encoder_has_the_first_frames_while_others_are_to_come() -> None:
    """One question after the other, until it is told that these are the last."""

    async def test() -> None:
        pair, source = Pair(), FrameRefs()
        encoding = asyncio.create_task(pair.handle.encode(ORDER, source))
        for number in range(1, 4):
            source.add(number)
            await until_got(pair, number)
            assert not encoding.done()
        source.complete()
        assert (await encoding).size_bytes == 3
        assert pair.encoder.got == [1, 2, 3]

    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_call_that_is_over_gets_no_frames() -> None:
    """An encoder that did not hear of the cancel learns from the answer that nobody waits."""

    async def test() -> None:
        pair, source = Pair(), FrameRefs()
        encoding = asyncio.create_task(pair.handle.encode(ORDER, source))
        source.add(1)
        await until_got(pair, 1)
        encoding.cancel()
        await asyncio.wait([encoding])
        assert await pair.handle.frames(pair.ticket, 1) is None
        with pytest.raises(FramesUnknown):
            await pair.encoder.encode_under(pair.ticket, ORDER)

    asyncio.run(asyncio.wait_for(test(), 10))
