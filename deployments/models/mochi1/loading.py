"""Load the parts of a Mochi checkpoint in the layout of diffusers, strictly and from disk only."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from deployments.models.loading import Family
from deployments.models.mochi1.attention import use_trimmed_attention
from deployments.models.weight_modes import WeightMode

MOCHI = Family(
    pipeline="MochiPipeline",
    tokenizers=("tokenizer",),
    networks={
        "transformer": MochiTransformer3DModel,
        "text_encoder": T5EncoderModel,
        "vae": AutoencoderKLMochi,
    },
)


@dataclass(frozen=True)
class MochiParts:
    """The loaded networks, in eval mode, each on its device."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: T5EncoderModel
    transformer: MochiTransformer3DModel
    vae: AutoencoderKLMochi


def load(
    source: str, device: str, *, on_cpu: Collection[str] = (), weights: WeightMode = "resident"
) -> MochiParts:
    """Load the checkpoint `source` to `device`, as `Family.load` says.

    The authors run the text encoder in float32, the transformer in bfloat16 and decode under
    bfloat16 autocast (genmoai/mochi@0c86aeb src/genmo/mochi_preview/pipelines.py,
    decode_latents); T5 in bfloat16 is what diffusers' documentation of Mochi loads.
    """
    parts = MochiParts(**MOCHI.load(source, device, on_cpu, weights))
    use_trimmed_attention(parts.transformer)
    return parts


def verify(folder: Path) -> None:
    """Raise unless `folder` is a complete Mochi, as `Family.verify` says."""
    MOCHI.verify(folder)
