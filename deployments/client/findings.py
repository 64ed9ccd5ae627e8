"""What the doctor's checks give and get, and the first of them: reading the config."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import ValidationError

from deployments.core.config import ServiceConfig

MAX_PORT = 65535
State = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """What one check found; the text of a warning or a problem says what to do."""

    state: State
    what: str
    text: str


@dataclass(frozen=True)
class Setup:
    """The config as far as it could be read; the defaults for the rest."""

    config: ServiceConfig
    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def url(self) -> str:
        """Where the service answers on this machine."""
        shown = "127.0.0.1" if self.host == "0.0.0.0" else self.host  # noqa: S104  compared, not bound
        return f"http://{shown}:{self.port}"


def read_setup(path: Path) -> tuple[Setup, list[Finding]]:
    """Read a Serve config; returns what there is of it and what is wrong with it."""
    try:
        found = yaml.safe_load(path.read_text())
        application = found["applications"][0]
        host, port = str(found["http_options"]["host"]), int(found["http_options"]["port"])
        arguments = application.get("args") or {}
    except OSError as error:
        where = "start it in the service's folder, or name a file with --config"
        return _without(f"{path}: {error.strerror}; {where}.")
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return _without(f"{path} is not YAML: {' '.join(str(error).split())}; mend that place.")
    except (LookupError, TypeError, ValueError, AttributeError):
        needed = "`applications`, and `host` and `port` under `http_options`"
        return _without(
            f"{path} is not a Serve config: it needs {needed}, as config/serve.yaml has."
        )
    if not 0 < port <= MAX_PORT:
        return _without(f"{path}: http_options.port is {port}; it goes from 1 to {MAX_PORT}.")
    try:
        config = ServiceConfig.model_validate(arguments)
    except ValidationError as error:
        wrong = [_problem(f"{path}: {_sentence(each)}") for each in error.errors()]
        return Setup(ServiceConfig(), host, port), wrong
    names = ", ".join(model.name for model in config.models)
    return Setup(config, host, port), [Finding("ok", "config", f"{path}: models {names}.")]


def _without(text: str) -> tuple[Setup, list[Finding]]:
    return Setup(ServiceConfig()), [_problem(text)]


def _problem(text: str) -> Finding:
    return Finding("problem", "config", text)


def _sentence(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "args"
    if error["type"] == "extra_forbidden":
        return f"{key} is an unknown key; the README lists those that there are."
    return f"{key}: {error['msg']}, but it is {error['input']!r}; the README says what it takes."
