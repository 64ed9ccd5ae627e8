"""The network computes what the authors' does, and works with diffusers' tools."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import FirstBlockCacheConfig, FluxTransformer2DModel

from deployments.models.opensora.packing import position_ids
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import POOLED_DIM, reference, reference_transformer, tiny_transformer

TOLERANCE = {"atol": 5e-5, "rtol": 1e-4}


@pytest.fixture(scope="module")
def transformer() -> OpenSoraTransformer3DModel:
    return reference_transformer()


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    return reference("transformer_forward")


def inputs_of(data: dict[str, torch.Tensor], case: str) -> dict[str, torch.Tensor]:
    return {
        "hidden_states": data[f"{case}.img"],
        "cond": data[f"{case}.cond"],
        "encoder_hidden_states": data[f"{case}.txt"],
        "pooled_projections": data[f"{case}.y_vec"],
        "timestep": data[f"{case}.timesteps"],
        "img_ids": data[f"{case}.img_ids"][0],
        "txt_ids": data[f"{case}.txt_ids"][0],
    }


def random_inputs(batch: int = 2, tokens: int = 5) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "hidden_states": torch.randn(batch, 18, 64, generator=generator),
        "cond": torch.randn(batch, 18, 68, generator=generator),
        "encoder_hidden_states": torch.randn(batch, tokens, TEXT_DIM, generator=generator),
        "pooled_projections": torch.randn(batch, POOLED_DIM, generator=generator),
        "timestep": torch.rand(batch, generator=generator),
        "img_ids": position_ids(3, 4, 6),
        "txt_ids": torch.zeros(tokens, 3),
    }


@pytest.mark.parametrize("case", ["t2v", "i2v_head"])
def test_the_velocity_is_the_authors(
    transformer: OpenSoraTransformer3DModel, data: dict[str, torch.Tensor], case: str
) -> None:
    """Without a condition and with a first frame, two clips at two times."""
    with torch.no_grad():
        velocity = transformer(**inputs_of(data, case)).sample
    torch.testing.assert_close(velocity, data[f"{case}.output"], **TOLERANCE)


def test_what_flows_between_the_layers_is_the_authors(
    transformer: OpenSoraTransformer3DModel, data: dict[str, torch.Tensor]
) -> None:
    """An error would show at the layer that makes it."""
    seen: dict[str, object] = {}
    hooks = [
        module.register_forward_hook(lambda _m, _i, output, name=name: seen.update({name: output}))
        for name, module in (
            ("x", transformer.x_embedder),
            ("cond", transformer.cond_embedder),
            ("embedded_txt", transformer.context_embedder),
            ("vec", transformer.time_text_embed),
            ("double", transformer.transformer_blocks[0]),
            ("single", transformer.single_transformer_blocks[0]),
        )
    ]
    with torch.no_grad():
        transformer(**inputs_of(data, "i2v_head"))
    for hook in hooks:
        hook.remove()
    double_txt, double_img = seen["double"]
    for name, ours in (
        ("embedded_img", seen["x"] + seen["cond"]),
        ("embedded_txt", seen["embedded_txt"]),
        ("vec", seen["vec"]),
        ("double_block_0.txt", double_txt),
        ("double_block_0.img", double_img),
        ("single_block_0.txt_img", torch.cat(seen["single"], dim=1)),
    ):
        torch.testing.assert_close(ours, data[f"i2v_head.{name}"], **TOLERANCE, msg=name)


def test_positions_turn_the_pairs_by_the_authors_angles(
    transformer: OpenSoraTransformer3DModel, data: dict[str, torch.Tensor]
) -> None:
    """Their table holds each of the 16 angles at d and d + 16, ours at 2i and 2i + 1."""
    ids = torch.cat([data["i2v_head.txt_ids"][0], data["i2v_head.img_ids"][0]])
    cos, sin = transformer.pos_embed(ids)
    for ours, name in ((cos, "rope_cos"), (sin, "rope_sin")):
        theirs = data[f"i2v_head.{name}"]
        torch.testing.assert_close(ours[:, 0::2], theirs[:, :16], atol=1e-6, rtol=0)
        torch.testing.assert_close(ours[:, 1::2], theirs[:, 16:], atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def flux() -> FluxTransformer2DModel:
    """FLUX's own network with our weights: its one input projection reads latents and condition."""
    ours = tiny_transformer()
    weights = ours.state_dict()
    cond_weight, cond_bias = weights.pop("cond_embedder.weight"), weights.pop("cond_embedder.bias")
    weights["x_embedder.weight"] = torch.cat([weights["x_embedder.weight"], cond_weight], dim=1)
    weights["x_embedder.bias"] = weights["x_embedder.bias"] + cond_bias
    flux = FluxTransformer2DModel(
        in_channels=132,
        out_channels=64,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=POOLED_DIM,
        axes_dims_rope=(8, 12, 12),
    )
    flux.load_state_dict(weights)
    return flux.eval()


