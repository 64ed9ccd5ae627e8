import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import pytest

from deployments.backend import backend_class
from deployments.core.config import ModelConfig
from deployments.core.errors import BackendUnavailable, GenerationFailed
from deployments.core.events import FramesStored, PhaseBegan, ReplicaState, Started, Step, Wanted
from deployments.core.spec import VideoRequest, VideoSpec, resolve
from deployments.frame_store import FRAMES_PER_CHUNK
from deployments.lost import ReplicaRestarts
from deployments.video_model import VideoModel
from tests.in_process import CHECKPOINT
from tests.painter import Painter


class Desk:
    """Takes the reports and gives the answers it is told to."""

    def __init__(self) -> None:
        self.states: list[ReplicaState] = []
        self.job_wanted = True
        self.frames_wanted: frozenset[str] = frozenset({"job"})

    async def report(self, state: ReplicaState) -> Wanted:
        self.states.append(state)
        return Wanted(job=self.job_wanted, frames=self.frames_wanted)


def model(desk: Desk, name: str = "painter", device: str = "cuda", **settings: Any) -> VideoModel:
    config = ModelConfig(name=name, backend="tests.painter", **settings)
    return VideoModel(config, CHECKPOINT, device, put=lambda frames: frames, report=desk.report)


def spec(prompt: str = "a red ball", **changes: Any) -> VideoSpec:
    request = VideoRequest(prompt=prompt, seed=1, width=256, height=256, **changes)
    card = Painter.card(ModelConfig(name="painter", backend="tests.painter"), CHECKPOINT)
    return resolve(request, card)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 30))


def test_a_job_streams_its_events_in_order() -> None:
    """Started, the phases, every step, then all frames in chunks for the object store."""

    async def test() -> None:
        painter = model(Desk())
        events = [event async for event in painter.generate("job", "owner", spec(num_frames=64))]
        await painter.close()
        assert isinstance(events[0], Started)
        assert [e.step for e in events if isinstance(e, Step)] == list(range(1, 9))
        assert [e.phase for e in events if isinstance(e, PhaseBegan)] == ["text", "decode"]
        chunks = [event for event in events if isinstance(event, FramesStored)]
        assert sum(chunk.num_frames for chunk in chunks) == 64
        assert all(chunk.num_frames >= FRAMES_PER_CHUNK for chunk in chunks[:-1])
        firsts = [chunk.first_frame for chunk in chunks]
        assert firsts == sorted(firsts)

    run(test())


def test_a_job_that_comes_early_waits_for_the_load() -> None:
    """A replica that replaces a dead one is called before it is ready."""

    async def test() -> None:
        painter = model(Desk())
        async with aclosing(painter.generate("job", "owner", spec())) as events:
            assert isinstance(await anext(events), Started)
        await painter.close()

    run(test())


def test_a_model_that_cannot_load_refuses_and_stays_up() -> None:
    """It says why, and is not restarted for ever."""

    async def test() -> None:
        desk = Desk()
        broken = model(desk, "broken")
        for _ in range(2):
            with pytest.raises(BackendUnavailable, match="no paint"):
                await anext(broken.generate("job", "owner", spec()))
        while not desk.states or desk.states[-1].state != "failed":
            await asyncio.sleep(0.01)
        assert "no paint" in desk.states[-1].reason
        await broken.close()

    run(test())


def test_closing_the_stream_stops_the_work_and_frees_the_thread() -> None:
    """Within one step; then the next job can begin."""

    async def test() -> None:
        painter = model(Desk())
        async with aclosing(painter.generate("job", "owner", spec("a slow hand"))) as events:
            async for event in events:
                if isinstance(event, Step):
                    break
        async with asyncio.timeout(2):
            assert [event async for event in painter.generate("next", "owner", spec())]
        await painter.close()

    run(test())


def test_an_orphan_is_stopped() -> None:
    """When the answer to a report says that nobody waits, the replica stops the job."""

    async def test() -> None:
        desk = Desk()
        desk.job_wanted = False
        painter = model(desk)
        with pytest.raises(Exception, match="nobody waits"):
            async for _ in painter.generate("job", "dead owner", spec("a slow hand")):
                pass
        await painter.close()

    run(test())


