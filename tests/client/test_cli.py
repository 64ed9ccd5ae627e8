"""`video-service` against the real application with scripted jobs behind it."""

import io
import os
import re
import signal
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from PIL import Image
from rich.console import Console

from deployments.client import cli
from deployments.client.api import Client
from deployments.client.cli import main
from deployments.client.progress import following
from deployments.core.config import ServiceConfig
from deployments.core.keys import Keyring, digest
from deployments.ingress import create_app
from tests.client.conftest import CountedJobs
from tests.routes.test_loras import write
from tests.scripted_jobs import (
    FILE_NAME,
    MOCHI,
    OPENSORA,
    VIDEO,
    served,
    service_config,
)

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ["generate", "a red ball", "--lawful-use-consent"]
pytestmark = pytest.mark.usefixtures("url")
Captured = pytest.CaptureFixture[str]


class Answers(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


@contextmanager
def meanwhile(jobs: CountedJobs, *acts: Callable[[], object]) -> Iterator[None]:
    """Do `acts` in another thread, each when the client has seen what came of the one before."""

    def play() -> None:
        for act in acts:
            # The second question is asked when the answer to the first has been shown.
            enough = jobs.asked + 2
            while jobs.asked < enough:
                time.sleep(0.01)
            act()

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    yield
    thread.join(timeout=10)


def running_job(jobs: CountedJobs, url: str) -> str:
    jobs.hold = True
    fields = {"prompt": "a red ball", "lawful_use_consent": "true"}
    with Client(url) as client:
        return client.submit(fields)


# --- generate ----------------------------------------------------------------------------


def test_generate_fetches_the_video_and_prints_where_it_is(capsys: Captured) -> None:
    """The path alone is on stdout, for scripts."""
    assert main([*GENERATE, "--seed", "42"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{FILE_NAME}\n"
    assert re.search(r"video_\w+ by mochi: 720x720, 64 frames at 24 fps, seed 42", said.err)
    assert [path.name for path in Path().iterdir()] == [FILE_NAME]
    assert Path(FILE_NAME).read_bytes() == VIDEO


def test_every_option_arrives(jobs: CountedJobs, tmp_path: Path) -> None:
    """With the picture."""
    picture = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 30), (200, 30, 30)).save(picture)
    options = ["--frames=32", "--fps=12", "--width=256", "--height=384", "--seed=7", "--steps=9"]
    more = ["--guidance=3.5", "--negative-prompt=rain", "--backend=opensora", "--low-vram"]
    assert main([*GENERATE, *options, *more, f"--image={picture}", "-o", "ball.mp4"]) == 0
    assert Path("ball.mp4").read_bytes() == VIDEO
    spec = jobs.last.spec
    assert spec is not None
    assert (spec.prompt, spec.negative_prompt) == ("a red ball", "rain")
    assert (spec.num_frames, spec.fps, spec.width, spec.height) == (32, 12, 256, 384)
    assert (spec.seed, spec.num_inference_steps, spec.guidance_scale) == (7, 9, 3.5)
    assert (jobs.last.model, spec.low_vram) == ("opensora", True)
    assert jobs.images[0] is not None


def test_lora_files_are_named_with_their_strength(
    jobs: CountedJobs, capsys: Captured, tmp_path: Path
) -> None:
    """As often as there are some; a wrong name gets the service's sentence."""
    for name in ("ink", "paper"):
        write(tmp_path, name)
    assert main([*GENERATE, "--lora=ink:0.8", "--lora", "paper"]) == 0
    assert [(one.name, one.strength) for one in jobs.requests[-1].loras] == [
        ("ink", 0.8),
        ("paper", 1.0),
    ]
    assert "24 fps, ink:0.8, paper:1, seed" in capsys.readouterr().err
    assert main([*GENERATE, "--lora=sand"]) == 1
    assert "loras: sand is unknown to mochi, which has ink, paper" in capsys.readouterr().err


def test_progress_is_shown_line_by_line_where_there_is_no_terminal(
    jobs: CountedJobs, capsys: Captured
) -> None:
    """A line for each phase, with the place in the queue."""
    jobs.hold = True

    def now(**changes: object) -> Callable[[], None]:
        return lambda: jobs.set(jobs.last.id, **changes)

    with meanwhile(
        jobs,
        now(status="queued", phase="queued", queue_position=3),
        now(status="in_progress", phase="denoise", queue_position=0, step=12),
        now(phase="decode", notices=("The prompt was cut.",)),
        lambda: jobs.finish(jobs.last.id),
    ):
        assert main(GENERATE) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Drawing: step 8 of 20"
    assert lines[1:4] == [
        "Waiting for its turn: number 3 in the queue",
        "Drawing: step 12 of 20",
        "Turning the drawing into frames",
    ]
    assert lines[4:6] == ["Done", "The prompt was cut."]


def test_a_terminal_shows_a_bar(jobs: CountedJobs, url: str) -> None:
    """Phase, step, per cent, and the time left: the service's guess, else one from the pace."""
    video_id = running_job(jobs, url)
    terminal = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Client(url) as client, following(terminal) as show:
        for progress in (20, 40):
            jobs.set(video_id, progress=progress, seconds_left=None)
            show(client.get(video_id))
            time.sleep(0.2)
        show(client.get(video_id).model_copy(update={"seconds_left": 4000}))
        time.sleep(0.2)
        show(None)
    assert isinstance(terminal.file, io.StringIO)
    said = re.sub(r"\x1b\[[\d;]*m", "", terminal.file.getvalue())
    assert re.search(r"Drawing: step 8 of 20 \S+ +40% 0:00:00 left: 00:0\d", said)
    assert "left: 1:06:40" in said
    assert "The service does not answer; trying again" in said


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """A shell lets what it starts in the background ignore Ctrl-C, these tests perhaps too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_cancels_the_video_on_the_server(jobs: CountedJobs, capsys: Captured) -> None:
    """And says so."""
    jobs.hold = True
    with meanwhile(jobs, lambda: os.kill(os.getpid(), signal.SIGINT)):
        assert main(GENERATE) == 130
    assert jobs.cancelled == [jobs.last.id]
    assert jobs.last.error_code == "cancelled"
    assert f"{jobs.last.id} is cancelled." in capsys.readouterr().err


@pytest.mark.usefixtures("_interruptible")
def test_ctrl_c_while_the_service_is_away_names_what_cancels(
    jobs: CountedJobs, capsys: Captured
) -> None:
    """Nothing is claimed that did not happen."""
    jobs.hold = True
    with meanwhile(
        jobs,
        lambda: setattr(jobs, "down", True),
        lambda: os.kill(os.getpid(), signal.SIGINT),
    ):
        assert main(GENERATE) == 130
    said = capsys.readouterr().err
    assert "Not cancelled: The jobs deployment does not answer." in said
    assert f"`video-service cancel {jobs.last.id}` does it." in said


def test_a_pause_of_the_service_is_waited_out(jobs: CountedJobs, capsys: Captured) -> None:
    """Jobs outlive a restart, and the client too."""
    jobs.hold = True
    with meanwhile(
        jobs,
        lambda: setattr(jobs, "down", True),
        lambda: setattr(jobs, "down", False),
        lambda: jobs.finish(jobs.last.id),
    ):
        assert main(GENERATE) == 0
    assert "The service does not answer; trying again" in capsys.readouterr().err


def test_a_service_that_stays_away_ends_the_waiting(
    jobs: CountedJobs, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the id of the video, which goes on without us."""
    monkeypatch.setattr(cli, "PATIENCE_S", 0.1)
    jobs.hold = True
    with meanwhile(jobs, lambda: setattr(jobs, "down", True)):
        assert main(GENERATE) == 1
    assert f"{jobs.last.id} goes on once the service runs." in capsys.readouterr().err


def test_a_failed_video_ends_with_its_sentence(jobs: CountedJobs, capsys: Captured) -> None:
    """No file is written."""
    jobs.hold = True
    with meanwhile(
        jobs,
        lambda: jobs.fail(jobs.last.id, "generation_failed", "The generation failed."),
    ):
        assert main(GENERATE) == 1
    assert f"{jobs.last.id}: failed: The generation failed." in capsys.readouterr().err
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (["--fps", "61"], "fps: 61 is more than 60; allowed: whole numbers from 1 to 60"),
        (["--frames", "many"], "num_frames: "),
        (["--backend", "sora"], "prefer_backend: 'sora' is unknown"),
        (["--image", "none.jpg"], "none.jpg: No such file or directory."),
        (["-o", "no/folder/x.mp4"], "no/folder/x.mp4: the folder "),
        (["--url", "localhost:8000"], "'localhost:8000' is not an address"),
        (["--url", "http://127.0.0.1:9"], "Nothing answers at http://127.0.0.1:9. `make serve`"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    jobs: CountedJobs, capsys: Captured, wrong: list[str], sentence: str
) -> None:
    """The service's own where it has one, and no job."""
    assert main([*GENERATE, *wrong]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(sentence)
    assert (said.out, said.err.count("\n"), jobs.jobs) == ("", 1, {})


def test_something_else_at_the_address_is_told(capsys: Captured) -> None:
    """Another program's 404 is not the service's."""
    with served(FastAPI()) as other:
        assert main(["--url", other, *GENERATE]) == 1
    said = capsys.readouterr().err
    assert "/generate answered 404, but not like the video service." in said


def test_a_proxy_does_not_stand_before_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens where the proxy should be."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert main(GENERATE) == 0


# --- consent -----------------------------------------------------------------------------


def test_without_consent_nothing_is_sent(jobs: CountedJobs, capsys: Captured) -> None:
    """Where nobody can be asked, the message names the option."""
    assert main(["generate", "a red ball"]) == 1
    assert "--lawful-use-consent says: I will use this video lawfully." in capsys.readouterr().err
    assert not jobs.jobs


@pytest.mark.parametrize(("answer", "made"), [("y\n", 1), ("Yes\n", 1), ("\n", 0), ("no\n", 0)])
def test_at_a_terminal_the_consent_is_asked_once(
    jobs: CountedJobs,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    made: int,
) -> None:
    """In the words of the web page."""
    monkeypatch.setattr("sys.stdin", Answers(answer))
    assert main(["generate", "a red ball"]) == 1 - made
    assert len(jobs.jobs) == made
    assert capsys.readouterr().err.count("Do you agree? [y/N]") == 1
    assert cli.CONSENT in (ROOT / "static/index.html").read_text()


# --- list, cancel and download -----------------------------------------------------------------


def test_list_shows_the_newest_videos_first(
    jobs: CountedJobs, url: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line each, over several pages."""
    monkeypatch.setattr("deployments.client.api.PAGE", 2)
    ids = [running_job(jobs, url) for _ in range(5)]
    for age, video_id in enumerate(reversed(ids)):
        jobs.set(video_id, created_at=1e9 - 60 * age)
    jobs.finish(ids[3])
    jobs.fail(ids[2], "cancelled", "The job was cancelled.")
    jobs.fail(ids[1], "interrupted", "The job was interrupted.")
    assert main(["list", "--limit", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ids[:0:-1]
    assert [line.split()[3] for line in lines] == ["denoise", "completed", "cancelled", "failed"]
    assert re.search(
        r"2001-09-0\d \d\d:\d\d  denoise 40%   mochi     720x720    a red ball$", lines[0]
    )
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    with pytest.raises(SystemExit):
        main(["list", "--limit", "0"])
    assert "0 is not a whole number from 1 on" in capsys.readouterr().err


def test_list_of_nothing_says_so(capsys: Captured) -> None:
    """Not on stdout, which stays empty."""
    assert main(["list"]) == 0
    assert capsys.readouterr() == ("", "There are no videos yet.\n")


def test_cancel_stops_a_running_video(jobs: CountedJobs, url: str, capsys: Captured) -> None:
    """The address may stand before or after the command."""
    video_id = running_job(jobs, url)
    assert main(["cancel", video_id, "--url", url]) == 0
    assert jobs.cancelled == [video_id]
    assert capsys.readouterr().err == f"{video_id} is cancelled.\n"


def test_cancel_of_a_finished_video_says_how_to_fetch_it(
    jobs: CountedJobs, url: str, capsys: Captured
) -> None:
    """It is not cancelled, so the status is 1."""
    video_id = running_job(jobs, url)
    jobs.finish(video_id)
    assert main(["cancel", video_id]) == 1
    said = capsys.readouterr().err
    assert "had already ended: completed." in said
    assert f"`video-service download {video_id}` fetches it." in said


@pytest.mark.parametrize("command", ["cancel", "download"])
def test_an_unknown_id_is_told_by_the_service(capsys: Captured, command: str) -> None:
    """In its own words."""
    assert main([command, "video_none"]) == 1
    assert capsys.readouterr().err == "There is no such job.\n"


def test_download_fetches_a_finished_video(
    jobs: CountedJobs, url: str, capsys: Captured, tmp_path: Path
) -> None:
    """Under its own name, into a folder, or as a file that is replaced."""
    video_id = running_job(jobs, url)
    jobs.finish(video_id)
    old = tmp_path / "old.mp4"
    old.write_bytes(b"old")
    for options, path in (([], Path(FILE_NAME)), (["-o", str(old)], old)):
        assert main(["download", video_id, *options]) == 0
        assert capsys.readouterr().out == f"{path}\n"
        assert path.read_bytes() == VIDEO
    assert main(["download", video_id, "-o", str(tmp_path)]) == 0
    assert (tmp_path / FILE_NAME).read_bytes() == VIDEO


def test_download_of_an_unfinished_video_says_so(
    jobs: CountedJobs, url: str, capsys: Captured
) -> None:
    """And writes nothing."""
    video_id = running_job(jobs, url)
    assert main(["download", video_id]) == 1
    assert capsys.readouterr().err == f"{video_id} has no file: it is being made.\n"
    jobs.fail(video_id, "cancelled", "The job was cancelled.")
    assert main(["download", video_id]) == 1
    assert capsys.readouterr().err == f"{video_id} has no file: cancelled.\n"
    assert not list(Path().iterdir())


def test_a_download_that_is_cut_leaves_the_old_file(
    jobs: CountedJobs, url: str, tmp_path: Path
) -> None:
    """The bytes are counted."""

    class Cut(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)

    video_id = running_job(jobs, url)
    jobs.finish(video_id)
    target = tmp_path / "ball.mp4"
    target.write_bytes(b"old")
    with ThreadingHTTPServer(("127.0.0.1", 0), Cut) as server, Client(url) as client:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = f"http://127.0.0.1:{server.server_port}/x.mp4"
        video = client.get(video_id).model_copy(update={"video_url": there})
        with pytest.raises(cli.ClientError, match=r"The connection to .* broke"):
            client.download(video, target, lambda _here, _size: None)
        server.shutdown()
    assert target.read_bytes() == b"old"
    assert not target.with_name("ball.mp4.part").exists()


# --- the command itself ------------------------------------------------------------------


def test_the_entry_point_is_there() -> None:
    """`video-service` in the environment's programs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["video-service"].partition(":")
    assert getattr(import_module(module), name) is main


# --- keys --------------------------------------------------------------------------------


def test_the_key_in_the_environment_is_sent(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without it the service's sentence comes with where this program takes it from."""
    keys = [{"name": "ada", "sha256": digest("the key")}]
    jobs = CountedJobs(service_config(tmp_path, api_keys=keys), [MOCHI, OPENSORA])
    with served(create_app(jobs, jobs.config, jobs.cards)) as address:
        monkeypatch.setenv("VIDEO_SERVICE_URL", address)
        assert main(["list"]) == 1
        assert "An API key is needed" in (said := capsys.readouterr().err)
        assert "VIDEO_SERVICE_KEY" in said
        monkeypatch.setenv("VIDEO_SERVICE_KEY", "the key")
        assert main(GENERATE) == 0
        assert Path(FILE_NAME).read_bytes() == VIDEO
        assert jobs.last.caller == "ada"


def test_new_key_makes_a_key_that_the_config_takes(tmp_path: Path, capsys: Captured) -> None:
    """The key alone is on stdout, so that a script can catch it."""
    assert main(["new-key", "ada"]) == 0
    said = capsys.readouterr()
    key = said.out.strip()
    file = tmp_path / "keys"
    file.write_text(re.findall(r"^ada:\w+$", said.err, re.MULTILINE)[0])
    found = yaml.safe_load(re.findall(r"^- \{.*\}$", said.err, re.MULTILINE)[0])
    for config in (ServiceConfig(api_keys_file=str(file)), ServiceConfig(api_keys=found)):
        owner = Keyring(config).owner_of(key)
        assert owner is not None
        assert owner.name == "ada"
    assert key not in said.err


def test_new_key_refuses_a_name_that_the_config_would(capsys: Captured) -> None:
    """Before there is a key."""
    assert main(["new-key", "a b"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "cannot be a key's name" in said.err
