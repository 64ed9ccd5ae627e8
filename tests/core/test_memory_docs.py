"""`docs/memory.md` says what the plan computes, and the program that counts runs."""

from pathlib import Path

import pytest

from benchmarks import memory_plan
from deployments.core.networks.model import Clip

DOCS = Path(__file__).parents[2] / "docs" / "memory.md"


def test_the_tables_of_cards_are_those_that_the_plan_computes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Print them again with `python -m benchmarks.memory_plan --recipes` when a formula changes."""
    assert memory_plan.main(["--recipes"]) == 0
    printed, written = capsys.readouterr().out, DOCS.read_text()
    assert [line for line in printed.splitlines() if line not in written] == []


def test_the_program_prints_formula_and_count(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the parts that are asked for; here what takes least to count."""
    monkeypatch.setattr(memory_plan, "OPENSORA_SHAPES", (Clip(256, 256, 13),))
    assert memory_plan.main(["--model", "opensora", "--only", "decode"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| opensora | decode | 256x256x13 | 1,024 | 15.1 | 1.0000 |")
