"""Files of one hub repository: which there are, which are here, and how the rest is fetched.

Part of `make weights`; the service itself never downloads.
"""

import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

# What is left free for the videos and everything else.
SPARE_BYTES = 2 * 2**30
# The base of the hub's errors is that of the HTTP library below it, which raises its own as well.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)


class WeightsError(Exception):
    """The weights cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class HubFile:
    """One file of a repository."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class Offer:
    """What would be downloaded: the needed files of one repository at one commit."""

    repo_id: str
    commit: str
    licence: str
    files: tuple[HubFile, ...]

    def missing(self, folder: Path | None) -> tuple[HubFile, ...]:
        """Return the files that are not complete in `folder`, or in the hub cache."""
        return tuple(file for file in self.files if not self._is_here(file, folder))

    def _is_here(self, file: HubFile, folder: Path | None) -> bool:
        if folder is not None:
            path = folder / file.name
            return path.is_file() and path.stat().st_size == file.size_bytes
        path_or_not = try_to_load_from_cache(self.repo_id, file.name, revision=self.commit)
        return isinstance(path_or_not, str)


def look_up(repo_id: str, needed: Callable[[Iterable[HubFile]], tuple[HubFile, ...]]) -> Offer:
    """Ask the hub what there is.

    Args:
        needed: chooses from all files of the repository.

    Raises:
        WeightsError: the hub cannot be reached, or the repository is not what it should be.
    """
    try:
        info = HfApi().model_info(repo_id, files_metadata=True)
    except RepositoryNotFoundError as error:
        raise WeightsError(f"{repo_id} does not exist, or is not public.") from error
    except CONNECTION_ERRORS as error:
        raise WeightsError(f"{constants.ENDPOINT} cannot be reached: {error}") from error
    everything = [HubFile(file.rfilename, file.size or 0) for file in info.siblings or ()]
    licence = str((info.card_data or {}).get("license") or "not stated")
    return Offer(repo_id, str(info.sha), licence, needed(everything))


def fetch(repo_id: str, name: str, revision: str, folder: Path | None) -> Path:
    """Download one file, or what is missing of it, and return where it is.

    Args:
        revision: a commit or a branch.
        folder: None is the hub cache.

    Raises:
        WeightsError: the connection broke.
    """
    try:
        return Path(hf_hub_download(repo_id, name, revision=revision, local_dir=folder))
    except CONNECTION_ERRORS as error:
        raise WeightsError(
            f"{name}: {error}\nThe same command goes on where it stopped."
        ) from error


def refuse_full_disk(needs: Mapping[Path, int]) -> None:
    """Raise unless there is room for the bytes that will be written to each folder.

    Raises:
        WeightsError: with both sizes. Folders on one disk are counted together.
    """
    by_disk: dict[int, list[Path]] = {}
    for folder, size_bytes in needs.items():
        if size_bytes:
            by_disk.setdefault(_existing(folder).stat().st_dev, []).append(folder)
    for folders in by_disk.values():
        need = sum(needs[folder] for folder in folders) + SPARE_BYTES
        free = free_bytes(folders[0])
        if need > free:
            raise WeightsError(
                f"Too little disk: {size(need)} are needed with a reserve, {size(free)} are free "
                f"in {' and '.join(map(str, folders))}. Free some, or name another folder with "
                "--dir or HF_HOME."
            )


def free_bytes(folder: Path) -> int:
    """Return what is free where `folder` is, or will be."""
    return shutil.disk_usage(_existing(folder)).free


def size(size_bytes: int) -> str:
    """Return a size for people to read."""
    unit, name = next(
        (unit, name)
        for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
        if size_bytes >= unit or unit == 2**10
    )
    return f"{size_bytes / unit:.1f} {name}"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
