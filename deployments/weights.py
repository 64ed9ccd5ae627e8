"""Download the published weights of a model: `make weights MODEL=mochi`.

Shows the licence, the files and their size and the free disk, asks, downloads what is missing
(a download that was cut goes on where it stopped) and verifies the result. The service itself
never downloads.
"""

import argparse
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi, constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from deployments.mochi import Mochi

INDEX = "model_index.json"
COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")
# Other formats of the same weights.
UNUSED_SUFFIXES = (".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx")
VARIANT = ".bf16"
# What is left free for the videos and everything else.
SPARE_BYTES = 2 * 2**30
# The base of the hub's errors is that of the HTTP library below it, which raises its own as well.
CONNECTION_ERRORS: tuple[type[Exception], ...] = (HfHubHTTPError.__bases__[0], OSError)
LATER = {"opensora": "Open-Sora comes with a later release; this one makes videos with mochi."}


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


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _options(arguments)
    if options.model in LATER:
        return _fail(LATER[options.model])
    try:
        download(options.repo, folder=options.dir, accepted=options.accept_licence)
    except WeightsError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("Stopped. The same command goes on where it stopped.")
    return 0


def download(repo_id: str, *, folder: Path | None, accepted: bool) -> None:
    """Download what the service needs of `repo_id`, to the hub cache or to `folder`.

    Raises:
        WeightsError: declined, too little disk, no connection, or not a complete Mochi.
    """
    offer = look_up(repo_id)
    missing = [file for file in offer.files if not _is_here(offer, file, folder)]
    target = folder or Path(constants.HF_HUB_CACHE)
    _describe(offer, missing, target)
    _refuse_full_disk(missing, target)
    if missing:
        if not accepted:
            _ask(offer.licence)
        for file in missing:
            _fetch_one(repo_id, file.name, offer.commit, folder)
    # By its branch, so that the cache notes which commit is the current one.
    index = _fetch_one(repo_id, INDEX, "main", folder)
    _verify(folder or Path(index).parent)
    used = f'; set `checkpoint: "{folder}"` in the config' if folder else ""
    _say(f"{repo_id} is complete{used}.")


def look_up(repo_id: str) -> Offer:
    """Ask the hub what there is. Raises WeightsError when it cannot be reached."""
    try:
        info = HfApi().model_info(repo_id, files_metadata=True)
    except RepositoryNotFoundError as error:
        raise WeightsError(f"{repo_id} does not exist, or is not public.") from error
    except CONNECTION_ERRORS as error:
        raise WeightsError(f"{constants.ENDPOINT} cannot be reached: {error}") from error
    everything = [HubFile(file.rfilename, file.size or 0) for file in info.siblings or ()]
    licence = str((info.card_data or {}).get("license") or "not stated")
    return Offer(repo_id, str(info.sha), licence, needed_files(everything))


def needed_files(everything: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Return the files of a diffusers repository that the service loads, `model_index.json` last.

    Of a part's weights only the bfloat16 variant, where it is published: half the size.
    """
    by_folder: dict[str, list[HubFile]] = {}
    for file in everything:
        by_folder.setdefault(str(PurePosixPath(file.name).parent), []).append(file)
    index = [file for file in by_folder.get(".", []) if file.name == INDEX]
    if not index or any(component not in by_folder for component in COMPONENTS):
        raise WeightsError("The repository is not a complete diffusers pipeline of Mochi.")
    needed: list[HubFile] = []
    for component in COMPONENTS:
        files = [file for file in by_folder[component] if not file.name.endswith(UNUSED_SUFFIXES)]
        weights = [file for file in files if file.name.endswith(WEIGHT_SUFFIXES)]
        variant = [file for file in weights if VARIANT in PurePosixPath(file.name).name]
        others = [file for file in files if file not in weights]
        needed += [*others, *(variant or weights)]
    # A checkpoint counts as downloaded as soon as its index is there.
    return (*needed, *index)


def _is_here(offer: Offer, file: HubFile, folder: Path | None) -> bool:
    if folder is not None:
        path = folder / file.name
        return path.is_file() and path.stat().st_size == file.size_bytes
    return isinstance(try_to_load_from_cache(offer.repo_id, file.name, revision=offer.commit), str)


def _describe(offer: Offer, missing: list[HubFile], target: Path) -> None:
    total, left = (sum(file.size_bytes for file in files) for files in (offer.files, missing))
    _say(f"{offer.repo_id} at {offer.commit[:12]}, licence: {offer.licence}")
    _say(f"{constants.ENDPOINT}/{offer.repo_id}\n")
    for file in offer.files:
        state = "" if file in missing else "  (here already)"
        _say(f"{_size(file.size_bytes):>10}  {file.name}{state}")
    _say(f"\n{_size(total):>10}  in all, {_size(left)} to download to {target}")
    _say(f"{_size(_free_bytes(target)):>10}  free there\n")


def _refuse_full_disk(missing: list[HubFile], target: Path) -> None:
    need = sum(file.size_bytes for file in missing) + (SPARE_BYTES if missing else 0)
    free = _free_bytes(target)
    if need > free:
        raise WeightsError(
            f"Too little disk: {_size(need)} are needed with a reserve, {_size(free)} are free in "
            f"{target}. Free some, or name another folder with --dir or HF_HOME."
        )


def _free_bytes(target: Path) -> int:
    existing = next(path for path in (target, *target.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free


def _ask(licence: str) -> None:
    if not sys.stdin.isatty():
        raise WeightsError(
            "Nothing was downloaded. Without a terminal to ask on, "
            "`python -m deployments.weights mochi --accept-licence` says yes."
        )
    _say(f"Download under the licence {licence}? [y/N] ", end="")
    if input().strip().lower() not in ("y", "yes"):
        raise WeightsError("Nothing was downloaded.")


def _fetch_one(repo_id: str, name: str, revision: str, folder: Path | None) -> str:
    try:
        path: str = hf_hub_download(repo_id, name, revision=revision, local_dir=folder)
    except CONNECTION_ERRORS as error:
        raise WeightsError(
            f"{name}: {error}\nThe same command goes on where it stopped."
        ) from error
    return path


def _verify(folder: Path) -> None:
    """Compare names and shapes in the files with the networks, without loading the weights."""
    from deployments.models.mochi1.loading import verify

    _say("Verifying ...")
    try:
        verify(folder)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(f"The download is not a usable Mochi: {error}") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make weights", description=__doc__)
    parser.add_argument("model", choices=["mochi", *LATER])
    parser.add_argument("--accept-licence", action="store_true", help="do not ask")
    parser.add_argument("--dir", type=Path, help="a folder instead of the hub cache (HF_HOME)")
    parser.add_argument(
        "--repo", default=Mochi.published.repo_id, help="another repository in the same layout"
    )
    return parser.parse_args(arguments)


def _size(size_bytes: int) -> str:
    unit, name = next(
        (unit, name)
        for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
        if size_bytes >= unit or unit == 2**10
    )
    return f"{size_bytes / unit:.1f} {name}"


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
