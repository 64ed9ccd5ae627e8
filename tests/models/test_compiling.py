"""Compiled blocks give what plain ones give, whatever the shape, and are compiled before a job."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from deployments.models import compiling
from deployments.models.compiling import compile_blocks
from deployments.models.mochi1 import warming as mochi_warming
from deployments.models.mochi1.attention import use_trimmed_attention
from deployments.models.mochi1.sampling import denoise as mochi_denoise
from deployments.models.mochi1.sampling import initial_noise, linear_quadratic
from deployments.models.opensora import warming as opensora_warming
from deployments.models.opensora.sampling import TextEmbedding
from deployments.models.opensora.sampling import denoise as opensora_denoise
from deployments.models.opensora.schedule import Guidance, timesteps
from deployments.models.step_cache import step_cache
from deployments.models.streaming import end_streaming, stream
from deployments.models.weight_modes import set_weight_mode
from tests import tiny_mochi, tiny_opensora
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import POOLED_DIM

pytestmark = [
    pytest.mark.filterwarnings("ignore:In CPU autocast"),
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
]
# Latents' (T, h, w), and tokens of the prompt, none of which the warm-up has.
SHAPES = (((3, 4, 6), 9), ((5, 8, 6), 2), ((1, 6, 10), 13))


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    threads = torch._inductor.config.compile_threads
    limit = torch._dynamo.config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch._inductor.config.compile_threads = threads
    torch._dynamo.config.recompile_limit = limit


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but the making of machine code, which takes long."""
    monkeypatch.setattr(compiling, "BACKEND", "eager")


class Mochi:
    warm_up = staticmethod(mochi_warming.warm_up)

    def __init__(self) -> None:
        self.transformer = tiny_mochi.tiny_transformer()
        use_trimmed_attention(self.transformer)

    def run(self, shape: tuple[int, ...], tokens: int, steps: int = 2) -> torch.Tensor:
        prompt = initial_noise(1, (1, tokens, TEXT_DIM))
        noise = initial_noise(0, (1, 12, *shape))
        sigmas = linear_quadratic(steps)
        *_, last = mochi_denoise(self.transformer, noise, prompt, prompt[:, :0], sigmas, 4.5)
        return last.latents


class OpenSora:
    warm_up = staticmethod(opensora_warming.warm_up)

    def __init__(self) -> None:
        self.transformer = tiny_opensora.tiny_transformer()

    def run(self, shape: tuple[int, ...], tokens: int, steps: int = 2) -> torch.Tensor:
        prompt = TextEmbedding(
            initial_noise(1, (1, tokens, TEXT_DIM)), initial_noise(2, (1, POOLED_DIM))
        )
        noise = initial_noise(0, (1, 16, *shape))
        times = timesteps(steps, 1.5)
        *_, last = opensora_denoise(
            self.transformer, noise, prompt, prompt, times, Guidance(image=1.0)
        )
        return last.latents


def compiled(model: Mochi | OpenSora) -> int:
    """Compile, and return how many variants that took."""
    compile_blocks(model.transformer, lambda: model.warm_up(model.transformer))
    return counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("traced_only")
def test_a_block_is_compiled_as_a_whole_for_every_size_of_clip_and_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One kind of block, as each takes seconds; the others are in the soak tests."""
    monkeypatch.setattr(mochi_warming, "SHAPES", mochi_warming.SHAPES[:1])
    model = Mochi()
    del model.transformer.transformer_blocks[:-1]
    plain = [model.run(*shape) for shape in SHAPES[:2]]
    assert compiled(model) == 2  # with a prompt, and without
    for shape, expected in zip(SHAPES[:2], plain, strict=True):
        torch.testing.assert_close(model.run(*shape), expected, atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.soak
@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("family", [Mochi, OpenSora])
def test_after_the_warm_up_nothing_is_compiled_anew(family: type[Mochi | OpenSora]) -> None:
    """Whatever the shape, in a fast job between exact ones, and with weights streamed for a while,
    as when memory runs out; and nothing in a block is left out of what is compiled."""
    model = family()
    plain = [model.run(*shape) for shape in SHAPES]
    variants = compiled(model)
    assert 0 < variants <= 8
    for shape, expected in zip(SHAPES, plain, strict=True):
        torch.testing.assert_close(model.run(*shape), expected, atol=1e-5, rtol=1e-5)
    with step_cache(model.transformer, 1e9) as cache:
        model.run(*SHAPES[0])
    assert cache.reused
    stream(model.transformer, "cpu")
    torch.testing.assert_close(model.run(*SHAPES[0]), plain[0], atol=1e-5, rtol=1e-5)
    end_streaming(model.transformer)
    torch.testing.assert_close(model.run(*SHAPES[0]), plain[0], atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] == variants
    assert not counters["graph_break"]


class Block(nn.Module):
    """As little as the real compiler has to do."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return (hidden_states * 2).sin()


def small() -> nn.Module:
    network = nn.Module()
    network.transformer_blocks = nn.ModuleList([Block(), Block()])
    return network


def run_small(network: nn.Module, length: int) -> torch.Tensor:
    hidden = torch.linspace(0, 1, length)
    for block in network.transformer_blocks:
        hidden = block(hidden_states=hidden)
    return hidden


def test_blocks_of_one_kind_share_their_machine_code() -> None:
    """Made by the real compiler, in this process."""
    network = small()
    compile_blocks(network, lambda: run_small(network, 7))
    for length in (7, 100, 101):
        torch.testing.assert_close(run_small(network, length), run_small(small(), length))
    assert counters["stats"]["unique_graphs"] == 1


def test_a_compiler_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The replica shows the sentence; the transformer works as before."""
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    network = small()
    with pytest.raises(RuntimeError, match=r"^compile: torch's compiler failed: .*\(g\+\+\)"):
        compile_blocks(network, lambda: run_small(network, 7))
    torch.testing.assert_close(run_small(network, 9), run_small(small(), 9))


@pytest.mark.soak
@pytest.mark.parametrize("family", [Mochi, OpenSora])
@pytest.mark.parametrize("weights", ["resident", "int8", "nf4"])
def test_machine_code_of_the_real_blocks_gives_what_plain_blocks_give(
    family: type[Mochi | OpenSora], weights: str
) -> None:
    """It takes a minute to make."""
    model = family()
    set_weight_mode(model.transformer, weights, "cpu")
    plain = [model.run(*shape) for shape in SHAPES]
    variants = compiled(model)
    for shape, expected in zip(SHAPES, plain, strict=True):
        torch.testing.assert_close(model.run(*shape), expected, atol=1e-4, rtol=1e-4)
    assert counters["stats"]["unique_graphs"] == variants
    assert not counters["graph_break"]
