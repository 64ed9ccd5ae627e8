"""The networks' formulas against the full-size networks, on the meta device, and against the
bundled checkpoints."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLMochi, MochiTransformer3DModel
from safetensors import safe_open
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from benchmarks.memory_plan import (
    MOCHI_SHAPES,
    OPENSORA_SHAPES,
    count_mochi_decode,
    count_mochi_denoise,
    count_mochi_tile,
    count_opensora_decode,
    count_opensora_denoise,
)
from benchmarks.meta_counter import count, num_parameters, on_meta
from deployments.core.checkpoints import BUNDLED_DIR
from deployments.core.lora_layers import lora_layers
from deployments.core.memory import Mode, transformer_bytes
from deployments.core.networks.config import from_config, read_network
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.hunyuan_vae import HunyuanAutoencoder, tiles
from deployments.core.networks.mochi import (
    TILE_LATENTS,
    TILE_SIDE,
    TILE_STRIDE,
    MochiAutoencoder,
    MochiTransformer,
    tile_sides,
)
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.networks.opensora import OpenSoraTransformer
from deployments.core.networks.text import ClipTextEncoder, T5Encoder
from deployments.core.safetensors_header import read_header
from deployments.models.lora import Adapter, active, linears
from deployments.models.mochi1.decode import LATENTS_PER_TILE, LOW_MEMORY_TILES
from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.autoencode import AUTHORS_TILING, LOW_MEMORY_TILING, decode
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.tiling import tile_by_tile
from deployments.models.weight_modes import WeightMode, set_weight_mode
from tests.tiny_lora import random_lora, write_lora
from tests.tiny_opensora import tiny_vae

BFLOAT16 = 2
T5, CLIP = T5Encoder(), ClipTextEncoder()
MOCHI, OPENSORA = MochiTransformer(), OpenSoraTransformer()
# Of each kind of block the last counts most; the depth is that of the test below.
SHALLOW_MOCHI = replace(MOCHI, num_layers=2)
SHALLOW_OPENSORA = replace(OPENSORA, num_layers=1, num_single_layers=2)


@cache
def mochi(num_layers: int) -> Any:
    return on_meta(MochiTransformer3DModel, num_layers=num_layers)


@cache
def opensora(num_layers: int, num_single_layers: int) -> Any:
    network = on_meta(
        OpenSoraTransformer3DModel, num_layers=num_layers, num_single_layers=num_single_layers
    )
    use_joint_attention(network)
    return network


def t5(num_layers: int) -> Any:
    return on_meta(
        T5EncoderModel,
        T5Config(
            d_model=T5.d_model,
            d_kv=T5.d_kv,
            d_ff=T5.d_ff,
            num_heads=T5.num_heads,
            num_layers=num_layers,
            vocab_size=T5.vocab_size,
            feed_forward_proj="gated-gelu",
        ),
    )


def clip_text() -> Any:
    return on_meta(
        CLIPTextModel,
        CLIPTextConfig(
            hidden_size=CLIP.hidden_size,
            intermediate_size=CLIP.intermediate_size,
            num_hidden_layers=CLIP.num_hidden_layers,
            num_attention_heads=12,
        ),
    )


def added_by_lora(network: Any, layer: str, peak: Callable[[], int], folder: Path) -> int:
    """Return what a LoRA in this layer, of every block that has one, adds to the peak."""
    layers = [name for name in linears(network) if name.endswith(layer)]
    path = write_lora(folder / "a.safetensors", random_lora(network, layers, rank=1))
    changed = Adapter(path, lora_layers(read_header(path), linears(network)), 1.0)
    before = peak()
    with active(network, [changed]):
        return peak() - before


@pytest.mark.parametrize(
    ("layer", "rows"),
    [("attn1.to_q", 3072), ("norm1.linear", 4 * 3072), ("ff.net.0.proj", 2 * 8192)],
)
def test_lora_is_beside_the_layer_that_makes_most(layer: str, rows: int, tmp_path: Path) -> None:
    """In Mochi's feed forward it adds to the peak, as the formula says; elsewhere nothing."""
    network, clip = mochi(SHALLOW_MOCHI.num_layers), Clip(256, 256, 61)

    def peak() -> int:
        return count_mochi_denoise(network, clip, steps=1).peak_bytes

    added = added_by_lora(network, layer, peak, tmp_path)
    assert added == MochiFigures().lora_bytes(clip, BFLOAT16, rows)
    assert (added > 0) == (layer == "ff.net.0.proj")


