"""The page's files: what its first view is made of."""

import re
from pathlib import Path

from deployments.routes.pages import STATIC_DIR
from tests.scripted_jobs import Api

ENTRY = STATIC_DIR / "app.js"
IMPORT = re.compile(r'^import (?:[^"]* from )?"(\.[^"]+)"', re.MULTILINE)
PRELOADED = re.compile(r'<link rel="modulepreload" href="/static/([^"]+)">')


def imported(entry: Path) -> set[Path]:
    """Return the modules that `entry` needs before it can run, and those that they need."""
    found, new = set[Path](), {entry}
    while new:
        module = new.pop()
        needed = {(module.parent / name).resolve() for name in IMPORT.findall(module.read_text())}
        new |= needed - found
        found |= needed
    return found


def test_every_module_of_the_first_view_is_named_at_once() -> None:
    """The browser asks for all of them together, and not for each when another one names it."""
    named = PRELOADED.findall((STATIC_DIR / "index.html").read_text())
    needed = imported(ENTRY)
    assert named == sorted(str(module.relative_to(STATIC_DIR)) for module in needed)


def test_the_page_is_packed_on_the_way(api: Api) -> None:
    """For whoever takes it so."""
    for path in ("/", "/docs", "/static/app.js"):
        assert api.http.get(path).headers["content-encoding"] == "gzip"
        plain = api.http.get(path, headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
