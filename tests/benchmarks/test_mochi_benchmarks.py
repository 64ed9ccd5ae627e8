"""The benchmarks of Mochi run; what they measure is for people to read."""

import json
from pathlib import Path

import pytest

from benchmarks import decode_memory, gpu_mochi

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


def test_the_gpu_benchmark_runs_with_tiny_networks_on_the_cpu(tmp_path: Path) -> None:
    """The same code, so that device time is not spent on finding mistakes."""
    out = tmp_path / "result.json"
    arguments = ["--tiny", "--size", "32x48", "--frames", "7", "--steps", "3", "--out", str(out)]
    assert gpu_mochi.main(arguments) == 0
    result = json.loads(out.read_text())
    assert result["tokens"] == 2 * 2 * 3
    for way in ("ours", "stock"):
        assert result[way]["denoise"]["seconds_a_step"] > 0
        assert result[way]["decode"]["seconds"] > 0


def test_the_memory_benchmark_measures_a_case_in_a_process_of_its_own() -> None:
    """Growth in MiB and seconds; what the numbers should be is for `test_decode`."""
    growth_mib, seconds = decode_memory.in_a_fresh_process("chunks", 13, 32)
    assert growth_mib >= 0
    assert seconds > 0