def test_frames_are_held_until_nobody_needs_them() -> None:
    """Their references stay alive while jobs hands them to the encoder."""

    async def test() -> None:
        desk = Desk()
        painter = model(desk)
        async for _ in painter.generate("job", "owner", spec()):
            pass
        while not desk.states or desk.states[-1].holding != ("job",):
            await asyncio.sleep(0.01)
        desk.frames_wanted = frozenset()
        painter.changed()
        while desk.states[-1].holding:
            painter.changed()
            await asyncio.sleep(0.01)
        await painter.close()

    run(test())


def test_what_goes_wrong_inside_is_a_generation_failure() -> None:
    """The client learns the kind of error, the log the rest."""

    async def test() -> None:
        painter = model(Desk())
        with pytest.raises(GenerationFailed, match="painter failed: RuntimeError"):
            async for _ in painter.generate("job", "owner", spec("please fail")):
                pass
        await painter.close()

    run(test())


def test_an_unknown_model_is_named() -> None:
    """The config's name has to be a module with a BACKEND."""
    with pytest.raises(ValueError, match="'sora' is not a model"):
        backend_class(ModelConfig(name="sora"))
    with pytest.raises(ValueError, match="'jobs' is not a model"):
        backend_class(ModelConfig(name="jobs"))


async def until_state(desk: Desk, state: str) -> ReplicaState:
    while not desk.states or desk.states[-1].state != state:
        await asyncio.sleep(0.01)
    return desk.states[-1]


def test_an_idle_model_leaves_the_gpu_until_its_next_job() -> None:
    """It can take jobs all the time; idle time is counted anew after each."""

    async def test() -> None:
        desk = Desk()
        painter = model(desk, keep_alive_s=0.1)
        assert (await until_state(desk, "unloaded")).reason
        async for event in painter.generate("job", "owner", spec()):
            if isinstance(event, PhaseBegan):
                painter.changed()
                assert (await until_state(desk, "ready")).job_id == "job"
        await until_state(desk, "unloaded")
        await painter.close()

    run(test())


def test_a_model_that_is_at_work_does_not_leave() -> None:
    """However long its job takes."""

    async def test() -> None:
        desk = Desk()
        painter = model(desk, keep_alive_s=0.0)
        await until_state(desk, "unloaded")
        desk.states.clear()
        async for event in painter.generate("job", "owner", spec("a steady hand")):
            if isinstance(event, Step):
                painter.changed()
        assert "ready" in {state.state for state in desk.states if state.job_id}
        await until_state(desk, "unloaded")
        await painter.close()

    run(test())


def test_a_model_on_the_cpu_stays() -> None:
    """There is nothing to give back."""

    async def test() -> None:
        desk = Desk()
        painter = model(desk, device="cpu", keep_alive_s=0.0)
        async for _ in painter.generate("job", "owner", spec()):
            pass
        await asyncio.sleep(0.05)
        painter.changed()
        await asyncio.sleep(0.05)
        assert desk.states[-1].state == "ready"
        await painter.close()

    run(test())


def test_a_replica_whose_memory_does_not_come_back_asks_to_be_replaced() -> None:
    """The job is well; the replica takes no other, and goes when nobody needs its frames."""

    async def test() -> None:
        desk = Desk()
        painter = model(desk)
        async for _ in painter.generate("job", "owner", spec("a leaky hand")):
            pass
        state = await until_state(desk, "restarting")
        assert state.reason == "1.2 GB of GPU memory did not come back after a job"
        assert state.holding == ("job",)
        assert not painter.spent
        with pytest.raises(ReplicaRestarts):
            await anext(painter.generate("next", "owner", spec()))
        desk.frames_wanted = frozenset()
        while not painter.spent:
            painter.changed()
            await asyncio.sleep(0.01)
        await painter.close()

    run(test())


def test_a_replica_whose_gpu_fails_asks_to_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every later job would fail, too."""

    def held_gb(self: Painter) -> float:
        if self._held_gb:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return 0.0

    async def test() -> None:
        desk = Desk()
        painter = model(desk)
        async for _ in painter.generate("job", "owner", spec("a leaky hand")):
            pass
        assert "does not work any more" in (await until_state(desk, "restarting")).reason
        await painter.close()

    monkeypatch.setattr(Painter, "held_gb", held_gb)
    run(test())
