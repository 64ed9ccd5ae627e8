"""LoRA in the transformers: the effect of its formula, and no trace afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import save_file
from torch._dynamo.testing import CompileCounter

from deployments.core.lora_layers import lora_layers
from deployments.core.safetensors_header import read_header
from deployments.models.lora import Adapter, active, linears
from deployments.models.mochi1.attention import use_trimmed_attention
from deployments.models.weight_modes import set_weight_mode
from tests import tiny_mochi, tiny_opensora
from tests.tiny_lora import Matrices, merge, random_lora, write_lora

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")
MOCHI = ("transformer_blocks.0.attn1.to_q", "transformer_blocks.0.ff.net.0.proj")
Network = tuple[Callable[[], Any], Callable[[Any], torch.Tensor]]


@torch.no_grad()
def run_mochi(network: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    dtype = network.dtype
    output: torch.Tensor = network(
        hidden_states=torch.randn(1, 12, 2, 4, 4, generator=generator).to(dtype),
        encoder_hidden_states=torch.randn(1, 8, tiny_mochi.TEXT_DIM, generator=generator).to(dtype),
        timestep=torch.tensor([500.0]).to(dtype),
        encoder_attention_mask=torch.ones(1, 8, dtype=torch.bool),
        return_dict=False,
    )[0]
    return output


@torch.no_grad()
def run_opensora(network: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(7)
    output: torch.Tensor = network(
        hidden_states=torch.randn(1, 6, 64, generator=generator),
        cond=torch.zeros(1, 6, 68),
        encoder_hidden_states=torch.randn(1, 8, tiny_mochi.TEXT_DIM, generator=generator),
        pooled_projections=torch.randn(1, tiny_opensora.POOLED_DIM, generator=generator),
        timestep=torch.tensor([0.5]),
        img_ids=torch.arange(18.0).reshape(6, 3),
        txt_ids=torch.zeros(8, 3),
        return_dict=False,
    )[0]
    return output


def trimmed() -> Any:
    network = tiny_mochi.tiny_transformer()
    use_trimmed_attention(network)
    return network


NETWORKS = pytest.mark.parametrize(
    "network",
    [
        (tiny_mochi.tiny_transformer, run_mochi),
        (trimmed, run_mochi),
        (tiny_opensora.tiny_transformer, run_opensora),
    ],
    ids=["mochi", "mochi as it is run", "opensora"],
)


def adapter(path: Path, network: Any, strength: float = 1.0) -> Adapter:
    layers = lora_layers(read_header(path), linears(network))
    return Adapter(path, layers, strength)


@NETWORKS
def test_two_loras_add_up_and_leave_nothing_behind(network: Network, tmp_path: Path) -> None:
    """The effect is that of weights with the products added, in every layer: none is passed over,
    whichever processor computes the attention."""
    make, run = network
    plain, merged = make(), make()
    before, modules = run(plain), list(plain.modules())
    both = []
    for number, strength in enumerate((0.5, -1.5)):
        matrices = random_lora(plain, linears(plain), rank=2 + number, seed=number)
        path = write_lora(tmp_path / f"{number}.safetensors", matrices)
        both.append(adapter(path, plain, strength))
        merge(merged, matrices, strength)
    with active(plain, both):
        found = run(plain)
        assert not torch.allclose(found, before)
    torch.testing.assert_close(found, run(merged), rtol=1e-2, atol=1e-3)
    assert torch.equal(run(plain), before)
    assert all(one is other for one, other in zip(plain.modules(), modules, strict=True))
    assert plain.state_dict().keys() == merged.state_dict().keys()


def test_a_layer_is_known_by_its_whole_name(tmp_path: Path) -> None:
    """The outermost `proj_out` is not that of each block."""
    plain, merged = tiny_opensora.tiny_transformer(), tiny_opensora.tiny_transformer()
    matrices = random_lora(plain, ["proj_out"])
    merge(merged, matrices)
    path = write_lora(tmp_path / "a.safetensors", matrices)
    with active(plain, [adapter(path, plain)]):
        torch.testing.assert_close(run_opensora(plain), run_opensora(merged))


@NETWORKS
def test_strength_nought_changes_no_bit(network: Network, tmp_path: Path) -> None:
    make, run = network
    plain = make()
    before = run(plain)
    path = write_lora(tmp_path / "a.safetensors", random_lora(plain, linears(plain)))
    with active(plain, [adapter(path, plain, 0.0)]):
        assert torch.equal(run(plain), before)


def test_the_network_is_as_it_was_after_an_error(tmp_path: Path) -> None:
    """The next video must not get the LoRA of one that failed."""
    plain = tiny_mochi.tiny_transformer()
    before = run_mochi(plain)
    path = write_lora(tmp_path / "a.safetensors", random_lora(plain, MOCHI))
    with pytest.raises(RuntimeError), active(plain, [adapter(path, plain)]):
        raise RuntimeError("stopped")
    good = adapter(path, plain)
    numbers = {
        f"{layer}.{part}.weight": torch.ones(shape, dtype=torch.int8)
        for layer in MOCHI
        for part, shape in (
            ("lora_A", (2, 32)),
            ("lora_B", (plain.get_submodule(layer).out_features, 2)),
        )
    }
    save_file(numbers, tmp_path / "int8.safetensors")
    bad = adapter(tmp_path / "int8.safetensors", plain)
    with (
        pytest.raises(ValueError, match=r"int8\.safetensors: .*to_q.*int8"),
        active(plain, [good, bad]),
    ):
        raise AssertionError
    assert torch.equal(run_mochi(plain), before)


def test_a_scale_in_the_metadata_counts(tmp_path: Path) -> None:
    plain = tiny_mochi.tiny_transformer()
    matrices = random_lora(plain, MOCHI)
    settings = {
        "transformer.r": 2,
        "transformer.lora_alpha": 3,
        "transformer.alpha_pattern": {"to_q": 1},
    }
    path = write_lora(
        tmp_path / "a.safetensors",
        matrices,
        metadata={"lora_adapter_metadata": json.dumps(settings)},
    )
    merged = tiny_mochi.tiny_transformer()
    merge(merged, {MOCHI[0]: matrices[MOCHI[0]]}, 1 / 2)
    merge(merged, {MOCHI[1]: matrices[MOCHI[1]]}, 3 / 2)
    with active(plain, [adapter(path, plain)]):
        torch.testing.assert_close(run_mochi(plain), run_mochi(merged), rtol=1e-3, atol=1e-4)


def test_alpha_beside_the_matrices_counts(tmp_path: Path) -> None:
    """As kohya-ss' scripts write it, with underscores for dots."""
    plain = tiny_mochi.tiny_transformer()
    matrices = random_lora(plain, MOCHI)
    tensors = {}
    for name, (down, up) in matrices.items():
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        tensors[f"{flat}.alpha"] = torch.tensor(1.0)
    save_file(tensors, tmp_path / "a.safetensors")
    merged = tiny_mochi.tiny_transformer()
    merge(merged, matrices, 1 / 2)
    with active(plain, [adapter(tmp_path / "a.safetensors", plain)]):
        torch.testing.assert_close(run_mochi(plain), run_mochi(merged), rtol=1e-3, atol=1e-4)


