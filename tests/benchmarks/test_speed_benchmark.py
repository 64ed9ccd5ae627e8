"""The speed benchmark runs every mode that a checkpoint offers; its figures are for people."""

from pathlib import Path

import pytest
import torch

from benchmarks import speed, speed_networks
from deployments.core.checkpoints import choose_checkpoint
from deployments.core.config import ModelConfig
from deployments.models.loading import Family
from deployments.models.mochi1.loading import MOCHI
from deployments.models.opensora.loading import OPENSORA

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.mark.parametrize("model", ["mochi", "opensora"])
def test_a_table_has_a_row_for_stock_and_for_each_mode(
    model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the bundled checkpoint, a short clip and few steps."""
    threads = torch.get_num_threads()
    arguments = ["--models", model, "--networks", "tiny", "--frames", "8", "--steps", "2"]
    speed.main([*arguments, "--pairs", "1", "--modes", "exact"])
    torch.set_num_threads(threads)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[4] for row in rows] == ["stock", "exact"]
    for row in rows:
        assert float(row[6]) > 0
        assert float(row[10]) > 0


@pytest.mark.parametrize(("model", "family"), [("mochi", MOCHI), ("opensora", OPENSORA)])
def test_the_mid_size_networks_are_checkpoints_like_any_other(
    model: str, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here without their weights' values, which take seconds to draw."""
    written: list[Path] = []
    monkeypatch.setattr(
        torch.nn.Module, "save_pretrained", lambda _, folder: written.append(folder), raising=False
    )
    for kind in ("_mochi", "_opensora"):
        monkeypatch.setattr(
            speed_networks, kind, lambda: (torch.nn.Identity(), torch.nn.Identity())
        )
    folder = tmp_path / "mid"
    speed_networks.mid_size(model, f"{model}-tiny", folder)
    assert written == [folder / "transformer", folder / "vae"]
    assert (folder / "tokenizer" / "tokenizer_config.json").is_file()
    assert set(family.tokenizers) <= {path.name for path in folder.iterdir()}
    config = ModelConfig(name=model, checkpoint=str(folder))
    kind = speed.backend_class(config)
    checkpoint = choose_checkpoint(
        config, published=kind.published, bundled=kind.bundled, on_gpu=False
    )
    assert checkpoint.generation.native_area == 128 * 128
