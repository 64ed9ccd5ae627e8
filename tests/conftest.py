"""Fixtures that several rooms share."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from diffusers import MochiPipeline

# Workers of pytest-xdist share the cores: with a thread for each core in each of them a small
# network takes up to ten times as long. Before anything imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that start clusters: they take longest, and would end alone."""
    items.sort(key=lambda item: "tests/e2e/" not in item.nodeid)


@pytest.fixture(scope="session")
def pipeline() -> "MochiPipeline":
    """A tiny random Mochi as diffusers' pipeline. A test leaves it as it was."""
    from tests.tiny_mochi import tiny_pipeline

    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="session")
def folder(pipeline: "MochiPipeline", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, saved in the folder layout of diffusers."""
    folder = tmp_path_factory.mktemp("checkpoints") / "mochi-random"
    pipeline.save_pretrained(folder)
    return folder
