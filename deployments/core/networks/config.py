"""Read the architecture of a network from its checkpoint; only looks at the disk."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import try_to_load_from_cache

Network = TypeVar("Network")

CONFIG = "config.json"


def read_network(kind: type[Network], source: str, part: str) -> Network:
    """Return the network `part` of a checkpoint as `kind`, one of this package's classes.

    Args:
        source: a folder in the layout of diffusers, or a hub id whose files are in the hub cache.
        part: the network's folder, such as "transformer".

    Raises:
        FileNotFoundError: the checkpoint has no such part on this disk.
        ValueError: its configuration lacks a key.
    """
    config = part_folder(source, part) / CONFIG
    return from_config(kind, json.loads(config.read_text()))


def part_folder(source: str, part: str) -> Path:
    """Return the folder of one part of a checkpoint; `source` and `part` as for `read_network`.

    Raises: FileNotFoundError: a hub id of which this part is not on this disk.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder / part
    cached = try_to_load_from_cache(source, f"{part}/{CONFIG}")
    if not isinstance(cached, str):
        raise FileNotFoundError(f"{source} is neither a folder nor downloaded: no {part}")
    return Path(cached).parent


def from_config(kind: type[Network], config: dict[str, Any]) -> Network:
    """Return `kind` with the values that `config` has for its fields; other keys are not needed.

    A key that a configuration of diffusers lacks has the default of its class, which is ours too.
    The defaults of transformers are of smaller networks, and every key must be there.

    Raises: ValueError: a field is not among the keys.
    """
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # all are dataclasses
    missing = sorted(names - config.keys())
    if missing and "_class_name" not in config:
        raise ValueError(f"config of {kind.__name__}: lacks {', '.join(missing)}")
    values = {name: config[name] for name in names & config.keys()}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
