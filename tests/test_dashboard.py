"""The Grafana dashboard and the alerts of the docs, held against what is really exported."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from deployments.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD = json.loads((ROOT / "config/grafana/video-service.json").read_text())
PAGE = (ROOT / "docs/observability.md").read_text()
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
OURS = {name: metric for metric in METRICS for name in metric.exported}
# What may stand in braces besides our own labels.
RAYS = {"le", "application", "deployment", "route", "status_code", "error_code"}


def alerts() -> list[dict[str, Any]]:
    """The rules that the docs propose."""
    (block,) = re.findall(r"```yaml\n(groups:.*?)```", PAGE, re.DOTALL)
    return [rule for group in yaml.safe_load(block)["groups"] for rule in group["rules"]]


def queries() -> Iterator[str]:
    for panel in PANELS:
        for target in panel["targets"]:
            yield target["expr"]
    for rule in alerts():
        yield rule["expr"]


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


@pytest.fixture(scope="module")
def serves_source() -> str:
    """Ray Serve's code, which has the names of its metrics as literals."""
    folder = Path(ray.__file__).parent / "serve/_private"
    text = "".join(path.read_text() for path in folder.rglob("*.py"))
    return text.replace("{protocol_name}", "http")


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_query_asks_for_what_is_exported(query: str, serves_source: str) -> None:
    """With the endings of its kind; Serve's own metrics by their names in its source."""
    names = names_in(query)
    assert names
    for name in names:
        if name.startswith("ray_serve_"):
            stem = re.sub(r"_(total|bucket|sum|count)$", "", name.removeprefix("ray_"))
            assert f'"{stem}"' in serves_source, name
        else:
            assert name in OURS, name


@pytest.mark.parametrize("query", sorted(set(queries())))
def test_every_query_uses_labels_that_there_are(query: str) -> None:
    """In filters and in groupings."""
    known = RAYS.union(*(metric.labels for metric in METRICS))
    filters = re.findall(r"(\w+)\s*[!=]=?~?\s*\"", query)
    groups = [word for words in re.findall(r"by \(([^)]*)\)", query) for word in words.split(", ")]
    assert set(filters) | set(groups) <= known


def test_every_metric_is_on_the_dashboard() -> None:
    """Under one of its names."""
    shown = {name for panel in PANELS for t in panel["targets"] for name in names_in(t["expr"])}
    assert not [metric.name for metric in METRICS if not shown & set(metric.exported)]


def test_every_metric_is_explained_in_the_docs() -> None:
    """By the name that Prometheus has."""
    assert not [metric.name for metric in METRICS if f"`ray_{metric.name}" not in PAGE]


def test_panels_have_a_title_and_say_what_they_mean() -> None:
    """And none covers another."""
    places = set()
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        at = panel["gridPos"]
        columns, rows = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        cells = set(itertools.product(columns, rows))
        assert not cells & places, panel["title"]
        places |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
