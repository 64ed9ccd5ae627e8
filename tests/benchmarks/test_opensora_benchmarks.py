"""The benchmarks of Open-Sora run; what they measure is for people to read."""

from pathlib import Path

import pytest

from benchmarks import opensora_conversion
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
