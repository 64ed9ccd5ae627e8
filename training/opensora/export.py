"""Write the trained weights as an ordinary diffusers folder in bf16.

python -m training.opensora.export --out checkpoints/opensora-tiny
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Final

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler

from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from training.export import weight_bytes
from training.opensora.models import ConditionedVelocity, new_model
from training.opensora.train import CHECKPOINT, LATENT_SPACE
from training.opensora.train_vae import load_space, load_vae

# The keys of deployments/core/checkpoints.py.
GENERATION_CONFIG: Final = {
    "native_area": 96 * 96,
    "max_frames": 97,
    "num_inference_steps": 20,
    "guidance_scale": 5.0,
    "image_guidance_scale": 1.5,
    "motion_score": 4,
    # Chosen on the tables of docs/benchmarks.md.
    "draft_steps": 8,
    "fast_threshold": 0.12,
    "example_prompts": (
        "a red ball moving right on a black background",
        "A serene lake at sunset with mountains in the background",
        "a yellow triangle bouncing over the sea at night",
    ),
}
_log = logging.getLogger(__name__)


def load_trained(run: Path, tokenizers: Path) -> ConditionedVelocity:
    """The averaged weights of a transformer run, in float32."""
    model = new_model(tokenizers, seed=0)
    state = torch.load(run / "state.pt", weights_only=True)
    model.modules().load_state_dict(state["average"])
    _log.info("transformer: %s", state["progress"])
    return model


def build_pipeline(model: ConditionedVelocity, vae: AutoencoderKLHunyuanVideo) -> OpenSoraPipeline:
    """The parts as the pipeline whose layout is saved."""
    return OpenSoraPipeline(
        tokenizer=model.tokenizer,
        text_encoder=model.text_encoder,
        tokenizer_2=model.tokenizer_2,
        text_encoder_2=model.text_encoder_2,
        transformer=model.transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def save(pipeline: OpenSoraPipeline, out: Path) -> None:
    """Write it in bf16, with the settings that suit it; its networks are left in bf16."""
    for name in ("text_encoder", "text_encoder_2", "transformer", "vae"):
        getattr(pipeline, name).to(torch.bfloat16)
    pipeline.save_pretrained(out)
    settings = json.dumps(GENERATION_CONFIG, indent=2)
    (out / "generation_config.json").write_text(settings + "\n")
    _log.info("%d bytes of weights in %s", weight_bytes(out), out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    parser.add_argument("--runs", type=Path, default=Path("training/runs"))
    parser.add_argument("--tokenizers", type=Path, default=CHECKPOINT, help="their checkpoint")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = load_trained(arguments.runs / "opensora-transformer", arguments.tokenizers)
    vae, _ = load_vae(arguments.runs / "opensora-vae", load_space(LATENT_SPACE))
    save(build_pipeline(model, vae), arguments.out)


if __name__ == "__main__":
    main()
