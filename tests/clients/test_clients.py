"""The clients of the API reference run unchanged: curl, Python with `requests`, JavaScript."""

import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deployments.ingress import create_app
from tests.scripted_jobs import MOCHI, OPENSORA, VIDEO, ScriptedJobs, served, service_config

HERE = Path(__file__).parent
BLOCK = re.compile(r"```(bash|python|javascript)\n(.*?)```", re.DOTALL)
CLIENTS = BLOCK.findall((HERE / "api_reference.md").read_text())
OURS = BLOCK.findall((HERE.parents[1] / "docs" / "api.md").read_text())

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")


@pytest.fixture
def jobs(tmp_path: Path) -> ScriptedJobs:
    return ScriptedJobs(service_config(tmp_path), [MOCHI, OPENSORA])


@pytest.fixture
def url(jobs: ScriptedJobs) -> Iterator[str]:
    with served(create_app(jobs, jobs.config, jobs.cards)) as address:
        yield address


def client(language: str, number: int, url: str) -> str:
    """One program of the reference, with this server's address."""
    code = [code for name, code in CLIENTS if name == language][number]
    assert "http://localhost:8000" in code
    return str(code).replace("http://localhost:8000", url)


def run(command: list[str], folder: Path) -> str:
    answer = subprocess.run(
        command, cwd=folder, capture_output=True, check=True, timeout=60, encoding="utf-8"
    )
    return answer.stdout


def picture(folder: Path) -> str:
    """The path of a small JPEG."""
    path = folder / "image.jpg"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(path)
    return str(path)


@needs_curl
def test_curl_makes_a_video(jobs: ScriptedJobs, url: str, tmp_path: Path) -> None:
    """And all of its fields arrive."""
    answer = json.loads(run(["bash", "-c", client("bash", 0, url)], tmp_path))
    assert answer["success"] is True
    assert (answer["frames"], answer["fps"], answer["seed"]) == (48, 24, 42)
    assert (answer["width"], answer["height"]) == (512, 512)
    assert jobs.last.request.prompt == "A serene lake at sunset with mountains in the background"


@needs_curl
def test_curl_sends_an_image(jobs: ScriptedJobs, url: str, tmp_path: Path) -> None:
    """The model that takes images gets its picture."""
    program = client("bash", 1, url).replace("/path/to/image.jpg", picture(tmp_path))
    answer = json.loads(run(["bash", "-c", program], tmp_path))
    assert (answer["success"], answer["backend"], answer["frames"]) == (True, "opensora", 32)
    assert answer["routing"] == "image given: opensora makes videos from images"
    [image] = jobs.images
    assert image is not None
    with Image.open(io.BytesIO(image)) as opened:
        assert opened.size == (40, 30)


@needs_curl
def test_curl_downloads_the_video(jobs: ScriptedJobs, url: str, tmp_path: Path) -> None:
    """Under the name that the answer gave."""
    run(["bash", "-c", client("bash", 0, url)], tmp_path)
    run(["bash", "-c", client("bash", 2, url)], tmp_path)
    assert (tmp_path / "my_video.mp4").read_bytes() == VIDEO


def test_the_python_client_makes_and_downloads_a_video(
    jobs: ScriptedJobs, url: str, tmp_path: Path
) -> None:
    """It sends a form without a file, which `requests` encodes another way than curl."""
    program = tmp_path / "generate_video.py"
    program.write_text(client("python", 0, url), encoding="utf-8")
    said = run([sys.executable, "-X", "utf8", str(program)], tmp_path)
    assert "✅ Video generated: /outputs/" in said
    assert "Backend: mochi" in said
    assert (tmp_path / "my_generated_video.mp4").read_bytes() == VIDEO
    assert jobs.last.request.seed == 42


@needs_node
@pytest.mark.system
def test_the_javascript_client_makes_a_video(jobs: ScriptedJobs, url: str, tmp_path: Path) -> None:
    """With `fetch` and `FormData`."""
    program = tmp_path / "generate-video.js"
    program.write_text(client("javascript", 0, url), encoding="utf-8")
    said = run(["node", str(program)], tmp_path)
    assert "✅ Video generated: /outputs/" in said
    assert "Backend: mochi" in said
    assert jobs.last.request.prompt == "A beautiful sunset over the ocean"


@needs_curl
def test_the_programs_in_our_own_docs_run(jobs: ScriptedJobs, url: str, tmp_path: Path) -> None:
    """docs/api.md, curl and Python."""
    ran = []
    image = picture(tmp_path)
    for language, code in OURS:
        if "from openai" in code:  # test_official_client.py runs it
            continue
        if "curl -N" in code:  # it never ends; tests/routes/test_events.py follows such a stream
            continue
        program = code.replace("http://localhost:8000", url).replace("/path/to/image.jpg", image)
        if language == "bash":
            answer = json.loads(run(["bash", "-c", program], tmp_path))
            assert answer.get("success") or answer["object"] in ("video.estimate", "list")
        elif language == "python":
            run([sys.executable, "-c", program], tmp_path)
            assert (tmp_path / "ball.mp4").read_bytes() == VIDEO
        ran.append(language)
    assert ran == [*["bash"] * 3, "javascript", "python", "javascript", *["bash"] * 2]
