"""A model's networks while they make one video: which of them lie on the GPU in which phase.

Knows no model; torch is imported nowhere, and what moves networks inside methods only.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from deployments.core.errors import InsufficientVram
from deployments.core.log import logger
from deployments.core.memory import Mode, PhaseName
from deployments.device_memory import DeviceMemory
from deployments.ladder import IN_TURNS, STREAMED, Attempt, Ladder, Rung, is_out_of_memory

Inputs = ParamSpec("Inputs")
Result = TypeVar("Result")

# What may be on the GPU when all networks have left it: latents, embeddings, tables of positions.
LEFT_OVER_GB = 1.0


class PlacedJob:
    """The networks of one model in one job.

    A phase is run by `run`, and says with `take` which network it needs.

    Args:
        parts: the networks by name, as attributes.
        places: by name, the device where each lies between jobs: transformer, VAE, text encoders.
        device: where they work; text encoders that lie on the CPU work there.
        mode: the replica's.
        device_memory: None where everything stays where it is.
        stand_in: a transformer that works in the place of the one in `parts`, which leaves the GPU
            meanwhile; between jobs it is on the CPU. None: that one works itself.
        low_vram: the request asks for less memory: transformer and VAE take turns in any mode.
        refusal: makes the error for when memory has run out on every rung.
    """

    def __init__(
        self,
        parts: Any,
        places: Mapping[str, str],
        device: str,
        mode: Mode,
        device_memory: DeviceMemory | None,
        *,
        stand_in: Any = None,
        low_vram: bool,
        refusal: Callable[[], InsufficientVram],
    ) -> None:
        self._parts, self._places, self._device = parts, places, device
        self._own_parts = parts
        self._text_parts = [name for name in places if name not in ("transformer", "vae")]
        self._memory = device_memory
        rungs = [] if device_memory is None else _rungs(mode, low_vram)
        self._ladder = Ladder(rungs, self._free, refusal)
        self._in_turns = mode.take_turns or low_vram
        self._streams = False
        if self._in_turns:
            self._put_aside("vae")
        if stand_in is not None:
            self._put_aside("transformer")
            self._parts = replace(parts, transformer=stand_in)

    def run(
        self,
        phase: PhaseName,
        attempt: Callable[Concatenate["PlacedJob", Inputs], Attempt[Result]],
        *args: Inputs.args,
        **kwargs: Inputs.kwargs,
    ) -> Attempt[Result]:
        """Run a phase: `attempt(self, *args)`, again on lower rungs where memory runs out; see
        `Ladder.run`."""
        return self._ladder.run(phase, lambda: attempt(self, *args, **kwargs))

    def take_text(self) -> None:
        """Have the text encoders where they read prompts."""
        if IN_TURNS in self._ladder.taken:
            self._put_aside("transformer", "vae")
        for name in self._text_parts:
            self._move(name, self._places[name])

    def take(self, name: Literal["transformer", "vae"]) -> Any:
        """Return the network, where it can work; the others have left where they take turns."""
        if IN_TURNS in self._ladder.taken:
            self._put_aside(*self._text_parts)
        if self._in_turns or IN_TURNS in self._ladder.taken:
            self._put_aside("vae" if name == "transformer" else "transformer")
        if name == "transformer" and STREAMED in self._ladder.taken:
            self._stream_transformer()
        return self._move(name, self._device)

    def end(self) -> None:
        """Leave the networks where they lie between jobs."""
        if self._memory is None:
            return
        self._end_streaming()
        if self._parts is not self._own_parts:
            self._put_aside("transformer")
            self._parts = self._own_parts
        if not self._brought_back():
            logger.warning("the GPU has no room for what lies there between jobs")
            self._put_aside(*self._places)
        self._memory.release()

    def _move(self, name: str, device: str) -> Any:
        from deployments.models.weight_modes import move

        return move(getattr(self._parts, name), device)

    def _put_aside(self, *names: str) -> None:
        if self._memory is not None:
            for name in names:
                self._move(name, "cpu")

    def _free(self) -> bool:
        """Empty the GPU; return whether what a failed attempt took came back."""
        if self._memory is None:
            return False
        self._put_aside(*self._places)
        self._memory.release()
        left_gb = self._memory.held_gb()
        if left_gb > LEFT_OVER_GB:
            logger.warning("%.1f GB are still taken though all networks left the GPU", left_gb)
        return left_gb <= LEFT_OVER_GB

    def _stream_transformer(self) -> None:
        from deployments.models.streaming import stream

        if not self._streams:
            stream(self._move("transformer", "cpu"), self._device)
            self._streams = True

    def _end_streaming(self) -> None:
        """Undo what `_stream_transformer` did, wherever a pass broke off."""
        from deployments.models.streaming import end_streaming

        if self._streams:
            end_streaming(self._parts.transformer)
            self._streams = False

    def _brought_back(self) -> bool:
        """Move each network to its place between jobs; return False where memory ran out."""
        try:
            for name, place in self._places.items():
                self._move(name, place)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


def _rungs(mode: Mode, low_vram: bool) -> list[Rung]:
    """Return what a job may still do when memory runs out, the fastest first."""
    in_turns_already = (mode.take_turns or low_vram) and not mode.text_on_gpu
    rungs = [] if in_turns_already else [IN_TURNS]
    return rungs if mode.transformer == "streamed" else [*rungs, STREAMED]
