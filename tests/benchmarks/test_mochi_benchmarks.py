"""The benchmarks of Mochi run; what they measure is for people to read."""

import json
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("way", ["chunks", "one-pass"])
def test_the_memory_benchmark_prints_growth_and_seconds_of_a_case(
    way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the processes that it starts; what the numbers should be is for `test_decode`."""
    threads = torch.get_num_threads()
    decode_memory.main(["--case", way, "13", "--side", "32"])
    torch.set_num_threads(threads)
    growth_mib, seconds = (float(number) for number in capsys.readouterr().out.split())
    assert growth_mib >= 0
    assert seconds > 0
