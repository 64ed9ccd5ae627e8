"""Load the parts of a checkpoint in the layout of diffusers, strictly and from disk only.

What the model families share. A family says what its checkpoints consist of; everything that is
missing, left over or of another shape is an error that names it.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from transformers import AutoTokenizer, PreTrainedModel

from deployments.models.streaming import lockable
from deployments.models.weight_modes import WeightMode, move, set_weight_mode

TRANSFORMER = "transformer"
VARIANT = "bf16"
# The token embedding of T5 goes by two names.
TIED = {"shared.weight", "encoder.embed_tokens.weight"}


@dataclass(frozen=True)
class Family:
    """What a checkpoint of a model family consists of.

    Attributes:
        pipeline: class name of the pipeline in `model_index.json`.
        tokenizers: their folders.
        networks: the class of each network by its folder, in the order in which they are loaded:
            the largest first, then memory of the host peaks lowest.
    """

    pipeline: str
    tokenizers: tuple[str, ...]
    networks: Mapping[str, Any]

    def load(
        self, source: str, device: str, on_cpu: Collection[str], weights: WeightMode
    ) -> dict[str, Any]:
        """Return the parts by name: tokenizers, and networks in eval mode, each on its device.

        For a GPU everything is bfloat16, on the CPU everything is float32.

        Args:
            source: a diffusers folder, or a hub id whose files are in the hub cache (HF_HOME).
            device: "cpu", "cuda" or "cuda:N".
            on_cpu: names of networks that stay on the CPU.
            weights: how the transformer is stored.

        Raises:
            FileNotFoundError: the checkpoint, or a part of it, is not on this disk.
            ValueError: it is of another family, or weights are missing or left over.
            MemoryError: weights are to be streamed from a host that has no memory for them.
        """
        folder = local_folder(source)
        self.check_folder(folder)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        parts: dict[str, Any] = {}
        for name, kind in self.networks.items():
            if name == TRANSFORMER:
                network = self.load_transformer(source, device, weights)
            else:
                network = _load_network(kind, folder / name, dtype)
            parts[name] = move(network, "cpu" if name in on_cpu else device)
        for name in self.tokenizers:
            parts[name] = AutoTokenizer.from_pretrained(folder / name, local_files_only=True)
        return parts

    def load_transformer(self, source: str, device: str, weights: WeightMode) -> Any:
        """Return only the transformer of a checkpoint, still on the CPU; else as `load`."""
        folder = local_folder(source)
        self.check_folder(folder)
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        page_locked = False
        if weights == "streamed" and device != "cpu":
            stored = _stored_shapes(folder / TRANSFORMER, dtype).values()
            sizes = [dtype.itemsize * prod(shape) for shape in stored]
            page_locked = lockable(sizes, psutil.virtual_memory().available)
        network = _load_network(self.networks[TRANSFORMER], folder / TRANSFORMER, dtype)
        set_weight_mode(network, weights, device, page_locked=page_locked)
        return network

    def verify(self, folder: Path) -> None:
        """Raise as `load` does unless every network finds its weights; needs no memory for them."""
        self.check_folder(folder)
        for name, kind in self.networks.items():
            stored = _stored_shapes(folder / name, torch.bfloat16)
            # Either name will do: they are one tensor.
            if tied := [stored.pop(key) for key in TIED & stored.keys()]:
                stored["shared.weight"] = tied[0]
            expected = weight_shapes(_empty_network(kind, folder / name))
            wrong = sorted(
                key for key in {*expected, *stored} if expected.get(key) != stored.get(key)
            )
            if wrong:
                raise ValueError(f"{name}: {len(wrong)} weights do not fit, first: {wrong[0]}")

    def check_folder(self, folder: Path) -> None:
        """Raise unless `folder` is a checkpoint of this family with all parts that we use."""
        index_path = folder / "model_index.json"
        if not index_path.is_file():
            raise FileNotFoundError(f"{folder.name} holds no model_index.json")
        kind = json.loads(index_path.read_text()).get("_class_name")
        if kind != self.pipeline:
            raise ValueError(f"{folder.name} is a checkpoint of {kind}, not of {self.pipeline}")
        configs = dict.fromkeys(self.tokenizers, "tokenizer_config.json")
        for name, config in (configs | dict.fromkeys(self.networks, "config.json")).items():
            if not (folder / name / config).is_file():
                raise FileNotFoundError(f"{folder.name} lacks its part {name!r} ({name}/{config})")


def local_folder(source: str) -> Path:
    """Return the folder of a checkpoint. Raises FileNotFoundError when it is not on this disk."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(f"{source} is neither a folder nor downloaded") from error


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


def weight_shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each weight; what goes by two names (T5's embedding) has one."""
    return {
        name: tuple(weight.shape)
        for name, weight in network.state_dict().items()
        if name != "encoder.embed_tokens.weight"
    }


def _stored_shapes(folder: Path, dtype: torch.dtype) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight that is read for `dtype`, from the files' headers."""
    variant = stored_variant(folder, dtype)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in folder.glob("*.safetensors"):
        if (f".{VARIANT}" in path.name) == (variant is not None):
            with safe_open(path, "pt") as file:
                keys: Iterable[str] = file.keys()
                shapes |= {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    return shapes


def _empty_network(kind: Any, folder: Path) -> Any:
    """Return the network that `folder`'s config describes, on the meta device."""
    with torch.device("meta"):
        if issubclass(kind, PreTrainedModel):
            config = kind.config_class.from_pretrained(folder, local_files_only=True)
            return kind(config)
        return kind.from_config(kind.load_config(folder, local_files_only=True))


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
