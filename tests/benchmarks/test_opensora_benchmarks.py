"""The benchmarks of Open-Sora run; what they measure is for people to read."""

import json
from pathlib import Path

import pytest

from benchmarks import gpu_opensora, opensora_conversion
from tests.published_opensora import tiny_sizes


def test_the_conversion_benchmark_prints_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All keys of a small network find a place, and nothing is left on the disk."""
    tiny_sizes(monkeypatch)
    assert opensora_conversion.main(["--tiny", "--dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "released keys                     106" in printed
    assert "weights written                   110" in printed
    assert "peak memory grew, MiB" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_gpu_benchmark_runs_with_tiny_networks_on_the_cpu(tmp_path: Path) -> None:
    """The same code, so that device time is not spent on finding mistakes."""
    out = tmp_path / "result.json"
    assert gpu_opensora.main(["--tiny", "--frames", "9", "--steps", "2", "--out", str(out)]) == 0
    clips = json.loads(out.read_text())["clips"]
    assert clips["256px"]["text"]["tokens"] == 3 * 2 * 3
    for clip in clips.values():
        assert clip["text"]["all_steps"]["passes"] == 80
        assert clip["image"]["all_steps"]["passes"] == 110
        assert clip["image"]["seconds_a_pass"] > 0
        assert clip["decode"]["frames"] == clip["decode_low_memory"]["frames"] == 9
        assert clip["encode_image"]["seconds"] > 0


def test_the_gpu_benchmark_begins_nothing_when_its_time_is_over(tmp_path: Path) -> None:
    """What was measured until then is written."""
    out = tmp_path / "result.json"
    assert gpu_opensora.main(["--tiny", "--frames", "9", "--budget", "0", "--out", str(out)]) == 0
    clips = json.loads(out.read_text())["clips"]
    assert clips["768px"]["decode"] == {"skipped": "the budget was spent"}
