"""Convert a synthetic Open-Sora 2.0 of the published names, shapes and sizes, and measure it.

    python -m benchmarks.opensora_conversion [--dir FOLDER]
    python -m benchmarks.opensora_conversion --tiny        the same with small networks

The published files are made as sparse files: headers, then holes that read as zeros and take no
disk. What is written from them is real: 34 GB, in a folder that is removed at the end. Prints the
keys, the parameters, the seconds and by how much the memory of this process grew at its peak.
"""

import argparse
import json
import struct
import sys
import tempfile
import time
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from benchmarks.decode_memory import resident_kib
from deployments.models.loading import weight_shapes
from deployments.models.opensora import released
from deployments.models.opensora.convert_opensora import convert
from deployments.models.shards import in_safetensors, stored_tensors

Shapes = dict[str, tuple[int, ...]]

# google/t5-v1_1-xxl and openai/clip-vit-large-patch14.
T5: dict[str, Any] = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
CLIP: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
TINY_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
TINY_CLIP = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def released_shapes(
    hidden: int = 3072,
    head: int = 128,
    depth: tuple[int, int] = (19, 38),
    text: int = 4096,
    pooled: int = 768,
) -> Shapes:
    """Return names and shapes of the released network; the defaults are the 11B's.

    Args:
        hidden: width.
        head: width of an attention head.
        depth: numbers of double and single blocks.
        text: width of the T5 states.
        pooled: width of the CLIP vector.
    """
    layers: dict[str, tuple[int, ...]] = {
        "img_in": (hidden, 64),
        "cond_in": (hidden, 68),
        "txt_in": (hidden, text),
        "time_in.in_layer": (hidden, 256),
        "time_in.out_layer": (hidden, hidden),
        "vector_in.in_layer": (hidden, pooled),
        "vector_in.out_layer": (hidden, hidden),
        "final_layer.adaLN_modulation.1": (2 * hidden, hidden),
        "final_layer.linear": (64, hidden),
    }
    norms: list[str] = []
    for block in (f"double_blocks.{index}" for index in range(depth[0])):
        for stream in ("img", "txt"):
            layers[f"{block}.{stream}_mod.lin"] = (6 * hidden, hidden)
            for layer in ("q_proj", "k_proj", "v_proj", "proj"):
                layers[f"{block}.{stream}_attn.{layer}"] = (hidden, hidden)
            layers[f"{block}.{stream}_mlp.0"] = (4 * hidden, hidden)
            layers[f"{block}.{stream}_mlp.2"] = (hidden, 4 * hidden)
            norms += [f"{block}.{stream}_attn.norm.{norm}_norm" for norm in ("query", "key")]
    for block in (f"single_blocks.{index}" for index in range(depth[1])):
        layers[f"{block}.modulation.lin"] = (3 * hidden, hidden)
        layers |= {f"{block}.q_proj": (hidden, hidden), f"{block}.k_proj": (hidden, hidden)}
        layers[f"{block}.v_mlp"] = (5 * hidden, hidden)
        layers[f"{block}.linear2"] = (hidden, 5 * hidden)
        norms += [f"{block}.norm.{norm}_norm" for norm in ("query", "key")]
    shapes: Shapes = {f"{norm}.scale": (head,) for norm in norms}
    for layer, shape in layers.items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return shapes


def write_sparse(path: Path, shapes: Shapes, dtype: str, itemsize: int) -> None:
    """Write a safetensors file whose tensors are holes."""
    header: dict[str, Any] = {}
    offset = 0
    for name, shape in shapes.items():
        size = prod(shape) * itemsize
        offsets = (offset, offset := offset + size)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)


def publish(folder: Path, *, tiny: bool) -> Path:
    """Write the published files, with tokenizers of a few letters."""
    folder.mkdir()
    head = sum(released.AXES_DIMS_ROPE)
    small = released_shapes(2 * head, head, (2, 2), TINY_T5["d_model"], TINY_CLIP["hidden_size"])
    shapes = small if tiny else released_shapes()
    write_sparse(folder / released.TRANSFORMER_FILE, shapes, "BF16", 2)
    with torch.device("meta"):
        vae = AutoencoderKLHunyuanVideo(**released.VAE_CONFIG)
        t5 = T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", **(TINY_T5 if tiny else T5)))
        clip = CLIPTextModel(CLIPTextConfig(eos_token_id=2, **(TINY_CLIP if tiny else CLIP)))
    write_sparse(folder / released.VAE_FILE, weight_shapes(vae), "BF16", 2)
    letters = ["a", "b</w>", "<|startoftext|>", "<|endoftext|>"]
    tokenizers = {
        released.T5_FOLDER: T5Tokenizer(
            vocab=[(piece, -1.0) for piece in ("<pad>", "</s>", "<unk>")]
        ),
        released.CLIP_FOLDER: CLIPTokenizer(
            vocab={letter: index for index, letter in enumerate(letters)}, merges=[]
        ),
    }
    for name, network in ((released.T5_FOLDER, t5), (released.CLIP_FOLDER, clip)):
        network.config.save_pretrained(folder / name)
        write_sparse(folder / name / "model.safetensors", weight_shapes(network), "F32", 4)
        tokenizers[name].save_pretrained(folder / name)
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Convert and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, help="where to write (default: the system's)")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as work:
        source = publish(Path(work) / "published", tiny=options.tiny)
        target = Path(work) / "converted"
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
        before = resident_kib("VmRSS")
        began = time.perf_counter()
        convert(source, target, lambda line: print(line, flush=True))
        seconds = time.perf_counter() - began
        growth = (resident_kib("VmHWM") - before) / 2**10
        weights = stored_tensors(target / "transformer").values()
        files = [path.stat().st_size for path in target.rglob("*.safetensors")]
        num_keys = len(in_safetensors(source / released.TRANSFORMER_FILE))
    print(f"released keys          {num_keys:>14,}")
    print(f"weights written        {len(weights):>14,}")
    print(f"parameters             {sum(prod(w.shape) for w in weights):>14,}")
    print(f"written, GB            {sum(files) / 1e9:>14.2f}")
    print(f"largest file, GB       {max(files) / 1e9:>14.2f}")
    print(f"seconds                {seconds:>14.1f}")
    print(f"peak memory grew, MiB  {growth:>14.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