@pytest.mark.parametrize("layer", ["attn.to_q", "proj_mlp", "proj_out", "ff.net.0.proj"])
def test_lora_in_open_sora_adds_at_most_what_the_formula_says(layer: str, tmp_path: Path) -> None:
    """About as much in a single block's last projection, and less elsewhere."""
    network, clip = opensora(1, 2), Clip(256, 256, 61)

    def peak() -> int:
        return count_opensora_denoise(network, clip, steps=1).peak_bytes

    added = added_by_lora(network, layer, peak, tmp_path)
    most = OpenSoraFigures().lora_bytes(clip, BFLOAT16, 3072)
    assert added <= most
    assert (added > 0.9 * most) == (layer == "proj_out")


def test_the_weights_of_every_full_size_network_are_exact() -> None:
    """As published: 10.03 and 11.89 thousand million for the transformers."""
    expected = {
        MOCHI: mochi(48),
        MochiAutoencoder(): on_meta(AutoencoderKLMochi),
        OPENSORA: opensora(19, 38),
        HunyuanAutoencoder(): on_meta(AutoencoderKLHunyuanVideo),
        T5: t5(24),
        CLIP: clip_text(),
    }
    for figures, network in expected.items():
        assert figures.num_parameters() == num_parameters(network)
        size = sum(weight.numel() * weight.itemsize for weight in network.parameters())
        assert BFLOAT16 * figures.num_parameters() == size


def test_the_weights_of_the_bundled_checkpoints_are_exact() -> None:
    """Read from their configurations, against the headers of the files."""
    mochi_tiny, opensora_tiny = BUNDLED_DIR / "mochi-tiny", BUNDLED_DIR / "opensora-tiny"
    figures = {
        mochi_tiny: MochiFigures.read(str(mochi_tiny)),
        opensora_tiny: OpenSoraFigures.read(str(opensora_tiny), 3.0),
    }
    for folder, of_networks in figures.items():
        counts = of_networks.counts()
        stored = {part.name: stored_weights(part) for part in folder.iterdir() if part.is_dir()}
        assert counts.transformer == stored["transformer"]
        assert counts.vae == stored["vae"]
        assert counts.text_encoder == stored["text_encoder"] + stored.get("text_encoder_2", 0)


def stored_weights(folder: Path) -> int:
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            # Position ids are no weights.
            names = [name for name in file.keys() if "position_ids" not in name]  # noqa: SIM118
            total += sum(prod(file.get_slice(name).get_shape()) for name in names)
    return total


@pytest.mark.parametrize("clip", MOCHI_SHAPES, ids=str)
def test_mochi_denoises_as_the_formula_says(clip: Clip) -> None:
    """One step of our sampler, at the full width."""
    counted = count_mochi_denoise(mochi(2), clip, steps=1)
    tokens = clip.tokens(6)
    flops = SHALLOW_MOCHI.flops(tokens, 256) + SHALLOW_MOCHI.flops(tokens, 0)
    assert flops == pytest.approx(counted.flops, rel=0.001)
    if tokens > 4000:
        peak = SHALLOW_MOCHI.activation_bytes(tokens, 256, BFLOAT16)
        assert peak == pytest.approx(counted.peak_bytes, rel=0.02)


@pytest.mark.parametrize("clip", OPENSORA_SHAPES, ids=str)
def test_open_sora_denoises_as_the_formula_says(clip: Clip) -> None:
    """One step of our sampler from text, at the full width."""
    counted = count_opensora_denoise(opensora(1, 2), clip, steps=1)
    tokens = clip.tokens(4)
    assert 2 * SHALLOW_OPENSORA.flops(tokens, 512) == pytest.approx(counted.flops, rel=0.001)
    if tokens > 4000:
        peak = SHALLOW_OPENSORA.activation_bytes(tokens, 512, BFLOAT16)
        assert peak == pytest.approx(counted.peak_bytes, rel=0.02)


