import ast
import subprocess
import sys
from pathlib import Path

from deployments import metrics

ROOT = Path(__file__).resolve().parents[1]


def test_outside_a_cluster_recording_imports_nothing() -> None:
    """A process that never touched Ray does not load it to count."""
    code = (
        "import sys; from deployments import metrics as m; m.JOBS.add(model='m', outcome='o');"
        "m.QUEUED.set(1); m.STEPS.observe(0.1, model='m'); print('ray' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_every_declared_metric_is_listed() -> None:
    """The dashboard and the page of the docs are held against that list."""
    declared = {id(value) for value in vars(metrics).values() if isinstance(value, metrics.Metric)}
    assert declared == {id(metric) for metric in metrics.METRICS}
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)


def test_every_use_gives_the_labels_that_were_declared() -> None:
    """Ray takes a label that was not declared without a word, and shows it."""
    declared = {
        name: set(value.labels)
        for name, value in vars(metrics).items()
        if isinstance(value, metrics.Metric)
    }
    used = set()
    for path in (ROOT / "deployments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in declared and node.func.attr in ("add", "set", "observe"):
                given = {keyword.arg for keyword in node.keywords}
                assert given in (declared[name], {None}), f"{path.name}:{node.lineno}"
                used.add(name)
    assert used == set(declared)
