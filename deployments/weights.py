"""Download the published weights of a model: `make weights MODEL=mochi|opensora`.

Shows the licence, the files and their size and the free disk, asks, downloads what is missing
(a download that was cut goes on where it stopped), converts what is not in the layout of diffusers,
verifies the result, and fits the previews to it. What both models have alike is kept once. The
service itself never downloads.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from huggingface_hub import constants

from deployments import downloads
from deployments.core.checkpoints import converted_folder
from deployments.downloads import HubFile, Offer, WeightsError, fetch, look_up, size
from deployments.mochi import Mochi
from deployments.opensora import LICENCE, OpenSora

INDEX = "model_index.json"
COMPONENTS = ("scheduler", "text_encoder", "tokenizer", "transformer", "vae")
WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")
# Other formats of the same weights.
UNUSED_SUFFIXES = (".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx")
VARIANT = ".bf16"
REPOSITORIES = {"mochi": Mochi.published.repo_id, "opensora": OpenSora.published.repo_id}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    options = _options(arguments)
    get = {"mochi": get_mochi, "opensora": get_opensora}[options.model]
    repo_id = options.repo or REPOSITORIES[options.model]
    try:
        get(repo_id, folder=options.dir, accepted=options.accept_licence)
    except WeightsError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("Stopped. The same command goes on where it stopped.")
    return 0


def get_mochi(repo_id: str, *, folder: Path | None, accepted: bool) -> None:
    """Download what the service needs of `repo_id`, to the hub cache or to `folder`.

    Raises:
        WeightsError: declined, too little disk, no connection, or not a complete Mochi.
    """
    offer = look_up(repo_id, mochi_files)
    missing = offer.missing(folder)
    target = folder or Path(constants.HF_HUB_CACHE)
    _describe(offer, missing, target)
    downloads.refuse_full_disk({target: _total(missing)})
    if missing:
        _consent("mochi", f"the licence {offer.licence}", accepted=accepted)
    for file in missing:
        fetch(repo_id, file.name, offer.commit, folder)
    # By its branch, so that the cache notes which commit is the current one.
    index = fetch(repo_id, INDEX, "main", folder)
    _verify_mochi(folder or index.parent)
    _fit_previews("mochi", folder or index.parent)
    _share_text_encoder(folder or index.parent, converted_folder(REPOSITORIES["opensora"]))
    used = f'; set `checkpoint: "{folder}"` in the config' if folder else ""
    _say(f"{repo_id} is complete{used}.")


def get_opensora(repo_id: str, *, folder: Path | None, accepted: bool) -> None:
    """Download the published files to the hub cache and convert them, once.

    Args:
        repo_id: has what hpcai-tech/Open-Sora-v2 has.
        folder: where the converted checkpoint goes; None is where `checkpoint: auto` finds it.
        accepted: do not ask.

    Raises:
        WeightsError: declined, too little disk, no connection, or not a complete Open-Sora.
    """
    target = folder or converted_folder(repo_id)
    if not (target / INDEX).is_file():
        offer = look_up(repo_id, opensora_files)
        missing = offer.missing(None)
        cache = Path(constants.HF_HUB_CACHE)
        _describe(offer, missing, cache, notes=LICENCE)
        needed = converted_bytes(offer.files)
        _say(f"{size(needed):>10}  about, converted, to {target}")
        _say(f"{size(downloads.free_bytes(target)):>10}  free there\n")
        downloads.refuse_full_disk({cache: _total(missing), target: needed})
        if missing:
            _consent("opensora", "the licences above", accepted=accepted)
        paths = [fetch(repo_id, file.name, offer.commit, None) for file in offer.files]
        _convert(paths[0].parent, target)
        _say(
            f"The download is no longer needed: `hf cache rm model/{repo_id}` frees "
            f"{size(_total(offer.files))}."
        )
    else:
        _verify_opensora(target)
    _fit_previews("opensora", target)
    _share_text_encoder(_downloaded(REPOSITORIES["mochi"]), target)
    used = f'; set `checkpoint: "{folder}"` in the config' if folder else ""
    _say(f"{repo_id} is complete in {target}{used}.")


def mochi_files(everything: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Return the files of a diffusers repository that the service loads, `model_index.json` last.

    Of a part's weights only the bfloat16 variant, where it is published: half the size.
    """
    by_folder = _by_folder(everything)
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


def opensora_files(everything: Iterable[HubFile]) -> tuple[HubFile, ...]:
    """Return the files that are converted, the transformer first; FLUX.1's are left where they
    are."""
    from deployments.models.opensora import released

    files = list(everything)
    by_name, by_folder = {file.name: file for file in files}, _by_folder(files)
    needed: list[HubFile] = []
    for name in released.PUBLISHED:
        if name in by_name:
            needed.append(by_name[name])
        elif name in by_folder:
            needed += _text_encoder_files(by_folder[name])
        else:
            raise WeightsError(f"The repository is not Open-Sora 2.0's: it lacks {name}.")
    return tuple(needed)


