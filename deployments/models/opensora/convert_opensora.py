"""Turn the published files of Open-Sora 2.0 into a folder in the layout of diffusers.

    python -m deployments.models.opensora.convert_opensora SOURCE TARGET

SOURCE holds what hpcai-tech/Open-Sora-v2 publishes (its FLUX.1 files are not read). TARGET is
written beside it as `TARGET.part` and renamed when it is complete and verified. Tensors are copied
one at a time, in the dtype in which they are; the text encoders become bfloat16.
"""

import argparse
import fcntl
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    PreTrainedModel,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from deployments.models.loading import weight_shapes
from deployments.models.opensora import released
from deployments.models.opensora.loading import verify
from deployments.models.opensora.pipeline_opensora import OpenSoraPipeline
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from deployments.models.shards import Tensor, in_safetensors, stored_tensors, write_shards

# Lengths to which prompts are padded.
T5_TOKENS, CLIP_TOKENS = 512, 77
CONFIG_BYTES = 64 * 2**20

Tensors = dict[str, Tensor]


def convert_transformer_state_dict(
    state_dict: Mapping[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Return the weights of `OpenSoraTransformer3DModel` from those of the released network.

    Raises:
        ValueError: a key is missing or has no place, or the file is of the fused kind.
    """
    shapes = {key: tuple(value.shape) for key, value in state_dict.items()}
    origins = released.transformer_origins(shapes)
    return {name: origin.change(state_dict[origin.key]) for name, origin in origins.items()}


@dataclass(frozen=True)
class Plan:
    """What will be written.

    Attributes:
        pipeline: with the networks on the meta device.
        tensors: of each network by its folder.
    """

    pipeline: OpenSoraPipeline
    tensors: dict[str, Tensors]

    @property
    def size_bytes(self) -> int:
        """What the files will take, without configurations and tokenizers."""
        return sum(tensor.size_bytes for part in self.tensors.values() for tensor in part.values())


def convert(source: Path, target: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Convert the published files in `source` into the new folder `target`.

    Args:
        source: a download of hpcai-tech/Open-Sora-v2.
        target: must not exist; an unfinished `TARGET.part` is begun anew.
        say: is told of the progress, a line at a time.

    Raises:
        FileNotFoundError: a file is missing in `source`.
        FileExistsError: `target` exists, or another process writes it.
        ValueError: a key is missing or has no place, or a tensor has another shape.
        OSError: too little disk.
    """
    plan = make_plan(source)
    with _unfinished(target) as part:
        free = shutil.disk_usage(part).free
        if (need := plan.size_bytes + CONFIG_BYTES) > free:
            raise OSError(
                f"too little disk: {need / 2**30:.1f} GiB are needed for {target}, "
                f"{free / 2**30:.1f} GiB are free"
            )
        plan.pipeline.save_config(part)
        for name in ("tokenizer", "tokenizer_2", "scheduler"):
            getattr(plan.pipeline, name).save_pretrained(part / name)
        for name, tensors in plan.tensors.items():
            size = sum(tensor.size_bytes for tensor in tensors.values())
            say(f"Writing {name}: {len(tensors)} tensors, {size / 2**30:.1f} GiB ...")
            network = getattr(plan.pipeline, name)
            if isinstance(network, PreTrainedModel):
                network.config.architectures = [type(network).__name__]
                network.config.save_pretrained(part / name)
                write_shards(part / name, "model", tensors)
            else:
                network.save_config(part / name)
                write_shards(part / name, "diffusion_pytorch_model", tensors)
        verify(part)


def make_plan(source: Path) -> Plan:
    """Read the headers of the published files and find a place for each tensor.

    Raises: FileNotFoundError, ValueError: as `convert`.
    """
    for name in released.PUBLISHED:
        if not (source / name).exists():
            raise FileNotFoundError(f"{source} lacks {name}")
    network = in_safetensors(source / released.TRANSFORMER_FILE)
    shapes = {key: tensor.shape for key, tensor in network.items()}
    origins = released.transformer_origins(shapes)
    t5, clip = source / released.T5_FOLDER, source / released.CLIP_FOLDER
    with torch.device("meta"):
        networks = {
            "transformer": OpenSoraTransformer3DModel(**released.transformer_config(shapes)),
            "vae": AutoencoderKLHunyuanVideo(**released.VAE_CONFIG),
            "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(clip)),
            "text_encoder_2": T5EncoderModel(T5Config.from_pretrained(t5)),
        }
    tensors = {
        "transformer": {name: network[o.key].then(o.change) for name, o in origins.items()},
        "vae": in_safetensors(source / released.VAE_FILE),
        "text_encoder": _text_tensors(clip, released.clip_name),
        "text_encoder_2": _text_tensors(t5, released.t5_name),
    }
    for name, found in tensors.items():
        _check(name, found, weight_shapes(networks[name]))
    pipeline = OpenSoraPipeline(
        **networks,
        tokenizer=CLIPTokenizer.from_pretrained(
            clip, model_max_length=CLIP_TOKENS, local_files_only=True
        ),
        tokenizer_2=T5Tokenizer.from_pretrained(
            t5, model_max_length=T5_TOKENS, local_files_only=True
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )
    return Plan(pipeline, tensors)


def _text_tensors(folder: Path, rename: Callable[[str], str | None]) -> Tensors:
    """Return the tensors of a text encoder in bfloat16, by our names."""
    named = {rename(key): tensor for key, tensor in stored_tensors(folder).items()}
    return {name: tensor.then(torch.Tensor.bfloat16) for name, tensor in named.items() if name}


def _check(part: str, found: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise ValueError(f"{part}: {len(missing)} keys are missing, first: {missing[0]}")
    if leftover := sorted(found.keys() - expected.keys()):
        raise ValueError(f"{part}: {len(leftover)} keys have no place, first: {leftover[0]}")
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ValueError(f"{part}: {name} is {found[name].shape}, expected {shape}")


@contextmanager
def _unfinished(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`, which becomes `target` if nothing goes wrong."""
    part = target.with_name(f"{target.name}.part")
    lock_path = part / ".lock"
    _refuse_existing(target)
    part.mkdir(parents=True, exist_ok=True)
    with lock_path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileExistsError(f"another process writes {part}") from error
        try:
            # Again: another process may just have finished it.
            _refuse_existing(target)
            _clear(part, keep=lock_path)
            yield part
            part.rename(target)
        except BaseException:
            shutil.rmtree(part)
            raise
        # Last, so that nobody else took the folder for unfinished in between.
        (target / lock_path.name).unlink()


def _refuse_existing(target: Path) -> None:
    if target.exists():
        raise FileExistsError(f"{target} exists already")


def _clear(folder: Path, keep: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != keep:
            path.unlink()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.models.opensora.convert_opensora",
        description="Turn the published files of Open-Sora 2.0 into a diffusers folder.",
    )
    parser.add_argument("source", type=Path, help="a download of hpcai-tech/Open-Sora-v2")
    parser.add_argument("target", type=Path, help="the folder to write; must not exist")
    options = parser.parse_args(arguments)
    try:
        convert(options.source, options.target, lambda line: print(line, flush=True))  # noqa: T201
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