def test_it_is_fluxs_network_with_a_wider_input(flux: FluxTransformer2DModel) -> None:
    """An independent forward, written by others, agrees."""
    inputs = random_inputs()
    wide = torch.cat([inputs["hidden_states"], inputs["cond"]], dim=-1)
    others = {name: inputs[name] for name in inputs if name not in ("hidden_states", "cond")}
    with torch.no_grad():
        expected = flux(hidden_states=wide, **others).sample
        ours = tiny_transformer()(**inputs).sample
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_bfloat16_does_not_round_the_scaled_time(flux: FluxTransformer2DModel) -> None:
    """FLUX's forward rounds 1000 t to bfloat16, off by up to 2: that error is not ours."""
    inputs = random_inputs(batch=1) | {"timestep": torch.tensor([0.7373])}
    ours = tiny_transformer()
    with torch.no_grad():
        exact = ours(**inputs).sample
        rounded = ours.to(torch.bfloat16)(**to_bfloat16(inputs)).sample
        halves = to_bfloat16(inputs)
        wide = torch.cat([halves.pop("hidden_states"), halves.pop("cond")], dim=-1)
        by_flux = copy.deepcopy(flux).to(torch.bfloat16)(hidden_states=wide, **halves).sample
    error = (rounded - exact).abs().mean()
    assert error < 0.02 * exact.abs().mean()
    assert error < (by_flux - exact).abs().mean() / 1.5


def to_bfloat16(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    kept = ("timestep", "img_ids", "txt_ids")
    return {
        name: tensor if name in kept else tensor.to(torch.bfloat16)
        for name, tensor in inputs.items()
    }


def test_without_a_condition_its_bias_still_counts() -> None:
    """Zeros are a condition too."""
    transformer = tiny_transformer()
    inputs = random_inputs() | {"cond": torch.zeros(2, 18, 68)}
    with torch.no_grad():
        before = transformer(**inputs).sample
        transformer.cond_embedder.bias.add_(1.0)
        assert not torch.allclose(transformer(**inputs).sample, before)


def test_a_saved_network_loads_as_it_was(tmp_path: Path) -> None:
    """Configuration and weights make the round trip."""
    transformer = tiny_transformer()
    transformer.save_pretrained(tmp_path)
    loaded = OpenSoraTransformer3DModel.from_pretrained(tmp_path)
    assert dict(loaded.config)["axes_dims_rope"] == [8, 12, 12]
    with torch.no_grad():
        assert torch.equal(loaded(**random_inputs()).sample, transformer(**random_inputs()).sample)


def test_diffusers_attention_backends_and_caches_find_the_blocks() -> None:
    """They look for the blocks by name and class."""
    transformer = tiny_transformer()
    inputs = random_inputs()
    ran: list[int] = []
    transformer.single_transformer_blocks[-1].attn.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        expected = transformer(**inputs).sample
        transformer.set_attention_backend("native")
        torch.testing.assert_close(transformer(**inputs).sample, expected)
        ran.clear()
        transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
        for _ in range(2):
            with transformer.cache_context("cond"):
                cached = transformer(**inputs).sample
        transformer.disable_cache()
    assert len(ran) == 1
    torch.testing.assert_close(cached, expected, atol=1e-5, rtol=1e-5)


# With float32 weights torch remarks that it has no fused kernel for this.
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
@pytest.mark.parametrize("bf16", [False, True])
def test_gradients_reach_every_weight(bf16: bool) -> None:
    """It is trained with the same forward, in float32 and under bfloat16 autocast."""
    transformer = tiny_transformer().train()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        velocity = transformer(**random_inputs()).sample
    velocity.float().square().mean().backward()
    without = [name for name, weight in transformer.named_parameters() if weight.grad is None]
    assert without == []
    assert all(torch.isfinite(weight.grad).all() for weight in transformer.parameters())


def test_every_input_that_diffusers_would_split_is_an_input() -> None:
    """The plan for context parallelism names arguments of `forward` and a real layer."""
    transformer = tiny_transformer()
    plan = dict(transformer._cp_plan)
    assert set(plan.pop("")) <= set(random_inputs())
    assert set(plan) <= {name for name, _ in transformer.named_modules()}
    kinds = {type(module).__name__ for module in transformer.modules()}
    assert set(transformer._no_split_modules) == set(transformer._repeated_blocks) <= kinds


def test_axes_that_do_not_fill_a_head_are_refused() -> None:
    """Both numbers are named."""
    with pytest.raises(ValueError, match=r"axes_dims_rope \(8, 8, 8\) .* attention_head_dim, 32"):
        OpenSoraTransformer3DModel(attention_head_dim=32, axes_dims_rope=(8, 8, 8))
