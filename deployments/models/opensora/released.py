"""The released names of Open-Sora 2.0, and where each tensor goes.

The released network differs from `OpenSoraTransformer3DModel` in three ways, each settled here
(source: hpcaitech/Open-Sora@7ad6a96, `mmdit`):

- Its rotary embedding turns channel d with d + D/2 of a head; diffusers' turns 2i with 2i + 1. The
  rows of queries and keys, and the scales of their norms, are put into that order.
- One layer of a single block computes the values and the MLP's input; here they are two layers.
- The last modulation is (shift, scale); diffusers' is (scale, shift).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

Change = Callable[[torch.Tensor], torch.Tensor]
Shapes = Mapping[str, tuple[int, ...]]

TRANSFORMER_FILE = "Open_Sora_v2.safetensors"
VAE_FILE = "hunyuan_vae.safetensors"
T5_FOLDER = "google/t5-v1_1-xxl"
CLIP_FOLDER = "openai/clip-vit-large-patch14"
PUBLISHED = (TRANSFORMER_FILE, VAE_FILE, T5_FOLDER, CLIP_FOLDER)

# What the tensors do not tell; hpcaitech/Open-Sora@7ad6a96 configs/diffusion/inference/256px.py.
AXES_DIMS_ROPE = (16, 56, 56)
VAE_CONFIG: dict[str, Any] = {
    "latent_channels": 16,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "scaling_factor": 0.476986,
}

OUTER = {
    "img_in": "x_embedder",
    "cond_in": "cond_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
DOUBLE = {
    "img_mod.lin": "norm1.linear",
    "txt_mod.lin": "norm1_context.linear",
    "img_attn.q_proj": "attn.to_q",
    "img_attn.k_proj": "attn.to_k",
    "img_attn.v_proj": "attn.to_v",
    "img_attn.proj": "attn.to_out.0",
    "txt_attn.q_proj": "attn.add_q_proj",
    "txt_attn.k_proj": "attn.add_k_proj",
    "txt_attn.v_proj": "attn.add_v_proj",
    "txt_attn.proj": "attn.to_add_out",
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
    "img_mlp.0": "ff.net.0.proj",
    "img_mlp.2": "ff.net.2",
    "txt_mlp.0": "ff_context.net.0.proj",
    "txt_mlp.2": "ff_context.net.2",
}
SINGLE = {
    "modulation.lin": "norm.linear",
    "q_proj": "attn.to_q",
    "k_proj": "attn.to_k",
    "v_mlp": "attn.to_v",  # and proj_mlp
    "linear2": "proj_out",
    "norm.query_norm": "attn.norm_q",
    "norm.key_norm": "attn.norm_k",
}
ROTATED = ("q_proj", "k_proj", "query_norm", "key_norm")
FUSED = (".qkv.", ".linear1.")


@dataclass(frozen=True)
class Origin:
    """Where one of our weights comes from: a released tensor and what is done to it."""

    key: str
    change: Change


def transformer_origins(shapes: Shapes) -> dict[str, Origin]:
    """Return the origin of each of our weights, given the released keys and their shapes.

    Raises: ValueError: a key is missing or has no place, or the file is of the fused kind.
    """
    if fused := sorted(key for key in shapes if any(part in key for part in FUSED)):
        raise ValueError(
            f"{fused[0]} is a fused layer. Its tensors do not tell in which order the channels of "
            "queries and keys are, so fused files are refused; `Open_Sora_v2.safetensors` of "
            "hpcai-tech/Open-Sora-v2 is the file to convert"
        )
    places = _places(shapes)
    if missing := sorted(places.keys() - shapes.keys()):
        raise ValueError(f"{len(missing)} keys are missing, first: {missing[0]}")
    if leftover := sorted(shapes.keys() - places.keys()):
        raise ValueError(f"{len(leftover)} keys have no place, first: {leftover[0]}")
    hidden_size = shapes["img_in.weight"][0]
    head_dim = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0]
    origins: dict[str, Origin] = {}
    for key, name in places.items():
        if ".v_mlp." in key:
            origins[name] = Origin(key, partial(_rows, stop=hidden_size))
            mlp = name.replace("attn.to_v", "proj_mlp")
            origins[mlp] = Origin(key, partial(_rows, start=hidden_size))
        elif any(f".{part}." in key for part in ROTATED):
            origins[name] = Origin(key, partial(_interleave, head_dim=head_dim))
        else:
            change = _swap_halves if key.startswith("final_layer.adaLN") else _as_it_is
            origins[name] = Origin(key, change)
    return origins


def transformer_config(shapes: Shapes) -> dict[str, Any]:
    """Return the configuration of the network whose released keys have these shapes."""
    hidden_size, in_channels = shapes["img_in.weight"]
    head_dim = shapes["double_blocks.0.img_attn.norm.query_norm.scale"][0]
    return {
        "in_channels": in_channels,
        "cond_channels": shapes["cond_in.weight"][1],
        "num_layers": _depth(shapes, "double_blocks"),
        "num_single_layers": _depth(shapes, "single_blocks"),
        "attention_head_dim": head_dim,
        "num_attention_heads": hidden_size // head_dim,
        "joint_attention_dim": shapes["txt_in.weight"][1],
        "pooled_projection_dim": shapes["vector_in.in_layer.weight"][1],
        "axes_dims_rope": AXES_DIMS_ROPE,
    }


def t5_name(key: str) -> str | None:
    """Return our name of a weight of T5, None for those of its decoder."""
    if key.startswith(("decoder.", "lm_head.")):
        return None
    return "shared.weight" if key == "encoder.embed_tokens.weight" else key


def clip_name(key: str) -> str | None:
    """Return our name of a weight of CLIP, None for what is not its text encoder."""
    others = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
    # Older files hold the row of indices that the position embedding is read with.
    if key.startswith(others) or key.endswith(".position_ids"):
        return None
    return key.removeprefix("text_model.")


def _places(keys: Collection[str]) -> dict[str, str]:
    """Return our name for each released key that a network of this depth has."""
    modules = dict(OUTER)
    for theirs, ours, table in (
        ("double_blocks", "transformer_blocks", DOUBLE),
        ("single_blocks", "single_transformer_blocks", SINGLE),
    ):
        # At least one, so that a file without any is told which key is missing.
        for block in range(max(_depth(keys, theirs), 1)):
            for module, name in table.items():
                modules[f"{theirs}.{block}.{module}"] = f"{ours}.{block}.{name}"
    places = {}
    for module, name in modules.items():
        if module.endswith("_norm"):
            places[f"{module}.scale"] = f"{name}.weight"
        else:
            places |= {f"{module}.{kind}": f"{name}.{kind}" for kind in ("weight", "bias")}
    return places


def _depth(keys: Collection[str], blocks: str) -> int:
    return len({key.split(".")[1] for key in keys if key.startswith(f"{blocks}.")})


def _interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Bring (heads * head_dim, ...) from the order d, d + D/2 of pairs to 2i, 2i + 1."""
    return rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2)


def _swap_halves(rows: torch.Tensor) -> torch.Tensor:
    first, second = rows.chunk(2)
    return torch.cat((second, first))


def _rows(rows: torch.Tensor, start: int = 0, stop: int | None = None) -> torch.Tensor:
    # A copy, so that the other rows can be freed.
    return rows[start:stop].clone()


def _as_it_is(rows: torch.Tensor) -> torch.Tensor:
    return rows
