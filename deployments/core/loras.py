"""The folder of a model's LoRA files: what is there, and whether the model can use it.

Only headers are read. The folder is looked at whenever somebody asks, so that a new file needs no
restart. A name is looked up in that listing, and never becomes a part of a path.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deployments.core.errors import InvalidRequest
from deployments.core.lora_layers import Linears, LoraLayer, lora_layers
from deployments.core.networks.config import part_folder
from deployments.core.safetensors_header import read_header
from deployments.core.spec import LORA_NAME, Frozen, Lora, VideoRequest

MAX_FILE_BYTES = 4 * 2**30
SUFFIX = ".safetensors"


class LoraFile(Frozen):
    """A file of the folder, by its name without the ending.

    Attributes:
        rank: the largest of its layers.
        num_parameters: of all its matrices, as they lie in memory.
        widest: the most channels that one of its layers makes.
        problem: why the model cannot use it; "" where it can.
    """

    name: str
    size_bytes: int
    rank: int = 0
    num_parameters: int = 0
    widest: int = 0
    problem: str = ""


Stock = Mapping[str, Sequence[LoraFile]]
"""What each model's folder holds, by the model's name; a model without a folder is left out."""
NO_LORAS: Stock = {}


class LoraFolder:
    """The LoRA files of one model.

    Args:
        folder: where they lie; "" for a model without any.
        linears: the linear layers of its network; None where they are not known on this machine,
            and only the files themselves are looked at.
    """

    def __init__(self, folder: str, linears: Linears | None) -> None:
        self._folder, self._linears = folder, linears
        self._read: dict[Path, tuple[tuple[int, int], LoraFile]] = {}

    def files(self) -> tuple[LoraFile, ...]:
        """Return what is there now, in the order of the names. Blocks."""
        read: dict[Path, tuple[tuple[int, int], LoraFile]] = {}
        for path in self._paths():
            try:
                stat = path.stat()
            except OSError:  # removed since
                continue
            stamp = stat.st_mtime_ns, stat.st_size
            known = self._read.get(path)
            read[path] = known if known and known[0] == stamp else (stamp, self._look(path))
        self._read = read
        return tuple(file for _, file in read.values())

    def layers(self, lora: Lora, linears: Linears) -> tuple[Path, list[LoraLayer]]:
        """Return the file of `lora`, and what it changes of a network with these layers. Blocks.

        Raises: InvalidRequest: there is no such file, or it does not fit.
        """
        paths = {path.name.removesuffix(SUFFIX): path for path in self._paths()}
        if lora.name not in paths:
            raise InvalidRequest("loras", f"{lora.name} is not there; there is {_listed(paths)}")
        try:
            header = read_header(paths[lora.name], MAX_FILE_BYTES)
            return paths[lora.name], lora_layers(header, linears)
        except (OSError, ValueError) as error:
            raise InvalidRequest("loras", f"{lora.name}{SUFFIX}: {_reason(error)}") from error

    def _paths(self) -> list[Path]:
        if not self._folder:
            return []
        try:
            found = [path for path in Path(self._folder).iterdir() if path.name.endswith(SUFFIX)]
            return sorted(path for path in found if path.is_file())
        except OSError:  # the operator's mistake, which `doctor` tells
            return []

    def _look(self, path: Path) -> LoraFile:
        name, size_bytes = path.name.removesuffix(SUFFIX), path.stat().st_size
        if not re.fullmatch(LORA_NAME, name):
            why = "its name may hold letters, digits, dots, dashes and underscores; rename the file"
            return LoraFile(name=name, size_bytes=size_bytes, problem=why)
        try:
            header = read_header(path, MAX_FILE_BYTES)
            layers = lora_layers(header, self._linears)
        except (OSError, ValueError) as error:
            return LoraFile(name=name, size_bytes=size_bytes, problem=_reason(error))
        made = [layer.rows[1] - layer.rows[0] for layer in layers]
        return LoraFile(
            name=name,
            size_bytes=size_bytes,
            rank=max(layer.rank for layer in layers),
            num_parameters=sum(
                layer.rank * (out + header.shapes[layer.down][1])
                for layer, out in zip(layers, made, strict=True)
            ),
            widest=max(made),
        )


class LoraFolders:
    """The folders of all configured models, on this machine.

    Args: folders: by the model's name; a model without a folder is left out.
    """

    def __init__(self, folders: Mapping[str, LoraFolder]) -> None:
        self._folders = folders
        self.last: Stock = {}

    async def stock(self) -> Stock:
        """Return what they hold now; `last` keeps the answer."""
        self.last = await asyncio.to_thread(self._read)
        return self.last

    async def stock_for(self, request: VideoRequest) -> Stock:
        """Return what they hold now, or nothing for a request without LoRA."""
        return await self.stock() if request.loras else NO_LORAS

    def _read(self) -> Stock:
        return {model: folder.files() for model, folder in self._folders.items()}


def refuse_missing(loras: Sequence[Lora], model: str, files: Sequence[LoraFile]) -> None:
    """Raise InvalidRequest unless `model`, whose folder holds `files`, has each of `loras`."""
    usable = [file.name for file in files if not file.problem]
    known = {file.name: file for file in files}
    for lora in loras:
        if lora.name not in known:
            reason = f"{lora.name} is unknown to {model}, which has {_listed(usable)}"
            raise InvalidRequest("loras", reason)
        if problem := known[lora.name].problem:
            raise InvalidRequest("loras", f"{model} cannot use {lora.name}{SUFFIX}: {problem}")


def linears_of(source: str) -> Linears | None:
    """Return the linear layers of a checkpoint's transformer, from the headers of its files; None
    where they are not on this disk.

    Args: source: a folder in the layout of diffusers, or a hub id whose files are in the hub cache.
    """
    linears: dict[str, tuple[int, int]] = {}
    try:
        for path in part_folder(source, "transformer").glob(f"*{SUFFIX}"):
            for key, shape in read_header(path).shapes.items():
                if key.endswith(".weight") and len(shape) == 2:
                    linears[key.removesuffix(".weight")] = (shape[0], shape[1])
    except (OSError, ValueError):  # the replica that loads it will say what is wrong
        return None
    return linears or None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _reason(error: Exception) -> str:
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
