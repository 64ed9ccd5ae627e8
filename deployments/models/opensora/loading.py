"""Load the parts of a converted Open-Sora 2.0, strictly and from disk only.

The layout is what `convert_opensora` writes: CLIP is `text_encoder`, T5 is `text_encoder_2`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from diffusers import AutoencoderKLHunyuanVideo
from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

from deployments.models.loading import Family
from deployments.models.opensora.attention import use_joint_attention
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.weight_modes import WeightMode

OPENSORA = Family(
    pipeline="OpenSoraPipeline",
    tokenizers=("tokenizer", "tokenizer_2"),
    networks={
        "transformer": OpenSoraTransformer3DModel,
        "text_encoder_2": T5EncoderModel,
        "vae": AutoencoderKLHunyuanVideo,
        "text_encoder": CLIPTextModel,
    },
)


@dataclass(frozen=True)
class OpenSoraParts:
    """The loaded networks, in eval mode, each on its device."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: CLIPTextModel
    tokenizer_2: PreTrainedTokenizerBase
    text_encoder_2: T5EncoderModel
    transformer: OpenSoraTransformer3DModel
    vae: AutoencoderKLHunyuanVideo


def load(
    source: str, device: str, *, on_cpu: Collection[str] = (), weights: WeightMode = "resident"
) -> OpenSoraParts:
    """Load the checkpoint `source` to `device`, as `Family.load` says.

    The authors run everything in bfloat16 (hpcaitech/Open-Sora@7ad6a96).
    """
    parts = OpenSoraParts(**OPENSORA.load(source, device, on_cpu, weights))
    use_joint_attention(parts.transformer)
    return parts


def verify(folder: Path) -> None:
    """Raise unless `folder` is a complete Open-Sora, as `Family.verify` says."""
    OPENSORA.verify(folder)
