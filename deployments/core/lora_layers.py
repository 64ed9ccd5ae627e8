"""Which layers of a network a LoRA file changes, from the names of its tensors.

A LoRA adds `strength * scale * up @ down` to the weights of a layer: `down` is (rank, in), `up` is
(out, rank). Files differ in how they name a layer and its matrices, and in where the scale stands:

- diffusers and PEFT: `transformer.transformer_blocks.0.attn1.to_q.lora_A.weight`, `lora_B`; the
  prefix may be another one or missing. Scale: `lora_alpha` over the rank, in the metadata, else 1.
- kohya-ss and others: `lora_down`, `lora_up`, and a tensor `alpha` per layer; the layer's name
  may have underscores for its dots, behind `lora_unet_`. Scale: alpha over the rank.
- Mochi's authors (genmoai/mochi, demos/fine_tuner): `blocks.0.attn.qkv_x.lora_A`, in their own
  names of the attention's layers, three of which are one. Scale: in the metadata's `kwargs`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from deployments.core.safetensors_header import Header, Shapes

Kind = Literal["down", "up", "alpha"]
Linears = Mapping[str, tuple[int, int]]
"""The linear layers of a network: (out, in) by name."""

PREFIXES = ("base_model.model.", "transformer.", "diffusion_model.", "model.diffusion_model.")
FLAT_PREFIXES = ("lora_unet_", "lora_transformer_")
KINDS: dict[str, Kind] = {
    "lora_A": "down",
    "lora_down": "down",
    "lora.down": "down",
    "lora_B": "up",
    "lora_up": "up",
    "lora.up": "up",
}
_KEY = re.compile(
    rf"(?P<layer>.+)\.(?:(?P<kind>{'|'.join(map(re.escape, KINDS))})(?:\.default)?(?:\.weight)?"
    r"|(?P<alpha>alpha))"
)
# One layer of Mochi's authors is three of diffusers', one below the other:
# diffusers 0.42.1 scripts/convert_mochi_to_diffusers.py.
_GENMO = re.compile(r"blocks\.(?P<block>\d+)\.attn\.(?P<layer>qkv_x|qkv_y|proj_x|proj_y)")
_GENMO_LAYERS = {
    "qkv_x": ("to_q", "to_k", "to_v"),
    "qkv_y": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "proj_x": ("to_out.0",),
    "proj_y": ("to_add_out",),
}
# diffusers 0.42.1 loaders/lora_base.py: LORA_ADAPTER_METADATA_KEY.
DIFFUSERS_METADATA = "lora_adapter_metadata"
GENMO_METADATA = "kwargs"


@dataclass(frozen=True)
class LoraLayer:
    """One layer that a file changes.

    Attributes:
        module: its name in the network.
        down, up: the keys of its matrices.
        alpha: the key of a number which over the rank is one more factor of the scale; None for 1.
        rows: the first of the rows of `up` that are this layer's, and the first that is not.
        scale: what the file's metadata say; 1 where they say nothing.
    """

    module: str
    down: str
    up: str
    alpha: str | None
    rows: tuple[int, int]
    rank: int
    scale: float


def lora_layers(header: Header, linears: Linears | None) -> list[LoraLayer]:
    """Return the layers of a network that the file of this header changes.

    Args: linears: None where the network is not known; then they have the names of the file.

    Raises: ValueError: it does not fit; the message names the first key that is wrong.
    """
    found: dict[str, LoraLayer] = {}
    for pair in _pairs(header):
        for layer in _layers(pair, header, linears):
            if layer.module in found:
                raise ValueError(f"{layer.down}: {found[layer.module].down} is the same layer")
            found[layer.module] = layer
    if not found:
        raise ValueError("holds no LoRA")
    return list(found.values())


@dataclass
class _Pair:
    """The keys of one layer, as the file names it."""

    layer: str
    keys: dict[Kind, str] = field(default_factory=dict)


def _pairs(header: Header) -> list[_Pair]:
    """Return the complete pairs of a file; each down fits its up."""
    pairs: dict[str, _Pair] = {}
    for key in header.shapes:
        if (match := _KEY.fullmatch(key)) is None:
            raise ValueError(f"{key}: is not of a LoRA as they are read here")
        kind: Kind = "alpha" if match["alpha"] else KINDS[match["kind"]]
        keys = pairs.setdefault(match["layer"], _Pair(match["layer"])).keys
        if kind in keys:
            raise ValueError(f"{key}: says the same as {keys[kind]}")
        keys[kind] = key
    for pair in pairs.values():
        if not pair.keys.keys() >= {"down", "up"}:
            raise ValueError(f"{next(iter(pair.keys.values()))}: its other matrix is missing")
        _refuse_odd(pair, header.shapes)
    return list(pairs.values())


def _refuse_odd(pair: _Pair, shapes: Shapes) -> None:
    down, up = shapes[pair.keys["down"]], shapes[pair.keys["up"]]
    if len(down) != 2 or len(up) != 2 or up[1] != down[0] or not down[0]:
        raise ValueError(f"{pair.keys['down']}: {down} and {up} do not fit each other")
    if "alpha" in pair.keys and shapes[pair.keys["alpha"]] not in ((), (1,)):
        raise ValueError(f"{pair.keys['alpha']}: is not one number")


def _layers(pair: _Pair, header: Header, linears: Linears | None) -> Iterator[LoraLayer]:
    """Yield the layers of the network that a pair stands for."""
    key = pair.keys["down"]
    rank, width = header.shapes[key]
    if linears is None:
        linears = {pair.layer: (header.shapes[pair.keys["up"]][0], width)}
    modules = (pair.layer,) if pair.layer in linears else _modules(pair.layer, linears)
    if not modules:
        raise ValueError(f"{key}: this network has no such layer")
    first = 0
    for module in modules:
        out, into = linears[module]
        if into != width:
            raise ValueError(f"{key}: reads {width} channels, {module} has {into}")
        yield LoraLayer(
            module=module,
            down=key,
            up=pair.keys["up"],
            alpha=pair.keys.get("alpha"),
            rows=(first, first + out),
            rank=rank,
            scale=_scale(header.metadata, module, pair.layer, rank),
        )
        first += out
    if (rows := header.shapes[pair.keys["up"]][0]) != first:
        raise ValueError(f"{pair.keys['up']}: makes {rows} channels, {modules[0]} has {first}")


def _modules(layer: str, linears: Linears) -> tuple[str, ...]:
    """Return the layers of the network that the file calls `layer`; none where it has no such."""
    plain = layer
    for prefix in PREFIXES:
        plain = plain.removeprefix(prefix)
    if plain in linears:
        return (plain,)
    if (match := _GENMO.fullmatch(plain)) is not None:
        names = _GENMO_LAYERS[match["layer"]]
        modules = tuple(f"transformer_blocks.{match['block']}.attn1.{name}" for name in names)
        return modules if linears.keys() >= set(modules) else ()
    for prefix in FLAT_PREFIXES:
        if layer.startswith(prefix):
            flat = layer.removeprefix(prefix)
            return tuple(name for name in linears if name.replace(".", "_") == flat)
    return ()


# --- scale -------------------------------------------------------------------------------


def _scale(metadata: Mapping[str, str], module: str, layer: str, rank: int) -> float:
    """Return what the metadata say of a layer's scale, else 1."""
    if (match := _GENMO.search(layer)) is not None:
        part = "qkv" if match["layer"].startswith("qkv") else "out"
        alpha = _object(metadata, GENMO_METADATA).get(f"{part}_proj_lora_alpha")
        return 1.0 if alpha is None else _number(GENMO_METADATA, alpha) / rank
    settings = {
        key.removeprefix("transformer."): value
        for key, value in _object(metadata, DIFFUSERS_METADATA).items()
    }
    if settings.get("use_dora") or settings.get("lora_bias"):
        raise ValueError(f"{DIFFUSERS_METADATA}: DoRA and biases are not read here")
    alpha = settings.get("lora_alpha")
    for pattern, value in dict(settings.get("alpha_pattern") or {}).items():
        if f".{module}".endswith(f".{pattern.removeprefix('^')}"):
            alpha = value
    if alpha is None:
        return 1.0
    over = rank**0.5 if settings.get("use_rslora") else rank
    return _number(DIFFUSERS_METADATA, alpha) / over


def _object(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(key, "{}"))
    except (ValueError, RecursionError):
        raise ValueError(f"{key}: the metadata are not JSON") from None
    if not isinstance(found, dict):
        raise ValueError(f"{key}: the metadata are not an object")  # noqa: TRY004 - of a file
    return found


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: alpha is not a number")  # noqa: TRY004 - of a file
    return float(value)
