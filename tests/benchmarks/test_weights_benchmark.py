"""The benchmark of weight modes runs; what it measures is for people to read."""

import json

import pytest

from benchmarks import gpu_weights

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.mark.parametrize(("model", "weights"), [("mochi", "streamed"), ("opensora", "nf4")])
def test_it_runs_with_tiny_networks_on_the_cpu(
    model: str, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same code, so that device time is not spent on finding mistakes."""
    size = ["--tiny", "--size", "48x32", "--frames", "13", "--steps", "2"]
    assert gpu_weights.main(["--model", model, "--weights", weights, *size]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["denoise"]["seconds"]) == 2
    assert 0 < result["planned_denoise_gb"] < 10
    assert ("decode_in_tiles" in result) is (model == "mochi")
