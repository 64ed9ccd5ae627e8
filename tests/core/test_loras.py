"""The folder of LoRA files, as it is now, and who may make a video with which of them."""

import asyncio
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deployments.core.checkpoints import BUNDLED_DIR
from deployments.core.errors import InvalidRequest
from deployments.core.lora_figures import with_files
from deployments.core.loras import LoraFile, LoraFolder, LoraFolders, linears_of
from deployments.core.memory import Mode, phases
from deployments.core.networks.figures import MochiFigures
from deployments.core.networks.model import Clip
from deployments.core.routing import route
from deployments.core.spec import Lora, VideoRequest
from tests.scripted_jobs import MOCHI, OPENSORA

LINEARS = {"blocks.0.to_q": (8, 6)}
CARDS = [MOCHI, OPENSORA]
STYLE, BROKEN = (
    LoraFile(name="style", size_bytes=1),
    LoraFile(name="bad", size_bytes=1, problem="x: y"),
)


def write(folder: Path, name: str, rank: int = 2) -> Path:
    path = folder / f"{name}.safetensors"
    layer = "transformer.blocks.0.to_q"
    save_file(
        {
            f"{layer}.lora_A.weight": torch.zeros(rank, 6),
            f"{layer}.lora_B.weight": torch.zeros(8, rank),
        },
        path,
    )
    return path


def asked(*names: str, **more: object) -> VideoRequest:
    loras = tuple(Lora(name=name) for name in names)
    return VideoRequest(prompt="a red ball", seed=1, loras=loras, **more)


def test_a_folder_is_read_again_whenever_somebody_asks(tmp_path: Path) -> None:
    """A new file needs no restart, nor does a better one of the same name."""
    folder = LoraFolder(str(tmp_path), LINEARS)
    assert folder.files() == ()
    path = write(tmp_path, "style.v2")
    [file] = folder.files()
    assert (file.name, file.rank, file.num_parameters, file.widest, file.problem) == (
        "style.v2",
        2,
        28,
        8,
        "",
    )
    write(tmp_path, "style.v2", rank=3)
    assert [found.rank for found in folder.files()] == [3]
    path.unlink()
    assert folder.files() == ()


def test_what_the_model_cannot_use_is_listed_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path, "my lora")
    (tmp_path / "zip.safetensors").write_bytes(b"PK\x03\x04" + bytes(40))
    (tmp_path / "notes.txt").write_text("no LoRA")
    (tmp_path / "folder.safetensors").mkdir()
    write(tmp_path, "other")
    problems = {f.name: f.problem for f in LoraFolder(str(tmp_path), {"x": (1, 1)}).files()}
    assert problems.keys() == {"my lora", "zip", "other"}
    assert "rename the file" in problems["my lora"]
    assert "not a safetensors file" in problems["zip"]
    assert problems["other"].startswith("transformer.blocks.0.to_q.lora_A.weight: ")


def test_without_the_network_only_the_file_is_looked_at(tmp_path: Path) -> None:
    """The weights may be on another node."""
    write(tmp_path, "style")
    [file] = LoraFolder(str(tmp_path), None).files()
    assert (file.rank, file.num_parameters, file.problem) == (2, 28, "")


@pytest.mark.parametrize("folder", ["", "/nowhere/at/all"])
def test_a_model_without_a_folder_has_none(folder: str) -> None:
    assert LoraFolder(folder, LINEARS).files() == ()
    with pytest.raises(InvalidRequest, match="loras: style is not there; there is none"):
        LoraFolder(folder, LINEARS).layers(Lora(name="style"), LINEARS)


def test_a_name_never_becomes_a_path(tmp_path: Path) -> None:
    """It is looked up in the listing, whatever dots there are."""
    write(tmp_path, "outside")
    (tmp_path / "in").mkdir()
    folder = LoraFolder(str(tmp_path / "in"), LINEARS)
    with pytest.raises(InvalidRequest):
        folder.layers(Lora.model_construct(name="../outside", strength=1), LINEARS)
    with pytest.raises(ValueError, match="name"):
        Lora(name="../outside")


@pytest.mark.parametrize(("name", "layers"), [("mochi-tiny", 100), ("opensora-tiny", 100)])
def test_the_layers_of_a_checkpoint_are_read_from_its_files(name: str, layers: int) -> None:
    linears = linears_of(str(BUNDLED_DIR / name))
    assert linears is not None
    assert (
        "transformer_blocks.0.attn1.to_q" in linears or "transformer_blocks.0.attn.to_q" in linears
    )
    assert linears_of("nobody/nothing") is None


def test_the_stock_is_that_of_each_model(tmp_path: Path) -> None:
    write(tmp_path, "style")
    folders = LoraFolders({"mochi": LoraFolder(str(tmp_path), LINEARS)})
    assert [file.name for file in asyncio.run(folders.stock())["mochi"]] == ["style"]
    assert asyncio.run(folders.stock_for(asked())) == {}


def test_auto_takes_the_models_that_have_the_lora() -> None:
    way = route(asked("style"), CARDS, {"opensora": [STYLE]})
    assert way.models == ("opensora",)
    assert "style is unknown to mochi, which has none" in way.reason


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nope", "nope is unknown to mochi, which has style"),
        ("bad", r"mochi cannot use bad\.safetensors: x: y"),
    ],
)
def test_what_the_asked_model_lacks_is_refused(name: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=f"loras: {words}"):
        route(asked(name, prefer_backend="mochi"), CARDS, {"mochi": [STYLE, BROKEN]})


def test_a_name_that_no_model_knows_is_refused_for_each() -> None:
    with pytest.raises(
        InvalidRequest, match=r"unknown to mochi, which has style; .* opensora, .* none"
    ):
        route(asked("nope"), CARDS, {"mochi": [STYLE]})


def test_no_name_stands_twice() -> None:
    with pytest.raises(ValueError, match="style stands there twice"):
        asked("style", "style")


@pytest.mark.parametrize(
    ("stored", "itemsize"), [("resident", 2), ("fp8", 2), ("streamed", 2 * 2 / 48)]
)
def test_a_lora_is_counted_with_the_transformer(stored: str, itemsize: float) -> None:
    """In its own dtype, whatever that of the weights; streamed, two blocks' share of it."""
    file = LoraFile(name="big", size_bytes=1, rank=64, num_parameters=10**9, widest=3072)
    mode = Mode(transformer=stored, take_turns=True)  # type: ignore[arg-type]
    figures, clip = MochiFigures(), Clip(256, 256, 13)
    without, having = (
        next(phase for phase in phases(one, clip, mode) if phase.name == "denoise").total_gb
        for one in (figures, with_files(figures, [file]))
    )
    assert having - without == pytest.approx(itemsize * 10**9 / 2**30, rel=0.05)
