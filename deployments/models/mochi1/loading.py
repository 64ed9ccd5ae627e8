"""Load the parts of a Mochi checkpoint in the layout of diffusers, strictly and from disk only."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from deployments.models.loading import Family, local_folder
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


def load_drafter(
    source: str, device: str, main: str, weights: WeightMode
) -> MochiTransformer3DModel:
    """Return the transformer of the checkpoint `source`, on the CPU, to stand in for that of the
    checkpoint `main`.

    Raises: as `load`; ValueError: the networks differ.
    """
    theirs, ours = (
        MochiTransformer3DModel.load_config(
            local_folder(each) / "transformer", local_files_only=True
        )
        for each in (source, main)
    )
    for key, value in ours.items():
        if not key.startswith("_") and theirs.get(key) != value:
            raise ValueError(
                f"draft_checkpoint: its transformer has {key} {theirs.get(key)}, that of the "
                f"checkpoint {value}; it has to be of the same networks"
            )
    drafter: MochiTransformer3DModel = MOCHI.load_transformer(source, device, weights)
    use_trimmed_attention(drafter)
    return drafter


def verify(folder: Path) -> None:
    """Raise unless `folder` is a complete Mochi, as `Family.verify` says."""
    MOCHI.verify(folder)
