"""Training stops and goes on where it stood; Muon treats a convolution as a matrix."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn

from training.muon import UPDATE_SCALE, Muon
from training.trainer import Loss, Trainer


class Line:
    """The smallest task: fit a plane through noise."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = nn.ModuleDict({"line": nn.Linear(4, 4), "bend": nn.Linear(4, 4)})

    def blocks(self) -> list[nn.Module]:
        return [self.modules["line"]]

    def slow_parameters(self) -> list[nn.Parameter]:
        return []

    def begin(self, seed: int, rank: int) -> None:
        self.begun = (seed, rank)

    def draw(self, progress: float) -> Tensor:
        return torch.randn(8, 4)

    def loss(self, batch: Tensor) -> Loss:
        predicted = self.modules["bend"](self.modules["line"](batch))
        return Loss((predicted - batch).square().mean(), len(batch), 1)


def test_training_goes_on_where_it_stood(tmp_path: Path) -> None:
    """Weights, averages, momenta and the clock are kept; data continue with another seed."""
    options = argparse.Namespace(out=tmp_path, minutes=1, bf16=False, seed=7, compile=False)
    first = Trainer(Line(), options, rank=0, workers=1)
    for index in range(3):
        first.step(index)
    first.save()
    task = Line()
    second = Trainer(task, options, rank=0, workers=1)
    assert second.progress == first.progress
    assert task.begun == (7 + 3, 0)
    for name, value in first.modules.state_dict().items():
        torch.testing.assert_close(second.modules.state_dict()[name], value)
        torch.testing.assert_close(second.average[name], first.average[name])
    torch.testing.assert_close(second.muon.momenta, first.muon.momenta)


def test_muon_moves_a_convolution_as_one_matrix() -> None:
    """From all taps to the outputs: the update has nearly equal singular values."""
    weight = nn.Parameter(torch.zeros(8, 4, 3, 3, 3))
    muon = Muon([weight])
    torch.manual_seed(1)
    weight.grad = torch.randn_like(weight)
    muon.step(rate=1.0)
    values = torch.linalg.svdvals(weight.detach().flatten(1)) / (UPDATE_SCALE * 108**0.5)
    assert 0.6 < float(values.min()) <= float(values.max()) < 1.4