def _text_encoder_files(files: Sequence[HubFile]) -> list[HubFile]:
    """Leave out documents and other formats; PyTorch's own stays where there is no other."""
    safe = any(file.name.endswith(".safetensors") for file in files)
    pytorch = (".bin", ".bin.index.json")
    unused = {*UNUSED_SUFFIXES, ".md", ".gitattributes"} - (set() if safe else {*pytorch})
    return [file for file in files if not file.name.endswith(tuple(unused))]


def converted_bytes(files: Iterable[HubFile]) -> int:
    """Return about how much is written: the text encoders are published in float32, and halved."""
    return sum(file.size_bytes // (2 if "/" in file.name else 1) for file in files)


def _by_folder(files: Iterable[HubFile]) -> dict[str, list[HubFile]]:
    by_folder: dict[str, list[HubFile]] = {}
    for file in files:
        by_folder.setdefault(str(PurePosixPath(file.name).parent), []).append(file)
    return by_folder


def _total(files: Iterable[HubFile]) -> int:
    return sum(file.size_bytes for file in files)


def _describe(offer: Offer, missing: Sequence[HubFile], target: Path, notes: str = "") -> None:
    _say(f"{offer.repo_id} at {offer.commit[:12]}, licence: {offer.licence}")
    _say(f"{constants.ENDPOINT}/{offer.repo_id}\n")
    if notes:
        _say(f"{textwrap.fill(notes, 80)}\n")
    for file in offer.files:
        state = "" if file in missing else "  (here already)"
        _say(f"{size(file.size_bytes):>10}  {file.name}{state}")
    total, left = size(_total(offer.files)), size(_total(missing))
    _say(f"\n{total:>10}  in all, {left} to download to {target}")
    _say(f"{size(downloads.free_bytes(target)):>10}  free there\n")


def _consent(model: str, licences: str, *, accepted: bool) -> None:
    if accepted:
        return
    if not sys.stdin.isatty():
        raise WeightsError(
            "Nothing was downloaded. Without a terminal to ask on, "
            f"`python -m deployments.weights {model} --accept-licence` says yes."
        )
    _say(f"Download under {licences}? [y/N] ", end="")
    if input().strip().lower() not in ("y", "yes"):
        raise WeightsError("Nothing was downloaded.")


def _verify_mochi(folder: Path) -> None:
    """Compare names and shapes in the files with the networks, without loading the weights."""
    from deployments.models.mochi1.loading import verify

    _say("Verifying ...")
    try:
        verify(folder)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(f"The download is not a usable Mochi: {error}") from error


def _verify_opensora(folder: Path) -> None:
    from deployments.models.opensora.loading import verify

    _say("Verifying ...")
    try:
        verify(folder)
    except (FileNotFoundError, ValueError) as error:
        raise WeightsError(
            f"{folder} is not a usable Open-Sora: {error}\nRemove it, and the same command "
            "converts anew."
        ) from error


def _convert(source: Path, target: Path) -> None:
    from deployments.models.opensora.convert_opensora import convert

    try:
        convert(source, target, say=_say)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"The download cannot be converted: {error}\nNothing has to be downloaded again."
        ) from error


def _fit_previews(family: str, folder: Path) -> None:
    """Fit the previews to the checkpoint in `folder`, once. It is complete without them."""
    from deployments.models.preview_fit import fit_checkpoint
    from deployments.models.previewing import PREVIEW_MAP

    if (folder / PREVIEW_MAP).is_file():
        return
    _say("Fitting previews, which may take some minutes ...")
    try:
        found = fit_checkpoint(family, folder)
        found.preview_map.write(folder)
    except (OSError, RuntimeError, ValueError) as error:
        _say(f"There will be no previews: {error}\nThe same command tries that again.")
    else:
        _say(f"They tell {found.r_squared:.0%} of the colours (R2).")


def _downloaded(repo_id: str) -> Path | None:
    from deployments.models.loading import local_folder

    try:
        return local_folder(repo_id)
    except FileNotFoundError:
        return None


def _share_text_encoder(mochi: Path | None, opensora: Path) -> None:
    """Let both models read prompts with the same files, if they are here and their T5 are equal."""
    from deployments.models.equal_weights import share_weights

    if mochi is None or not (mochi / INDEX).is_file() or not (opensora / INDEX).is_file():
        return
    _say("Comparing the text encoders of both models ...")
    try:
        freed = share_weights(mochi / "text_encoder", opensora / "text_encoder_2")
    except OSError as error:
        _say(f"They stay apart: {error}")
    else:
        if freed:
            _say(f"They are equal and share their files now: {size(freed)} are free again.")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make weights", description=__doc__)
    parser.add_argument("model", choices=list(REPOSITORIES))
    parser.add_argument("--accept-licence", action="store_true", help="do not ask")
    parser.add_argument(
        "--dir", type=Path, help="a folder for the checkpoint, instead of one below HF_HOME"
    )
    parser.add_argument("--repo", help="another repository in the same layout")
    return parser.parse_args(arguments)


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
