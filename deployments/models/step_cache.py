"""First block cache: a pass through a transformer that begins much like the last one reuses most of
that one's result.

If the first block changes its input about as it did in the last complete pass, what the other
blocks added then is added again, and they are left out. From: chengzeyi/ParaAttention@7a26612
README (First Block Cache), after TeaCache (arXiv:2411.19108). The criterion is that of diffusers
0.42.1 hooks/first_block_cache.py, and without guidance so are the results, bit by bit. It differs:

- The branches of guidance decide together. Guidance multiplies their difference, so that a fresh
  one beside an old one costs more than two old ones: docs/benchmarks.md. The branch that begins a
  step decides, and the others reuse with it, unless they have missed its last complete pass.
- A shell lies around each block while a job runs, instead of a hook in the block's `forward`:
  compiled, quantised or streamed, the block inside stays as it is, from the first job on.
- It counts, for the job to say; and it keeps less of a pass, no text and one tensor a branch.

To decide, a step waits for the device once: which blocks run is decided on the host.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks._helpers import TransformerBlockRegistry
from diffusers.hooks.hooks import BaseState, StateManager
from torch import nn

from deployments.models.blocks import BLOCK_LISTS

NAME = "step_cache"


class _Branch(BaseState):
    """What is kept of the last complete pass of one branch of guidance.

    Attributes:
        rest: (B, N, D), what all blocks but the first together added to the video tokens.
        number: of the leading branch's complete passes, the one it belongs to.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget it."""
        self.rest: torch.Tensor | None = None
        self.number = 0


class StepCache(ModelHook):
    """The cache of one transformer, while it is registered there.

    The branch is the name given to `transformer.cache_context`; what is kept of all branches goes
    with `transformer._reset_stateful_cache`.

    Attributes:
        passes: made so far.
        reused: those of them that took over most of the last one.
    """

    _is_stateful = True

    _leader: str | None
    # What the first block added to the video tokens in the leader's last complete pass.
    _added: torch.Tensor | None
    _number: int
    _reuse: bool
    # Within a pass: what the first block gave; what the last one gives if the pass reuses.
    _after_first: torch.Tensor | None
    _shown: tuple[torch.Tensor, ...] | None

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold
        self.passes = self.reused = 0
        self._branches = StateManager(_Branch)
        self._lists: dict[str, nn.ModuleList] = {}
        self._forget()

    def initialize_hook(self, module: nn.Module) -> nn.Module:
        """Put a shell around each block of `module`."""
        children = dict(module.named_children())
        self._lists = {name: children[name] for name in BLOCK_LISTS if name in children}
        last = sum(map(len, self._lists.values())) - 1
        if last < 1:
            raise ValueError(f"a step cache needs 2 blocks or more, got {last + 1}")
        place = 0
        for name, blocks in self._lists.items():
            shells = nn.ModuleList()
            for block in blocks:
                shells.append(_Shell(block, self, is_first=place == 0, is_last=place == last))
                place += 1
            setattr(module, name, shells)
        return module

    def deinitalize_hook(self, module: nn.Module) -> nn.Module:
        """Take the shells off again. (The name is misspelt in diffusers.)"""
        for name, blocks in self._lists.items():
            setattr(module, name, blocks)
        return module

    def reset_state(self, module: nn.Module) -> nn.Module:
        """Forget all passes; the counts stay."""
        self._branches.reset()
        self._forget()
        return module

    def first(self, block: nn.Module, at: int, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Run the first block and decide on the others.

        Args:
            at: which of the block's results are the video tokens.
            inputs: the block's keyword arguments.

        Returns: the block's results, or what the last block's would be.
        """
        results: tuple[torch.Tensor, ...] = block(**inputs)
        name = self._branches.context.name
        if self._leader in (None, name):
            self._leader = name
            self._decide(results[at] - inputs["hidden_states"])
        self.passes += 1
        branch: _Branch = self._branches.get_state()
        if self._reuse and branch.rest is not None and branch.number == self._number:
            self.reused += 1
            self._shown = (*results[:at], results[at] + branch.rest, *results[at + 1 :])
            return self._shown
        branch.rest, branch.number = None, self._number
        self._after_first = results[at]
        return results

    def other(self, block: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """Run a block after the first, unless this pass reuses."""
        if self._shown is not None:
            return self._shown
        results: tuple[torch.Tensor, ...] = block(**inputs)
        return results

    def finish(self, result: torch.Tensor) -> None:
        """Keep what all blocks after the first have made of the video tokens."""
        if self._after_first is not None:
            self._branches.get_state().rest = result - self._after_first
        self._after_first = self._shown = None

    def _forget(self) -> None:
        self._leader, self._added = None, None
        self._number, self._reuse = 0, False
        self._after_first = self._shown = None

    def _decide(self, added: torch.Tensor) -> None:
        """Decide whether this step's passes reuse."""
        if self._added is not None:
            change = (added - self._added).abs().mean() / self._added.abs().mean()
            self._reuse = change.item() <= self.threshold
        if not self._reuse:
            self._added = added
            self._number += 1


class _Shell(nn.Module):
    """A block that a `StepCache` may leave out."""

    def __init__(
        self, block: nn.Module, cache: StepCache, *, is_first: bool, is_last: bool
    ) -> None:
        super().__init__()
        self.block = block
        self._cache, self._is_first, self._is_last = cache, is_first, is_last
        self._at = TransformerBlockRegistry.get(type(block)).return_hidden_states_index

    def forward(self, **inputs: Any) -> tuple[torch.Tensor, ...]:
        if self._is_first:
            return self._cache.first(self.block, self._at, inputs)
        results = self._cache.other(self.block, inputs)
        if self._is_last:
            self._cache.finish(results[self._at])
        return results


@contextmanager
def step_cache(transformer: nn.Module, threshold: float) -> Iterator[StepCache]:
    """Let `transformer` reuse passes while the context lasts; afterwards it is as it was.

    Args:
        transformer: a Mochi's or an Open-Sora's, driven by this package's samplers, which name the
            branches of guidance and forget a clip at its end.
        threshold: the largest change that counts as none: the mean size of the difference between
            what the first block adds now and what it added in the last complete pass, as a share
            of the mean size of the latter. 0: nothing is reused, and nothing is touched.

    Raises: ValueError: it has no blocks that can be left out.
    """
    cache = StepCache(threshold)
    if threshold == 0:
        yield cache
        return
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    registry.register_hook(cache, NAME)
    try:
        yield cache
    finally:
        registry.remove_hook(NAME, recurse=False)
