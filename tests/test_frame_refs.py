"""References on their way from a run to the encoder; plain numbers stand for them."""

import asyncio

from deployments.frame_refs import FrameRefs


def test_every_reader_gets_all_from_the_first_on() -> None:
    """Also one that comes later, in place of one that died; each gets them as they come."""

    async def test() -> None:
        source, seen = FrameRefs(), []

        async def read() -> list[int]:
            async for ref in source:
                seen.append(ref)
            return list(seen)

        early = asyncio.create_task(read())
        source.add(1)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert seen == [1]
        source.add(2)
        source.complete()
        assert await early == [1, 2]
        assert [ref async for ref in source] == [1, 2]

    asyncio.run(test())


def test_whoever_asks_is_told_what_follows_what_he_has() -> None:
    """At once if there is something, when it comes if not, and in vain at the end of his time."""

    async def test() -> None:
        source = FrameRefs()
        assert (await source.after(0, 0.01)).refs == ()
        asking = asyncio.create_task(source.after(0, 5))
        await asyncio.sleep(0)
        source.add(1)
        more = await asking
        assert (more.refs, more.last) == ((1,), False)
        source.add(2)
        source.add(3)
        assert (await source.after(1, 5)).refs == (2, 3)
        asking = asyncio.create_task(source.after(3, 5))
        await asyncio.sleep(0)
        source.complete()
        more = await asking
        assert (more.refs, more.last) == ((), True)

    asyncio.run(test())


def test_it_has_begun_with_the_first_or_when_none_will_come() -> None:
    """A clip of nothing ends its readers, too."""

    async def test() -> None:
        for tell in (lambda source: source.add(1), FrameRefs.complete):
            source = FrameRefs()
            waiting = asyncio.create_task(source.begun())
            await asyncio.sleep(0)
            assert not waiting.done()
            tell(source)
            await waiting
        assert [ref async for ref in source] == []

    asyncio.run(test())
