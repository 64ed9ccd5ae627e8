"""What a LoRA file changes, from its header."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deployments.core.lora_layers import lora_layers
from deployments.core.safetensors_header import Header, read_header

BLOCK = "transformer_blocks.0.attn1"
LINEARS = {f"{BLOCK}.{name}": (8, 6) for name in ("to_q", "to_k", "to_v")} | {"proj_out": (4, 8)}
Q = f"transformer.{BLOCK}.to_q"


def header(shapes: dict[str, tuple[int, ...]], **metadata: object) -> Header:
    return Header(shapes, {key: json.dumps(value) for key, value in metadata.items()})


def pair(layer: str, rank: int = 2, out: int = 8, into: int = 6) -> dict[str, tuple[int, ...]]:
    return {f"{layer}.lora_A.weight": (rank, into), f"{layer}.lora_B.weight": (out, rank)}


@pytest.mark.parametrize(
    "prefix",
    ["transformer.", "", "diffusion_model.", "base_model.model.", "base_model.model.transformer."],
)
def test_a_layer_is_found_behind_any_usual_prefix(prefix: str) -> None:
    [layer] = lora_layers(header(pair(f"{prefix}{BLOCK}.to_q")), LINEARS)
    assert (layer.module, layer.rank, layer.rows, layer.scale) == (f"{BLOCK}.to_q", 2, (0, 8), 1)


@pytest.mark.parametrize(
    ("shapes", "key", "words"),
    [
        (pair("unet.down.0"), "unet.down.0.lora_A.weight", "this network has no such layer"),
        (pair(Q, into=7), f"{Q}.lora_A.weight", "reads 7 channels, .*to_q has 6"),
        (pair(Q, out=9), f"{Q}.lora_B.weight", "makes 9 channels, .*to_q has 8"),
        (pair(Q) | {f"{Q}.lora_B.weight": (8, 3)}, f"{Q}.lora_A.weight", "do not fit each other"),
        ({f"{Q}.lora_A.weight": (2, 6)}, f"{Q}.lora_A.weight", "its other matrix is missing"),
        (pair(Q) | {f"{Q}.dora_scale": (8,)}, f"{Q}.dora_scale", "not of a LoRA"),
        (pair(Q) | {f"{Q}.alpha": (2,)}, f"{Q}.alpha", "is not one number"),
        (pair(Q) | {f"{Q}.lora_down.weight": (2, 6)}, f"{Q}.lora_down.weight", "says the same as"),
        (pair(Q) | pair(f"{BLOCK}.to_q"), f"{BLOCK}.to_q.lora_A.weight", "is the same layer"),
        (pair("blocks.9.attn.qkv_x"), "blocks.9.attn.qkv_x.lora_A.weight", "no such layer"),
    ],
)
def test_what_does_not_fit_is_named_by_its_first_key(
    shapes: dict[str, tuple[int, ...]], key: str, words: str
) -> None:
    with pytest.raises(ValueError, match=f"^{key}: .*{words}"):
        lora_layers(header(shapes), LINEARS)


def test_a_file_without_tensors_holds_no_lora() -> None:
    with pytest.raises(ValueError, match="holds no LoRA"):
        lora_layers(header({}), LINEARS)


def test_three_layers_of_mochis_authors_are_one() -> None:
    found = lora_layers(
        header(pair("blocks.0.attn.qkv_x", out=24), kwargs={"qkv_proj_lora_alpha": 8}), LINEARS
    )
    assert [(layer.module[-4:], layer.rows, layer.scale) for layer in found] == [
        ("to_q", (0, 8), 4),
        ("to_k", (8, 16), 4),
        ("to_v", (16, 24), 4),
    ]


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        ({"lora_alpha": 8}, 4.0),
        ({"transformer.lora_alpha": 8, "transformer.r": 2}, 4.0),
        ({"lora_alpha": 4, "use_rslora": True}, 4 / 2**0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 1}}, 0.5),
        ({"lora_alpha": 8, "alpha_pattern": {"n1.to_q": 1}}, 4.0),
        ({}, 1.0),
    ],
)
def test_the_metadata_of_diffusers_scale(settings: dict[str, object], scale: float) -> None:
    [layer] = lora_layers(header(pair(Q), lora_adapter_metadata=settings), LINEARS)
    assert layer.scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"lora_alpha": "much"}, "alpha is not a number"),
        ([], "object"),
    ],
)
def test_metadata_that_cannot_be_followed_are_refused(settings: object, words: str) -> None:
    with pytest.raises(ValueError, match=f"lora_adapter_metadata: .*{words}"):
        lora_layers(header(pair(Q), lora_adapter_metadata=settings), LINEARS)


def test_a_header_says_what_safetensors_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(())}, path, metadata={"by": "us"})
    assert read_header(path) == Header({"a": (2, 3), "b": ()}, {"by": "us"})


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-4],
        lambda raw: raw[:20],
        lambda raw: raw + b"more",
        lambda _: b"",
        lambda _: b"PK\x03\x04" + bytes(100),
        lambda _: (2).to_bytes(8, "little") + b"[]",
        lambda _: (15).to_bytes(8, "little") + b'{"a": {"x": 1}}',
    ],
)
def test_a_file_of_another_kind_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3)}, path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match="is not a safetensors file, or damaged"):
        read_header(path)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2, 3)}, path)
    with pytest.raises(ValueError, match="at most 20 are read"):
        read_header(path, max_bytes=20)
