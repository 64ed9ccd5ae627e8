"""Networks of some 60 to 75 million parameters with random weights, as checkpoint folders.

Between the bundled tiny checkpoints, where overhead counts, and the published ones, which need a
GPU. Tokenizers and text encoders are the bundled ones.
"""

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, MochiTransformer3DModel

from benchmarks.decode_memory import medium_vae
from deployments.core.checkpoints import BUNDLED_DIR
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel

TEXT_DIM, POOLED_DIM = 96, 64  # the bundled text encoders'
GENERATION = {
    "native_area": 128 * 128,
    "max_frames": 97,
    "num_inference_steps": 8,
    "guidance_scale": 5.0,
    "image_guidance_scale": 1.5,
    "fast_threshold": 0.1,
}


def mid_size(model: str, bundled: str, folder: Path) -> None:
    """Write a checkpoint of the family `model` to `folder`; the rest is that of `bundled`."""
    shutil.copytree(
        BUNDLED_DIR / bundled, folder, ignore=shutil.ignore_patterns("transformer", "vae")
    )
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    torch.manual_seed(0)
    transformer, vae = (_mochi if model == "mochi" else _opensora)()
    transformer.save_pretrained(folder / "transformer")
    vae.save_pretrained(folder / "vae")


def _mochi() -> tuple[torch.nn.Module, torch.nn.Module]:
    transformer = MochiTransformer3DModel(
        num_attention_heads=8,
        attention_head_dim=64,
        num_layers=12,
        pooled_projection_dim=256,
        text_embed_dim=TEXT_DIM,
    )
    return transformer, medium_vae()


def _opensora() -> tuple[torch.nn.Module, torch.nn.Module]:
    transformer = OpenSoraTransformer3DModel(
        num_layers=4,
        num_single_layers=8,
        attention_head_dim=64,
        num_attention_heads=8,
        joint_attention_dim=TEXT_DIM,
        pooled_projection_dim=POOLED_DIM,
        axes_dims_rope=(8, 28, 28),
    )
    vae = AutoencoderKLHunyuanVideo(block_out_channels=(32, 64, 96, 96), layers_per_block=1)
    return transformer, vae