def test_mochis_authors_layers_are_three_of_diffusers(tmp_path: Path) -> None:
    plain, merged = tiny_mochi.tiny_transformer(), tiny_mochi.tiny_transformer()
    block = "transformer_blocks.1.attn1"
    down, up = torch.randn(2, 32), torch.randn(3 * 32, 2)
    save_file(
        {"blocks.1.attn.qkv_x.lora_A": down, "blocks.1.attn.qkv_x.lora_B": up},
        tmp_path / "a.safetensors",
        metadata={"kwargs": json.dumps({"qkv_proj_lora_rank": 2, "qkv_proj_lora_alpha": 1})},
    )
    parts: Matrices = {
        f"{block}.{name}": (down, rows)
        for name, rows in zip(("to_q", "to_k", "to_v"), up.chunk(3), strict=True)
    }
    merge(merged, parts, 1 / 2)
    with active(plain, [adapter(tmp_path / "a.safetensors", plain)]):
        torch.testing.assert_close(run_mochi(plain), run_mochi(merged), rtol=1e-3, atol=1e-4)


def test_an_adapter_keeps_its_precision_beside_weights_in_8_bits(tmp_path: Path) -> None:
    """Layer-wise casting stores the network's own weights in 8 bits, and not the LoRA's."""
    plain, none = tiny_mochi.tiny_transformer(), tiny_mochi.tiny_transformer()
    for network in (plain, none):
        network.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    before = run_mochi(plain)
    path = write_lora(tmp_path / "a.safetensors", random_lora(plain, MOCHI))
    with active(plain, [adapter(path, plain)]):
        changed = run_mochi(plain)
        dtypes = {p.dtype for n, p in plain.named_parameters() if ".lora_" in n}
    assert dtypes == {torch.float32}
    assert not torch.allclose(changed, before)
    assert torch.equal(run_mochi(plain), before)
    assert torch.equal(run_mochi(none), before)


