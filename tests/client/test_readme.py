"""The commands in the README's section on the command line run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from deployments.client import checks
from deployments.client.cli import main
from tests.client.conftest import CountedJobs
from tests.client.test_cli import Answers
from tests.client.test_doctor import free_port, write_config
from tests.scripted_jobs import VIDEO

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ".venv/bin/video-service"
SECTION = (ROOT / "README.md").read_text().partition("## From the command line")[2]


def test_the_commands_of_the_readme_run(
    jobs: CountedJobs, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the commands stands there."""
    Image.new("RGB", (40, 30), (200, 30, 30)).save("photo.jpg")
    Path("config").mkdir()
    write_config(Path("config"), free_port())
    monkeypatch.setattr(checks, "ASK_TORCH", 'print(\'["2.13", "13.0", true]\')')
    block = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)[0]
    ran = []
    for line in block.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == PROGRAM
        monkeypatch.setattr("sys.stdin", Answers("y\n"))
        status = main([jobs.last.id if word == "ID" else word for word in arguments])
        assert status == (1 if arguments[0] == "cancel" else 0), capsys.readouterr()
        ran.append(arguments[0])
    assert ran == ["generate", "generate", "list", "cancel", "download", "doctor"]
    assert Path("ball.mp4").read_bytes() == VIDEO
    assert jobs.last.model == "opensora"
