"""The step cache on both tiny networks: its criterion, its branches, and no trace afterwards."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import nn

from deployments.models.mochi1 import sampling as mochi
from deployments.models.opensora import sampling as opensora
from deployments.models.opensora.schedule import Guidance, timesteps
from deployments.models.step_cache import step_cache
from tests import tiny_mochi, tiny_opensora

# The stock networks' rotary embedding asks for an autocast that the CPU lacks.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

STEPS = 8
# On these random networks it leaves out some passes and not others.
THRESHOLD = 0.4
EVERYTHING = 1e9


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mochi_steps(network: nn.Module, frames: int = 2, scale: float = 4.5) -> Iterator[Any]:
    prompt = random(1, 1, 5, tiny_mochi.TEXT_DIM), random(2, 1, 0, tiny_mochi.TEXT_DIM)
    noise = mochi.initial_noise(3, (1, 12, frames, 4, 4))
    return mochi.denoise(network, noise, *prompt, mochi.linear_quadratic(STEPS), scale)


def opensora_steps(
    network: nn.Module, frames: int = 2, scale: float = 3.0, num_steps: int = STEPS
) -> Iterator[Any]:
    prompts = (
        opensora.TextEmbedding(
            random(seed, 1, 7, tiny_opensora.TEXT_DIM), random(seed, 1, tiny_opensora.POOLED_DIM)
        )
        for seed in (1, 2)
    )
    noise = opensora.initial_noise(3, (1, 16, frames, 4, 4))
    image = random(4, 1, 16, 1, 4, 4)
    guidance = Guidance(scale, scale)
    return opensora.denoise(network, noise, *prompts, timesteps(num_steps, 2.0), guidance, image)


Steps = Callable[..., Iterator[Any]]
FAMILIES = {
    "mochi": (tiny_mochi.tiny_transformer, mochi_steps),
    "opensora": (tiny_opensora.tiny_transformer, opensora_steps),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[nn.Module, Steps]:
    make, steps = FAMILIES[request.param]
    return make(), steps


def result(steps: Iterator[Any]) -> torch.Tensor:
    *_, last = steps
    return last.latents


def test_without_guidance_it_is_the_cache_of_diffusers(family: tuple[nn.Module, Steps]) -> None:
    """Bit by bit, with some passes left out and others made."""
    network, steps = family
    network.enable_cache(FirstBlockCacheConfig(threshold=THRESHOLD))
    expected = result(steps(network, scale=1.0))
    network.disable_cache()
    with step_cache(network, THRESHOLD) as cache:
        assert torch.equal(result(steps(network, scale=1.0)), expected)
    assert 0 < cache.reused < cache.passes == STEPS


def test_the_branches_of_a_step_reuse_together(family: tuple[nn.Module, Steps]) -> None:
    """Guidance would multiply the difference between an old one and a fresh one."""
    network, steps = family
    reused: list[int] = []
    with step_cache(network, THRESHOLD) as cache:
        for _ in steps(network):
            reused.append(cache.reused - sum(reused))
    branches = 2 if steps is mochi_steps else 3
    assert set(reused) == {0, branches}


def test_a_branch_that_missed_the_last_complete_pass_makes_its_own() -> None:
    """From step 10 on, Open-Sora's guidance rests at every other step."""
    network = tiny_opensora.tiny_transformer()
    with step_cache(network, 1e-9) as never:
        for step, _ in enumerate(opensora_steps(network, num_steps=14)):
            if step == 11:
                never.threshold = EVERYTHING
                before = never.reused
    # Step 12 has three branches: the first reuses what it made in step 11, the others made
    # nothing then. In step 13 the first is alone and reuses again.
    assert (before, never.reused) == (0, 2)


def test_each_branch_keeps_its_own_and_makes_its_first_pass(
    family: tuple[nn.Module, Steps],
) -> None:
    """With one memory for all, a branch would take over another's result in the same step."""
    network, steps = family
    ran: list[int] = []
    last = list(network.transformer_blocks)[-1]
    last.register_forward_hook(lambda *_: ran.append(1))
    with step_cache(network, EVERYTHING) as cache:
        fast = result(steps(network))
    branches = 2 if steps is mochi_steps else 3
    assert len(ran) == branches == cache.passes - cache.reused
    assert torch.isfinite(fast).all()


def test_afterwards_the_network_is_as_before(family: tuple[nn.Module, Steps]) -> None:
    """Exact, fast, exact of another size, and exact again; also the names of the weights."""
    network, steps = family
    names = list(network.state_dict())
    exact, other = result(steps(network)), result(steps(network, frames=3))
    with step_cache(network, EVERYTHING):
        assert not torch.equal(result(steps(network)), exact)
    assert torch.equal(result(steps(network, frames=3)), other)
    assert torch.equal(result(steps(network)), exact)
    assert list(network.state_dict()) == names


def test_a_fast_job_that_is_stopped_leaves_no_trace(family: tuple[nn.Module, Steps]) -> None:
    """Neither in an exact job nor in a fast one of another size."""
    network, steps = family
    exact = result(steps(network))
    with step_cache(network, THRESHOLD):
        fast = result(steps(network, frames=3))
    with step_cache(network, THRESHOLD):
        stopped = steps(network)
        for _ in range(3):
            next(stopped)
        stopped.close()
    assert torch.equal(result(steps(network)), exact)
    with step_cache(network, THRESHOLD):
        assert torch.equal(result(steps(network, frames=3)), fast)


def test_it_counts_over_several_clips(family: tuple[nn.Module, Steps]) -> None:
    """As the segments of a long clip are: nothing is taken over from one to the next."""
    network, steps = family
    with step_cache(network, EVERYTHING) as cache:
        first = result(steps(network))
        made = cache.passes - cache.reused
        assert torch.equal(result(steps(network)), first)
    assert cache.passes - cache.reused == 2 * made


def test_a_threshold_of_0_touches_nothing(family: tuple[nn.Module, Steps]) -> None:
    """An exact job runs the network itself."""
    network, _ = family
    blocks = network.transformer_blocks
    with step_cache(network, 0.0):
        assert network.transformer_blocks is blocks


def test_streamed_blocks_give_the_same(family: tuple[nn.Module, Steps]) -> None:
    """Group offload hooks into the blocks, which may then be left out."""
    network, steps = family
    with step_cache(network, THRESHOLD):
        expected = result(steps(network))
    network.enable_group_offload("cpu", offload_type="block_level", num_blocks_per_group=1)
    for _ in range(2):
        with step_cache(network, THRESHOLD):
            assert torch.equal(result(steps(network)), expected)


def test_the_blocks_themselves_stay_as_they_are(family: tuple[nn.Module, Steps]) -> None:
    """A compiled block would be compiled again if its `forward` were another one."""
    network, _ = family
    blocks = list(network.transformer_blocks)
    with step_cache(network, THRESHOLD):
        assert [shell.block for shell in network.transformer_blocks] == blocks
        assert all("forward" not in vars(block) for block in blocks)
    assert list(network.transformer_blocks) == blocks


def test_a_network_of_one_block_has_nothing_to_leave_out() -> None:
    """The error says how many it takes."""
    network = nn.Module()
    network.transformer_blocks = tiny_mochi.tiny_transformer().transformer_blocks[:1]
    with pytest.raises(ValueError, match="2 blocks or more, got 1"), step_cache(network, 0.1):
        pass
