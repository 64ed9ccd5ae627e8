"""Every way to store a transformer's weights, on tiny networks of both models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from deployments.models.lora import linears
from deployments.models.mochi1 import sampling as mochi
from deployments.models.opensora import sampling as opensora
from deployments.models.opensora.schedule import Guidance, timesteps
from deployments.models.quantised import NF4, NF4_BLOCK, Int8Linear, Nf4Linear
from deployments.models.streaming import (
    HOST_RESERVE_BYTES,
    end_streaming,
    is_streamed,
    lockable,
    stream,
)
from deployments.models.weight_modes import WeightMode, move, set_weight_mode
from tests import tiny_mochi, tiny_opensora
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import POOLED_DIM

# The stock rotary embedding asks for an autocast that the CPU lacks.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

# Mean difference (of squares) of the latents from those of the weights as they were, in their
# deviations. These networks are random and narrow: it says nothing of trained ones.
TOLERANCES: dict[WeightMode, float] = {"fp8": 0.03, "int8": 0.01, "nf4": 0.1}


def mochi_latents(transformer: Any) -> torch.Tensor:
    noise = mochi.initial_noise(0, (1, 12, 2, 4, 6))
    prompt = torch.randn(1, 5, TEXT_DIM, generator=torch.Generator().manual_seed(1))
    steps = mochi.denoise(transformer, noise, prompt, prompt[:, :0], [0.0, 0.1, 0.5, 1.0], 4.0)
    return list(steps)[-1].latents


def opensora_latents(transformer: Any) -> torch.Tensor:
    noise = opensora.initial_noise(0, (1, 16, 2, 4, 6))
    generator = torch.Generator().manual_seed(1)
    text = opensora.TextEmbedding(
        torch.randn(1, 5, TEXT_DIM, generator=generator),
        torch.randn(1, POOLED_DIM, generator=generator),
    )
    steps = opensora.denoise(transformer, noise, text, text, timesteps(3, 1.0), Guidance())
    return list(steps)[-1].latents


Model = tuple[Callable[[], Any], Callable[[Any], torch.Tensor]]
MODELS: dict[str, Model] = {
    "mochi": (tiny_mochi.tiny_transformer, mochi_latents),
    "opensora": (tiny_opensora.tiny_transformer, opensora_latents),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Model:
    return MODELS[request.param]


def stored(model: Model, mode: WeightMode) -> Any:
    transformer = model[0]()
    set_weight_mode(transformer, mode, "cpu")
    return move(transformer, "cpu")


@pytest.mark.parametrize("mode", ["resident", "streamed"])
def test_streamed_weights_give_the_same_bits(model: Model, mode: WeightMode) -> None:
    """Every time."""
    make, latents = model
    transformer = stored(model, mode)
    expected = latents(make())
    for _ in range(2):
        assert torch.equal(latents(transformer), expected)


@pytest.mark.parametrize("mode", TOLERANCES)
def test_weights_in_fewer_bits_come_close_and_are_the_same_each_time(
    model: Model, mode: WeightMode
) -> None:
    """And are not the same as before: a mode that did nothing would be as close as can be."""
    make, latents = model
    transformer = stored(model, mode)
    expected, made = latents(make()), latents(transformer)
    off = (made - expected).square().mean().sqrt() / expected.std()
    assert 0 < off < TOLERANCES[mode]
    assert torch.equal(latents(transformer), made)


@pytest.mark.parametrize("mode", TOLERANCES)
def test_such_a_network_moves_like_any_other(model: Model, mode: WeightMode) -> None:
    """All of it: nothing stays behind, and nothing is turned back on the way."""
    transformer = stored(model, mode)
    size = sum(each.nbytes for each in tensors(transformer))
    moved = move(transformer, "meta")
    assert all(each.is_meta for each in tensors(moved))
    assert sum(each.nbytes for each in tensors(moved)) == size


@pytest.mark.parametrize("mode", TOLERANCES)
def test_such_a_network_can_be_streamed_too(model: Model, mode: WeightMode) -> None:
    """As a job does whose memory runs out."""
    _, latents = model
    transformer = stored(model, mode)
    expected = latents(transformer)
    stream(transformer, "cpu")
    assert torch.equal(latents(transformer), expected)
    end_streaming(transformer)
    assert torch.equal(latents(transformer), expected)


@pytest.mark.parametrize("mode", TOLERANCES)
def test_lora_finds_the_same_layers(model: Model, mode: WeightMode) -> None:
    """Of the same sizes: it adds to what they compute."""
    assert linears(stored(model, mode)) == linears(model[0]())


def tensors(network: nn.Module) -> list[torch.Tensor]:
    return [*network.parameters(), *network.buffers()]


def test_a_streamed_network_rests_wherever_a_pass_broke_off(
    model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """Also the first one, which finds the order of the blocks; the next is as if nothing were."""
    make, latents = model
    expected = latents(make())
    transformer = stored(model, "streamed")
    breaks = transformer.transformer_blocks[1].register_forward_pre_hook(fail)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            latents(transformer)
        assert move(transformer, "cuda") is transformer
    breaks.remove()
    assert torch.equal(latents(transformer), expected)
    assert is_streamed(transformer)
    end_streaming(transformer)
    assert not is_streamed(transformer)
    assert torch.equal(latents(transformer), expected)
    assert not caplog.messages


def fail(*_: object) -> None:
    raise RuntimeError("out of memory")


def test_weights_are_locked_in_the_hosts_memory_where_it_has_room() -> None:
    """torch locks powers of two; where that is too much, each block is locked as it is brought."""
    sizes, reserve = [3 * 2**30, 2**30], HOST_RESERVE_BYTES
    assert lockable(sizes, 5 * 2**30 + reserve)
    assert not lockable(sizes, 5 * 2**30 + reserve - 1)
    with pytest.raises(MemoryError, match=r"they need 6\.0 GB of it, and 5\.5 GB are free"):
        lockable(sizes, 11 * 2**29)


def random_linear(out_features: int, in_features: int) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(in_features, out_features)


def test_int8_is_off_by_half_a_step_of_its_channel() -> None:
    """255 steps from the least to the largest of a channel; zeros stay zeros."""
    linear = random_linear(24, 100)
    with torch.no_grad():
        linear.weight[3] = 0
    layer = Int8Linear.of(linear)
    off = (layer.dequantised() - linear.weight).abs()
    step = linear.weight.abs().amax(dim=1, keepdim=True) / 127
    assert (off <= 0.5001 * step).all()
    assert not layer.dequantised()[3].any()


@pytest.mark.parametrize("in_features", [128, 100])
def test_nf4_takes_the_nearest_of_its_sixteen_numbers(in_features: int) -> None:
    """In every block of 64 consecutive weights, the last of which may be shorter."""
    linear = random_linear(7, in_features)
    flat = linear.weight.detach().flatten()
    made = Nf4Linear.of(linear).dequantised().flatten()
    for block, expected in zip(made.split(NF4_BLOCK), flat.split(NF4_BLOCK), strict=True):
        numbers = torch.tensor(NF4) * expected.abs().max()
        nearest = (expected[:, None] - numbers).abs().min(dim=1).values
        torch.testing.assert_close((block - expected).abs(), nearest, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", [Int8Linear, Nf4Linear])
def test_a_rounded_scale_is_made_up_for(kind: type[Int8Linear] | type[Nf4Linear]) -> None:
    """In bfloat16 a channel is not louder or softer as a whole."""
    linear = random_linear(64, 4096).bfloat16()
    exact, made = linear.weight.detach().float(), kind.of(linear).dequantised()
    assert made.dtype == torch.bfloat16
    gain = (made.float() * exact).sum(dim=1) / exact.square().sum(dim=1)
    assert (gain - 1).abs().mean() < {Int8Linear: 0.0005, Nf4Linear: 0.02}[kind]


@pytest.mark.parametrize("kind", [Int8Linear, Nf4Linear])
def test_a_layer_without_bias_and_one_of_zeros(kind: type[Int8Linear] | type[Nf4Linear]) -> None:
    """Neither is divided by zero."""
    linear = nn.Linear(8, 3, bias=False)
    nn.init.zeros_(linear.weight)
    assert torch.equal(kind.of(linear)(torch.ones(2, 8)), torch.zeros(2, 3))
