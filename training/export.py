"""Write the trained weights as an ordinary diffusers folder in bf16.

python -m training.export --out checkpoints/mochi-tiny
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Final

import torch
from diffusers import (
    AutoencoderKLMochi,
    FlowMatchEulerDiscreteScheduler,
    MochiPipeline,
    MochiTransformer3DModel,
)
from diffusers.models.attention_processor import MochiAttnProcessor2_0
from transformers import T5EncoderModel, T5Tokenizer

from training.models import TextToVelocity, new_model
from training.train_vae import load_space, load_vae

GENERATION_CONFIG: Final = {
    "native_area": 96 * 96,
    "max_frames": 163,
    "num_inference_steps": 20,
    "guidance_scale": 5.0,
    "threshold_noise": 0.1,
    "linear_steps": 4,
    # Chosen on the tables of docs/benchmarks.md.
    "draft_steps": 8,
    "fast_threshold": 0.12,
}
# Drawn as they say with every seed that was tried.
EXAMPLE_PROMPTS: Final = (
    "a red ball moving right on a black background",
    "A serene lake at sunset with mountains in the background",
    "a blue square moving up over a meadow at noon",
)
_log = logging.getLogger(__name__)


def load_trained(run: Path, tokenizer: Path) -> TextToVelocity:
    """The averaged weights of a transformer run, in float32, with diffusers' own attention."""
    model = new_model(tokenizer, seed=0)
    state = torch.load(run / "state.pt", weights_only=True)
    model.modules().load_state_dict(state["average"])
    for block in model.transformer.transformer_blocks:
        block.attn1.processor = MochiAttnProcessor2_0()
    _log.info("transformer: %s", state["progress"])
    return model


def build_pipeline(
    tokenizer: T5Tokenizer,
    text_encoder: T5EncoderModel,
    transformer: MochiTransformer3DModel,
    vae: AutoencoderKLMochi,
) -> MochiPipeline:
    """The parts as the pipeline whose layout is saved."""
    return MochiPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=transformer,
        force_zeros_for_empty_prompt=True,
    )


def _vae(run: Path, checkpoint: Path) -> AutoencoderKLMochi:
    """The trained autoencoder, or where no run is at hand the one exported before."""
    if (run / "decoder.pt").exists():
        return load_vae(run, load_space(Path("training/latent_space.npz")))[0]
    return AutoencoderKLMochi.from_pretrained(checkpoint / "vae", torch_dtype=torch.float32)


def weight_bytes(folder: Path) -> int:
    """Size of all weight files of a checkpoint."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/mochi-tiny"))
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("--tokenizer", type=Path, default=Path("checkpoints/mochi-tiny/tokenizer"))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = load_trained(arguments.runs / "transformer", arguments.tokenizer)
    pipeline = build_pipeline(
        model.tokenizer,
        model.text_encoder,
        model.transformer,
        _vae(arguments.runs / "vae", arguments.out),
    )
    for part in (pipeline.text_encoder, pipeline.transformer, pipeline.vae):
        part.to(torch.bfloat16)
    pipeline.save_pretrained(arguments.out)
    settings = json.dumps(GENERATION_CONFIG | {"example_prompts": EXAMPLE_PROMPTS}, indent=2)
    (arguments.out / "generation_config.json").write_text(settings + "\n")
    _log.info("%d bytes of weights in %s", weight_bytes(arguments.out), arguments.out)


if __name__ == "__main__":
    main()