def test_depth_adds_operations_evenly_and_no_memory() -> None:
    """So that two blocks of a kind show what 48, or 19 and 38, take."""
    clip = Clip(512, 512, 49)
    first, second, third = (count_mochi_denoise(mochi(depth), clip, steps=1) for depth in (2, 3, 4))
    assert third.flops - second.flops == second.flops - first.flops
    assert first.peak_bytes == second.peak_bytes == third.peak_bytes
    shallow, deeper = (
        count_opensora_denoise(opensora(*depths), clip, steps=1) for depths in ((1, 2), (2, 3))
    )
    assert deeper.peak_bytes == shallow.peak_bytes
    formula = replace(OPENSORA, num_layers=2, num_single_layers=3)
    assert 2 * formula.flops(clip.tokens(4), 512) == pytest.approx(deeper.flops, rel=0.001)


@pytest.mark.parametrize("tokens", [256, 512])
def test_text_is_encoded_as_the_formula_says(tokens: int) -> None:
    """T5 XXL, two of its layers, with the longest prompts of both models."""
    encoder, shallow = t5(2), replace(T5, num_layers=2)
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    counted = count(lambda: encoder(ids), [encoder])
    assert shallow.flops(tokens) == pytest.approx(counted.flops, rel=0.001)
    assert shallow.activation_bytes(tokens, BFLOAT16) == pytest.approx(counted.peak_bytes, rel=0.02)


def test_clip_encodes_text_as_the_formula_says() -> None:
    """All of its layers."""
    encoder = clip_text()
    ids = torch.zeros(1, 77, dtype=torch.long, device="meta")
    assert count(lambda: encoder(ids), [encoder]).flops == CLIP.flops()


def test_mochi_decodes_as_the_formula_says() -> None:
    """The whole decoder, in our way; memory no longer grows after the second latent."""
    clip, vae = Clip(848, 480, 13), MochiAutoencoder()
    counted = count_mochi_decode(on_meta(AutoencoderKLMochi), clip)
    assert vae.flops(848, 480, 3) == pytest.approx(counted.flops, rel=0.001)
    assert vae.activation_bytes(848, 480, BFLOAT16) == pytest.approx(counted.peak_bytes, rel=0.02)


def test_mochi_decodes_in_tiles_as_the_formula_says() -> None:
    """One tile of the largest size, two runs of latents: the rest is not on the GPU."""
    vae = MochiAutoencoder()
    counted = count_mochi_tile(on_meta(AutoencoderKLMochi))
    assert vae.flops(256, 256, 2 * LATENTS_PER_TILE) == pytest.approx(counted.flops, rel=0.001)
    peak = vae.tiled_activation_bytes(848, 480, BFLOAT16)
    assert peak == pytest.approx(counted.peak_bytes, rel=0.02)
    assert (LOW_MEMORY_TILES.side, LOW_MEMORY_TILES.stride) == (TILE_SIDE, TILE_STRIDE)
    assert LATENTS_PER_TILE == TILE_LATENTS


