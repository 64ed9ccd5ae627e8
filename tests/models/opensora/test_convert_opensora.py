"""The published files become a diffusers folder, with every tensor in its place."""

import pytest
import torch

from deployments.models.opensora.convert_opensora import (
    convert_transformer_state_dict,
    transformer_origins,
)
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel

# hpcai-tech/Open-Sora-v2's Open_Sora_v2.safetensors: see `released_shapes`.
RELEASED_KEYS, RELEASED_PARAMETERS = 1082, 11_891_390_528


def released_shapes(
    hidden: int = 3072, head: int = 128, double: int = 19, single: int = 38
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the released network; the defaults are the 11B's."""
    layers = {
        "img_in": (hidden, 64),
        "cond_in": (hidden, 68),
        "txt_in": (hidden, 4096),
        "time_in.in_layer": (hidden, 256),
        "time_in.out_layer": (hidden, hidden),
        "vector_in.in_layer": (hidden, 768),
        "vector_in.out_layer": (hidden, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
        "final_layer.linear": (64, hidden),
    }
    norms: list[str] = []
    for block in (f"double_blocks.{index}" for index in range(double)):
        for stream in ("img", "txt"):
            layers[f"{block}.{stream}_mod.lin"] = (6 * hidden, hidden)
            for layer in ("q_proj", "k_proj", "v_proj", "proj"):
                layers[f"{block}.{stream}_attn.{layer}"] = (hidden, hidden)
            layers[f"{block}.{stream}_mlp.0"] = (4 * hidden, hidden)
            layers[f"{block}.{stream}_mlp.2"] = (hidden, 4 * hidden)
            norms += [f"{block}.{stream}_attn.norm.{norm}_norm" for norm in ("query", "key")]
    for block in (f"single_blocks.{index}" for index in range(single)):
        layers[f"{block}.modulation.lin"] = (3 * hidden, hidden)
        layers |= {f"{block}.q_proj": (hidden, hidden), f"{block}.k_proj": (hidden, hidden)}
        layers[f"{block}.v_mlp"] = (5 * hidden, hidden)
        layers[f"{block}.linear2"] = (hidden, 5 * hidden)
        norms += [f"{block}.norm.{norm}_norm" for norm in ("query", "key")]
    shapes: dict[str, tuple[int, ...]] = {f"{norm}.scale": (head,) for norm in norms}
    for layer, shape in layers.items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return shapes


def small_state_dict() -> dict[str, torch.Tensor]:
    """Return a released network of one block of each kind, with random weights."""
    torch.manual_seed(0)
    shapes = released_shapes(hidden=16, head=8, double=1, single=1)
    return {key: torch.randn(shape) for key, shape in shapes.items()}


def test_every_weight_of_the_released_network_finds_its_place() -> None:
    """Names, shapes and number of parameters, without the memory for them."""
    released = {key: torch.empty(s, device="meta") for key, s in released_shapes().items()}
    assert len(released) == RELEASED_KEYS
    converted = convert_transformer_state_dict(released)
    with torch.device("meta"):
        network = OpenSoraTransformer3DModel()
    expected = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in converted.items()} == expected
    for tensors in (released, converted):
        assert sum(tensor.numel() for tensor in tensors.values()) == RELEASED_PARAMETERS


def test_pairs_of_query_channels_become_neighbours() -> None:
    """Channel d turned with d + D/2 in the released network, 2i turns with 2i + 1 here."""
    state_dict = small_state_dict()
    converted = convert_transformer_state_dict(state_dict)
    order = [0, 4, 1, 5, 2, 6, 3, 7]
    both_heads = [*order, *(8 + channel for channel in order)]
    for theirs, ours in (
        ("double_blocks.0.img_attn.q_proj", "transformer_blocks.0.attn.to_q"),
        ("double_blocks.0.txt_attn.k_proj", "transformer_blocks.0.attn.add_k_proj"),
        ("single_blocks.0.k_proj", "single_transformer_blocks.0.attn.to_k"),
    ):
        for kind in ("weight", "bias"):
            assert torch.equal(
                converted[f"{ours}.{kind}"], state_dict[f"{theirs}.{kind}"][both_heads]
            )
    scale = state_dict["double_blocks.0.txt_attn.norm.key_norm.scale"]
    assert torch.equal(converted["transformer_blocks.0.attn.norm_added_k.weight"], scale[order])
    values = state_dict["double_blocks.0.img_attn.v_proj.weight"]
    assert torch.equal(converted["transformer_blocks.0.attn.to_v.weight"], values)


def test_the_joint_layer_is_parted_and_the_last_modulation_turned() -> None:
    """Values first, then the MLP; (shift, scale) becomes (scale, shift)."""
    state_dict = small_state_dict()
    converted = convert_transformer_state_dict(state_dict)
    joint = state_dict["single_blocks.0.v_mlp.weight"]
    block = "single_transformer_blocks.0"
    assert torch.equal(converted[f"{block}.attn.to_v.weight"], joint[:16])
    assert torch.equal(converted[f"{block}.proj_mlp.weight"], joint[16:])
    shift, scale = state_dict["final_layer.adaLN_modulation.1.bias"].chunk(2)
    assert torch.equal(converted["norm_out.linear.bias"], torch.cat((scale, shift)))


@pytest.mark.parametrize(
    "key",
    [
        "img_in.weight",
        "double_blocks.0.img_attn.norm.query_norm.scale",
        "single_blocks.0.v_mlp.bias",
    ],
)
def test_a_missing_key_is_named(key: str) -> None:
    """A network with random weights in it would make noise without an error."""
    shapes = released_shapes()
    del shapes[key]
    with pytest.raises(ValueError, match=f"1 keys are missing, first: {key}"):
        transformer_origins(shapes)


@pytest.mark.parametrize("key", ["guidance_in.in_layer.weight", "double_blocks.3.img_attn.stray"])
def test_a_key_without_a_place_is_named(key: str) -> None:
    """Whatever it is, this network would ignore it."""
    with pytest.raises(ValueError, match=f"1 keys have no place, first: {key}"):
        transformer_origins(released_shapes() | {key: (1,)})


@pytest.mark.parametrize(
    "key", ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"]
)
def test_a_fused_file_is_refused_with_the_reason(key: str) -> None:
    """Nothing in it tells how its channels are ordered."""
    with pytest.raises(ValueError, match=f"{key} is a fused layer.*do not tell in which order"):
        transformer_origins({key: (9216, 3072)})
