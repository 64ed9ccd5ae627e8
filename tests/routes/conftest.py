from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripted_jobs import Api, open_api


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """The application with one mochi behind it."""
    with open_api(tmp_path) as opened:
        yield opened
