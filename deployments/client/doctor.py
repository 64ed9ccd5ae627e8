"""`video-service doctor`: looks at this machine and the config, and says what to do."""

import itertools
from pathlib import Path

from rich.console import Console
from rich.text import Text

from deployments.client import checks
from deployments.client.findings import State, read_setup

COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "problem": "bold red"}
CHECKS = (
    checks.python,
    checks.gpus,
    checks.torch,
    checks.weights,
    checks.loras,
    checks.ffmpeg,
    checks.disk,
    checks.keys,
    checks.ports,
    checks.ray_leftovers,
)


def examine(config: Path, console: Console) -> int:
    """Print every finding as soon as it is there; returns 1 if one is a problem, else 0."""
    setup, findings = read_setup(config)
    problems = 0
    for found in itertools.chain(findings, *(check(setup) for check in CHECKS)):
        line = Text(f"{found.state:<8}", COLOURS[found.state])
        console.print(line.append(f"{found.what:<8}{found.text}", "default"))
        problems += found.state == "problem"
    return 1 if problems else 0