@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
def test_a_streamed_network_streams_its_lora(offload_type: str, tmp_path: Path) -> None:
    plain, streamed = tiny_mochi.tiny_transformer(), tiny_mochi.tiny_transformer()
    streamed.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type=offload_type, num_blocks_per_group=1
    )
    path = write_lora(tmp_path / "a.safetensors", random_lora(plain, MOCHI))
    before = run_mochi(plain)
    with active(plain, [adapter(path, plain)]), active(streamed, [adapter(path, streamed)]):
        assert torch.equal(run_mochi(streamed), run_mochi(plain))
        assert not torch.allclose(run_mochi(streamed), before)
    assert torch.equal(run_mochi(streamed), before)


@pytest.mark.parametrize("mode", ["int8", "nf4"])
def test_a_quantised_network_takes_a_lora_in_its_own_precision(
    mode: Literal["int8", "nf4"], tmp_path: Path
) -> None:
    """The base is coarse, the LoRA is not: what it adds is what it adds elsewhere."""
    plain = tiny_mochi.tiny_transformer()
    set_weight_mode(plain, mode, "cpu")
    layer = plain.transformer_blocks[0].ff.net[0].proj
    matrices = random_lora(tiny_mochi.tiny_transformer(), MOCHI)
    path = write_lora(tmp_path / "a.safetensors", matrices)
    hidden = torch.randn(3, layer.in_features)
    before, output = layer(hidden), run_mochi(plain)
    down, up = matrices[MOCHI[1]]
    with active(plain, [adapter(path, plain, 0.5)]):
        inside = plain.transformer_blocks[0].ff.net[0].proj
        torch.testing.assert_close(inside(hidden), before + 0.5 * hidden @ down.T @ up.T)
        assert not torch.allclose(run_mochi(plain), output)
    assert torch.equal(run_mochi(plain), output)


def test_what_is_compiled_runs_uncompiled_with_a_lora(tmp_path: Path) -> None:
    """And compiled again afterwards, without being compiled anew."""
    plain, compiled = tiny_mochi.tiny_transformer(), tiny_mochi.tiny_transformer()
    counter = CompileCounter()
    compiled.transformer_blocks[0].ff.compile(backend=counter)
    before = run_mochi(compiled)
    made = counter.frame_count
    assert made
    path = write_lora(tmp_path / "a.safetensors", random_lora(plain, MOCHI))
    with active(plain, [adapter(path, plain)]), active(compiled, [adapter(path, compiled)]):
        torch.testing.assert_close(run_mochi(compiled), run_mochi(plain))
    assert torch.equal(run_mochi(compiled), before)
    assert counter.frame_count == made