@pytest.mark.parametrize(("width", "height"), [(256, 256), (464, 272), (320, 264), (848, 480)])
def test_mochis_tiles_are_those_that_are_decoded(width: int, height: int) -> None:
    """Seen by a network that only looks."""
    seen = []

    def look(tile: torch.Tensor, _: int) -> torch.Tensor:
        seen.append((8 * tile.shape[3], 8 * tile.shape[4]))
        return tile

    list(
        tile_by_tile(
            look,
            torch.zeros(1, 1, 1, height // 8, width // 8),
            LOW_MEMORY_TILES.side // 8,
            LOW_MEMORY_TILES.stride // 8,
            Fraction(1),
            skip_covered=True,
        )
    )
    longer = max(width, height)
    assert seen == list(product(tile_sides(height, longer), tile_sides(width, longer)))


def test_open_sora_decodes_as_the_formula_says() -> None:
    """The whole decoder, all tiles of a clip; and the encoder, an image."""
    clip, vae, network = (
        Clip(336, 192, 65),
        HunyuanAutoencoder(),
        on_meta(AutoencoderKLHunyuanVideo),
    )
    cut = list(tiles(clip.num_frames, clip.height, clip.width, in_time=False))
    counted = count_opensora_decode(network, clip)
    assert sum(vae.decode_flops(*tile) for tile in cut) == counted.flops
    peak = max(vae.decode_bytes(*tile, BFLOAT16) for tile in cut)
    assert peak == pytest.approx(counted.peak_bytes, rel=0.02)
    frame = torch.empty(1, 3, 1, 192, 256, device="meta", dtype=torch.bfloat16)
    counted = count(lambda: network.quant_conv(network.encoder(frame)), [network])
    assert vae.encode_flops(24, 32) == counted.flops
    assert vae.encode_bytes(24, 32, BFLOAT16) == pytest.approx(counted.peak_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("width", "height", "frames", "in_time"),
    [(256, 256, 1, False), (464, 272, 1, False), (32, 32, 117, True)],
)
def test_the_tiles_are_those_that_are_decoded(
    width: int, height: int, frames: int, in_time: bool
) -> None:
    """Seen by a tiny decoder."""
    vae = tiny_vae()
    seen: list[tuple[int, ...]] = []
    vae.decoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[2:])))
    latents = torch.zeros(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    for _ in decode(vae, latents, LOW_MEMORY_TILING if in_time else AUTHORS_TILING):
        pass
    assert seen == list(tiles(frames, height, width, in_time=in_time))


@pytest.mark.parametrize(
    ("figures", "network"),
    [(MOCHI, MochiTransformer3DModel), (OPENSORA, OpenSoraTransformer3DModel)],
    ids=["mochi", "opensora"],
)
def test_what_is_streamed_or_stored_in_8_bits_is_exact(figures: Any, network: Any) -> None:
    """diffusers' own layerwise casting decides which weights it stores in 8 bits."""
    made = on_meta(network)
    in_blocks = [num_parameters(block) for block in made.transformer_blocks]
    assert figures.num_in_block() == max(in_blocks)
    weights = made.named_parameters()
    outside = sum(weight.numel() for name, weight in weights if "transformer_blocks" not in name)
    assert figures.num_outside_blocks() == outside
    made.enable_layerwise_casting(torch.float8_e4m3fn, torch.bfloat16)
    size = sum(weight.numel() * weight.itemsize for weight in made.parameters())
    assert figures.num_parameters() + figures.num_kept_from_fp8() == size
    in_8_bits = [weight.numel() for weight in made.parameters() if weight.itemsize == 1]
    assert figures.num_in_largest_layer() == max(in_8_bits)


@pytest.mark.parametrize("mode", ["int8", "nf4"])
@pytest.mark.parametrize(
    ("figures", "network"),
    [
        (MochiFigures(), MochiTransformer3DModel),
        (OpenSoraFigures(), OpenSoraTransformer3DModel),
    ],
    ids=["mochi", "opensora"],
)
def test_what_is_stored_in_fewer_bits_is_exact(
    figures: ModelFigures, network: Any, mode: WeightMode
) -> None:
    """With the scales; what is left out is the table that turns 4 bits into numbers."""
    made = on_meta(network)
    set_weight_mode(made, mode, "meta")
    stored = [*made.parameters(), *made.buffers()]
    size = sum(tensor.numel() * tensor.itemsize for tensor in stored)
    expected = transformer_bytes(figures.counts(), Mode(transformer=mode))
    assert expected == pytest.approx(size, rel=0.001)
    if mode == "int8":
        assert expected == size
    # What the largest layer of tokens takes before its result is there.
    quantised = {
        name: layer for name, layer in made.named_modules() if hasattr(layer, "dequantised")
    }
    of_tokens = [layer for name, layer in quantised.items() if "norm" not in name]
    largest = max(of_tokens, key=lambda layer: layer.weight.nbytes)
    counted = count(largest.dequantised, [largest])
    copies = {"int8": 2, "nf4": 4}[mode]
    assert counted.peak_bytes == copies * figures.counts().largest_layer


def test_a_downloaded_checkpoint_is_read_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the hub's cache, by its hub id."""
    repository = tmp_path / "models--somebody--mochi"
    part = repository / "snapshots" / "abc" / "transformer"
    part.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    config = {"_class_name": "MochiTransformer3DModel", "num_layers": 42}
    (part / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    pruned = read_network(MochiTransformer, "somebody/mochi", "transformer")
    assert pruned == replace(MOCHI, num_layers=42)


def test_a_configuration_without_a_key_is_refused_by_name() -> None:
    """transformers' defaults are of other networks; a checkpoint not on this disk is said too."""
    config = json.loads((BUNDLED_DIR / "mochi-tiny/text_encoder/config.json").read_text())
    del config["d_ff"]
    with pytest.raises(ValueError, match="T5Encoder: lacks d_ff"):
        from_config(T5Encoder, config)
    assert from_config(MochiTransformer, {"_class_name": "MochiTransformer3DModel"}) == MOCHI
    with pytest.raises(FileNotFoundError, match="neither a folder nor downloaded"):
        read_network(T5Encoder, "nobody/nothing", "text_encoder")
