"""Load the parts of a Mochi checkpoint in the layout of diffusers, strictly and from disk only."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLMochi, MochiTransformer3DModel
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5EncoderModel

NETWORKS: dict[str, Any] = {
    "transformer": MochiTransformer3DModel,
    "text_encoder": T5EncoderModel,
    "vae": AutoencoderKLMochi,
}
VARIANT = "bf16"
# The token embedding of T5 goes by two names.
TIED = {"shared.weight", "encoder.embed_tokens.weight"}


@dataclass(frozen=True)
class MochiParts:
    """The loaded networks, in eval mode, each on its device."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: T5EncoderModel
    transformer: MochiTransformer3DModel
    vae: AutoencoderKLMochi


def load(source: str, device: str, *, on_cpu: Collection[str] = ()) -> MochiParts:
    """Load the checkpoint `source` to `device`.

    For a GPU everything is bfloat16. The authors run the text encoder in float32, the transformer
    in bfloat16 and decode under bfloat16 autocast (genmoai/mochi@0c86aeb
    src/genmo/mochi_preview/pipelines.py, decode_latents); T5 in bfloat16 is what diffusers'
    documentation of Mochi loads. On the CPU everything is float32.

    Args:
        source: a diffusers folder, or a hub id whose files are in the hub cache (HF_HOME).
        device: "cpu", "cuda" or "cuda:N".
        on_cpu: parts that stay on the CPU: "text_encoder", "transformer", "vae".

    Raises:
        FileNotFoundError: the checkpoint, or a part of it, is not on this disk.
        ValueError: it is not a Mochi checkpoint, or weights are missing or left over.
    """
    folder = local_folder(source)
    check_folder(folder)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    parts = {}
    # The largest first, and moved before the next is read: memory of the host peaks lowest.
    for name, kind in NETWORKS.items():
        network = _load_network(kind, folder / name, dtype)
        parts[name] = network.to("cpu" if name in on_cpu else device)
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    return MochiParts(tokenizer=tokenizer, **parts)


def weights_gb(source: str, dtype: torch.dtype) -> dict[str, float]:
    """Return the size in GiB of each network once loaded, as `<part>_gb`, from the files' headers.

    Raises: FileNotFoundError, ValueError: as `load`.
    """
    folder = local_folder(source)
    check_folder(folder)
    return {
        f"{name}_gb": _num_weights(folder / name, dtype) * dtype.itemsize / 2**30
        for name in NETWORKS
    }


def _num_weights(folder: Path, dtype: torch.dtype) -> int:
    return sum(prod(shape) for shape in _stored_shapes(folder, dtype).values())


def _stored_shapes(folder: Path, dtype: torch.dtype) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that is read for `dtype`, from the files' headers."""
    variant = stored_variant(folder, dtype)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        if (f".{VARIANT}" in path.name) == (variant is not None):
            with safe_open(path, "pt") as file:
                keys = file.keys()
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    return shapes


def verify(folder: Path) -> None:
    """Raise as `load` does unless every network finds its weights; needs no memory for them."""
    check_folder(folder)
    for name, kind in NETWORKS.items():
        config = kind.config_class.from_pretrained if kind is T5EncoderModel else kind.load_config
        with torch.device("meta"):
            loaded = config(folder / name, local_files_only=True)
            network = kind(loaded) if kind is T5EncoderModel else kind.from_config(loaded)
        expected = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        stored = _stored_shapes(folder / name, torch.bfloat16)
        if set(expected) & TIED and set(stored) & TIED:
            # Either name will do: they are one tensor.
            expected = {key: shape for key, shape in expected.items() if key not in TIED}
            stored = {key: shape for key, shape in stored.items() if key not in TIED}
        wrong = sorted(key for key in {*expected, *stored} if expected.get(key) != stored.get(key))
        if wrong:
            raise ValueError(f"{name}: {len(wrong)} weights do not fit, first: {wrong[0]}")


def local_folder(source: str) -> Path:
    """Return the folder of a checkpoint. Raises FileNotFoundError when it is not on this disk."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{source} is neither a folder nor downloaded") from error


def check_folder(folder: Path) -> None:
    """Raise unless `folder` is a Mochi pipeline with all parts that we use."""
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        raise FileNotFoundError(f"{folder.name} holds no model_index.json")
    kind = json.loads(index_path.read_text()).get("_class_name")
    if kind != "MochiPipeline":
        raise ValueError(f"{folder.name} is a checkpoint of {kind}, not of MochiPipeline")
    for name in ("tokenizer", *NETWORKS):
        config = "tokenizer_config.json" if name == "tokenizer" else "config.json"
        if not (folder / name / config).is_file():
            raise FileNotFoundError(f"{folder.name} lacks its part {name!r} ({name}/{config})")


def stored_variant(folder: Path, dtype: torch.dtype) -> str | None:
    """Return the variant of the weights in `folder` to read for `dtype`, None for the plain ones.

    The bfloat16 files are half as large; they are also taken when there are no others.
    """
    names = [path.name for path in folder.glob("*.safetensors")]
    if not names:
        raise FileNotFoundError(f"{folder.parent.name}/{folder.name} holds no .safetensors files")
    in_variant = [name for name in names if f".{VARIANT}" in name]
    use = bool(in_variant) and (dtype == torch.bfloat16 or len(in_variant) == len(names))
    return VARIANT if use else None


def _load_network(kind: Any, folder: Path, dtype: torch.dtype) -> Any:
    network, info = kind.from_pretrained(
        folder,
        dtype=dtype,
        variant=stored_variant(folder, dtype),
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, by name
    )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info.get(problem) or ())):
            raise ValueError(
                f"{folder.parent.name}/{folder.name}: {len(keys)} {problem.replace('_', ' ')}, "
                f"first: {keys[0]}"
            )
    return network.eval()
