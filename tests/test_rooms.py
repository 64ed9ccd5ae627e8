"""Each room keeps to its rule: what it may import, checked in a fresh process."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "diffusers", "transformers")


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def names(folder: str) -> list[str]:
    files = sorted((ROOT / folder).glob("*.py"))
    return [f"{folder}.{f.stem}".replace("/", ".") for f in files if f.stem != "__init__"]


def imports_in(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_core_knows_no_ray_no_fastapi_and_no_torch() -> None:
    """All of `core` together, in one process."""
    loaded = imported_by(", ".join(names("deployments/core")))
    assert not loaded & {"ray", "fastapi", "starlette", *HEAVY}


@pytest.mark.parametrize(
    "module", ["deployments.ingress", "deployments.encoder", "deployments.jobs"]
)
def test_the_light_replicas_never_import_torch(module: str) -> None:
    """They start quickly and stay small."""
    assert not imported_by(module) & set(HEAVY)


def test_a_models_replica_begins_without_torch() -> None:
    """What its allocator reads from the environment is set when the model is loaded."""
    assert not imported_by("deployments.served, deployments.mochi, deployments.opensora") & {*HEAVY}


@pytest.mark.parametrize("module", ["deployments.client.cli", "deployments.client.doctor"])
def test_the_client_imports_no_ray_no_torch_and_no_fastapi(module: str) -> None:
    """The command line starts in a moment, also on a machine without the service."""
    assert not imported_by(module) & {"ray", "fastapi", "starlette", *HEAVY}


def test_the_models_file_imports_torch_only_when_it_loads() -> None:
    """The builder reads a model's card without paying for torch."""
    assert not imported_by("deployments.mochi") & {"ray", "fastapi", *HEAVY}


def test_models_know_nothing_else_of_ours() -> None:
    """Networks and samplers can be read, and reused, alone."""
    for path in (ROOT / "deployments/models").rglob("*.py"):
        ours = {name for name in imports_in(path) if name.startswith("deployments")}
        assert all(name.startswith("deployments.models") for name in ours), path


def test_core_imports_only_core() -> None:
    """Arrows point one way."""
    for path in (ROOT / "deployments/core").rglob("*.py"):
        ours = {name for name in imports_in(path) if name.startswith("deployments")}
        assert all(name.startswith("deployments.core") for name in ours), path


def test_the_service_does_not_import_its_training() -> None:
    """`training/` made the bundled checkpoint; nothing at run time needs it."""
    for path in [ROOT / "serve_app.py", *(ROOT / "deployments").rglob("*.py")]:
        assert not {n for n in imports_in(path) if n.split(".")[0] in ("training", "tests")}, path
