from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, ValidationError

from deployments.core.config import ServiceConfig

ROOT = Path(__file__).resolve().parents[2]


def fields(model: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if name == "models":
            inner = inner.__args__[0]
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            found += fields(inner, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def test_the_shipped_config_is_valid_and_states_the_defaults() -> None:
    """`config/serve.yaml` shows every default as it is, so that reading it is enough."""
    args = yaml.safe_load((ROOT / "config/serve.yaml").read_text())["applications"][0]["args"]
    assert ServiceConfig.model_validate(args) == ServiceConfig()


def test_an_unknown_key_is_refused_by_name() -> None:
    """A typing error in the YAML is not ignored."""
    with pytest.raises(ValidationError, match="crff"):
        ServiceConfig.model_validate({"encoder": {"crff": 20}})


def test_a_model_stands_once() -> None:
    """Two deployments of one name cannot be told apart."""
    with pytest.raises(ValidationError, match="may stand once"):
        ServiceConfig.model_validate({"models": [{"name": "mochi"}, {"name": "mochi"}]})


def test_paths_are_absolute() -> None:
    """Replicas may run elsewhere than `serve run` did."""
    config = ServiceConfig(outputs_dir="videos")
    assert config.outputs_dir == str(Path.cwd() / "videos")
    assert config.resolved_database_url.startswith("sqlite:////")


@pytest.mark.parametrize("key", fields(ServiceConfig))
def test_every_key_stands_in_the_readme(key: str) -> None:
    """The README has a line for each config key."""
    assert f"`{key}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("key", [k for k in fields(ServiceConfig) if k != "models.backend"])
def test_every_key_stands_in_the_yaml(key: str) -> None:
    """Whoever reads the YAML sees every setting there is."""
    assert f"{key.rsplit('.', 1)[-1]}:" in (ROOT / "config/serve.yaml").read_text()
