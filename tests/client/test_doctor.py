"""`video-service doctor`: each thing that can be wrong is told, with what to do."""

import contextlib
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from deployments.client import checks
from deployments.client.cli import main
from deployments.client.findings import Finding, Setup, read_setup
from deployments.core import gpu
from deployments.core.config import LimitsConfig, ServiceConfig
from deployments.core.events import GpuState
from deployments.ingress import create_app
from tests.scripted_jobs import GPU, ScriptedJobs, replica, served, service_config

ROOT = Path(__file__).resolve().parents[2]
EVERYWHERE = "0.0.0.0"  # noqa: S104  only read


@pytest.fixture(autouse=True)
def ray_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ray's notes of this machine would be."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray"


@contextlib.contextmanager
def taken_port(*, greets: bytes = b"") -> Iterator[int]:
    """A port at which something listens, and speaks another language if it says anything."""

    def greet() -> None:
        with contextlib.suppress(OSError):
            while True:
                caller, _ = other.accept()
                caller.sendall(greets)
                caller.close()

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        threading.Thread(target=greet, daemon=True).start()
        yield int(other.getsockname()[1])


def free_port() -> int:
    with taken_port() as port:
        return port


def write_config(folder: Path, port: int, **args: object) -> Path:
    """The shipped config with changes in `args`."""
    config = yaml.safe_load((ROOT / "config/serve.yaml").read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"] |= {
        "outputs_dir": str(folder / "outputs"),
        "state_dir": str(folder / "state"),
    } | args
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def setup(**config: object) -> Setup:
    return Setup(ServiceConfig.model_validate(config))


def model(**settings: object) -> Setup:
    return setup(models=[{"name": "mochi", **settings}])


def gpus_are(monkeypatch: pytest.MonkeyPatch, *cards: GpuState) -> None:
    monkeypatch.setattr(gpu, "gpus", lambda: cards)


# --- the whole command -------------------------------------------------------------------


def test_this_machine_has_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every check runs for real, PyTorch in a process of its own; nothing is left behind."""
    status = main(["doctor", "--config", str(write_config(tmp_path, free_port()))])
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} == {
        *("config", "python", "gpu", "torch", "weights", "ffmpeg", "disk", "keys", "port", "ray")
    }
    problems = {line.split()[1] for line in lines if line.startswith("problem")}
    # A GPU beside a PyTorch for the CPU is one, on some machines of developers.
    assert problems <= {"gpu", "torch"}
    assert status == bool(problems)
    assert not (tmp_path / "outputs").exists()


def test_a_problem_makes_the_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other checks go on."""
    monkeypatch.setattr(checks, "ASK_TORCH", "print('[\"2.13\", null, false]')")
    with taken_port(greets=b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        assert main(["doctor", "--config", str(write_config(tmp_path, port))]) == 1
    said = capsys.readouterr().out
    assert "problem port    Cannot listen on 127.0.0.1" in said
    assert "`PORT=18123 make serve` takes another port." in said
    assert "ok      ray" in said


# --- the config --------------------------------------------------------------------------


def test_each_wrong_key_of_the_config_is_named(tmp_path: Path) -> None:
    """And the port is that of the file all the same."""
    path = write_config(tmp_path, 1234, limits={"max_queue": 3, "max_attempts": 0}, crf=3)
    found, problems = read_setup(path)
    assert (found.port, found.config) == (1234, ServiceConfig())
    assert {problem.state for problem in problems} == {"problem"}
    texts = [problem.text.removeprefix(f"{path}: ") for problem in problems]
    assert "limits.max_queue is an unknown key; the README lists those that there are." in texts
    assert "crf is an unknown key; the README lists those that there are." in texts
    [attempts] = [text for text in texts if text.startswith("limits.max_attempts")]
    assert "greater than or equal to 1, but it is 0" in attempts


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("applications: [", "is not YAML: "),
        ("applications: []", "is not a Serve config: it needs `applications`"),
        ("just words", "is not a Serve config"),
        ("{http_options: {host: a, port: 1}, applications: [x]}", "is not a Serve config"),
        (
            "{http_options: {host: a, port: 70000}, applications: [{}]}",
            "http_options.port is 70000; it goes from 1 to 65535.",
        ),
        (None, "No such file or directory; start it in the service's folder"),
    ],
)
def test_a_file_that_is_no_config_is_told(tmp_path: Path, text: str | None, sentence: str) -> None:
    """The other checks go on with the defaults."""
    path = tmp_path / "serve.yaml"
    if text is not None:
        path.write_text(text)
    found, [problem] = read_setup(path)
    assert found.config == ServiceConfig()
    assert problem.state == "problem"
    assert sentence in problem.text


# --- GPU, PyTorch, weights ---------------------------------------------------------------


def nvml(monkeypatch: pytest.MonkeyPatch, *, error: int = 0, count: int = 1) -> None:
    """Let the driver be there, or fail with NVML's `error`."""

    def init() -> None:
        if error:
            raise checks.pynvml.NVMLError(error)

    monkeypatch.setattr(checks.pynvml, "nvmlInit", init)
    monkeypatch.setattr(checks.pynvml, "nvmlSystemGetDriverVersion", lambda: "590.1")
    monkeypatch.setattr(checks.pynvml, "nvmlDeviceGetCount", lambda: count)


def test_a_gpu_is_shown_with_driver_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """In GiB."""
    nvml(monkeypatch)
    gpus_are(monkeypatch, GPU)
    assert list(checks.gpus(setup())) == [
        Finding("ok", "gpu", "NVIDIA H200, driver 590.1, 137.5 of 139.8 GiB free.")
    ]


@pytest.mark.parametrize(
    ("error", "count", "device", "state", "sentence"),
    [
        (checks.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, 0, "auto", "warning", "install its driver"),
        (checks.pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, 0, "cuda", "problem", "mochi insists on a"),
        (checks.pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, 0, "auto", "problem", "reboot"),
        (0, 2, "auto", "problem", "2 there, but CUDA_VISIBLE_DEVICES='' hides them; unset it"),
        (0, 0, "auto", "problem", "is the card seated?"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, error: int, count: int, device: str, state: str, sentence: str
) -> None:
    """A machine without one is no problem unless the config insists."""
    nvml(monkeypatch, error=error, count=count)
    gpus_are(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    [found] = checks.gpus(model(device=device))
    assert found.state == state
    assert sentence in found.text


@pytest.mark.parametrize(
    ("program", "cards", "state", "sentence"),
    [
        ('print(\'["2.13", "13.0", true]\')', [GPU], "ok", "with CUDA 13.0 sees the GPU"),
        ("print('[\"2.13\", null, false]')", [], "ok", "PyTorch 2.13 on the CPU."),
        ("print('[\"2.13\", null, false]')", [GPU], "problem", "start `make serve` without TORCH_"),
        ('print(\'["2.13", "13.0", false]\')', [GPU], "problem", "update the NVIDIA driver"),
        ("import no_torch", [], "problem", "No module named 'no_torch'); remove .venv"),
        ("while True: pass", [], "problem", "was not imported within 1 s"),
    ],
)
def test_pytorch_is_asked_whether_it_sees_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    cards: list[GpuState],
    state: str,
    sentence: str,
) -> None:
    """A build without CUDA beside a GPU is the usual slip."""
    monkeypatch.setattr(checks, "ASK_TORCH", program)
    monkeypatch.setattr(checks, "TORCH_S", 1 if "while" in program else 60)
    gpus_are(monkeypatch, *cards)
    [found] = checks.torch(setup())
    assert found.state == state
    assert sentence in found.text


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for downloads."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(checks, "is_downloaded", lambda _repo: False)
    monkeypatch.setattr("deployments.core.checkpoints.is_downloaded", lambda _repo: False)
    return tmp_path / "hub"


@pytest.mark.parametrize(
    ("settings", "cards", "state", "sentence"),
    [
        ({}, [], "ok", "mochi-tiny, on the CPU; for a GPU `make weights MODEL=mochi` gets genmo/"),
        ({}, [GPU], "warning", "although there is a GPU; `make weights MODEL=mochi` gets genmo/"),
        ({"device": "cpu"}, [GPU], "ok", "mochi-tiny, on the CPU"),
        ({"checkpoint": "me/mine"}, [GPU], "problem", "'me/mine' is neither a folder nor a down"),
        ({"backend": "no.such"}, [], "problem", "'mochi' is not a model: no module no.such"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_weights_name_the_command_that_gets_them(
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, object],
    cards: list[GpuState],
    state: str,
    sentence: str,
) -> None:
    """For each configured model."""
    gpus_are(monkeypatch, *cards)
    [found] = checks.weights(model(**settings))
    assert found.state == state
    assert sentence in found.text


def test_converted_and_given_weights_are_named(
    monkeypatch: pytest.MonkeyPatch, hub: Path, tmp_path: Path
) -> None:
    """With the place where they are."""
    converted = hub / "video-service" / "genmo--mochi-1-preview"
    converted.mkdir(parents=True)
    (converted / "model_index.json").write_text("{}")
    gpus_are(monkeypatch)
    [found] = checks.weights(model())
    assert f"genmo/mochi-1-preview is converted in {converted}, for a GPU." in found.text
    gpus_are(monkeypatch, GPU)
    [found] = checks.weights(model())
    assert found == Finding("ok", "weights", f"mochi: genmo/mochi-1-preview, from {converted}.")
    [found] = checks.weights(model(checkpoint=str(converted)))
    assert found.text == f"mochi: {converted.name}, from {converted}."
    [found] = checks.weights(model(checkpoint=str(tmp_path)))
    assert found.state == "problem"
    assert "holds no model_index.json" in found.text


def test_folders_of_lora_files_are_looked_at(tmp_path: Path) -> None:
    """One that is not there is a mistake in the config; files that are none are named."""
    assert list(checks.loras(model())) == []
    [found] = checks.loras(model(loras_dir=str(tmp_path / "gone")))
    assert (found.state, "there is no folder" in found.text) == ("problem", True)
    [found] = checks.loras(model(loras_dir=str(tmp_path)))
    assert found == Finding("ok", "loras", f"mochi: 0 LoRA files in {tmp_path}.")
    (tmp_path / "style.safetensors").write_bytes(b"PK\x03\x04" + bytes(40))
    [found] = checks.loras(model(loras_dir=str(tmp_path)))
    assert found.state == "warning"
    assert "1 LoRA files" in found.text
    assert "style.safetensors is not a safetensors file" in found.text


# --- ffmpeg, disk, port, Ray -------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "sentence"),
    [
        ("exit 1", "does not run (Command"),
        ("echo ffmpeg version 7 built with gcc", "is built without x264"),
        (None, "does not run ("),
    ],
)
def test_an_unusable_ffmpeg_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, sentence: str
) -> None:
    """IMAGEIO_FFMPEG_EXE may name anything."""
    program = tmp_path / "ffmpeg"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    [found] = checks.ffmpeg(setup())
    assert (found.state, sentence in found.text) == ("problem", True)
    assert "unset IMAGEIO_FFMPEG_EXE" in found.text


@pytest.mark.parametrize(("free_mb", "state"), [(400, "problem"), (600, "warning"), (60000, "ok")])
def test_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, state: str
) -> None:
    """Against the config's own limit."""
    monkeypatch.setattr(
        "deployments.downloads.shutil.disk_usage",
        lambda _path: SimpleNamespace(free=free_mb * checks.MIB),
    )
    limits = LimitsConfig(min_free_disk_mb=500)
    folders = {"outputs_dir": str(tmp_path / "a" / "b"), "state_dir": str(tmp_path / "c")}
    outputs, _ = checks.disk(setup(limits=limits.model_dump(), **folders))
    assert outputs.state == state
    if state == "problem":
        assert "limits.min_free_disk_mb: new videos are refused; free some" in outputs.text


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    """Here a file stands where the folder should be."""
    (tmp_path / "file").write_text("")
    found, _ = checks.disk(
        setup(outputs_dir=str(tmp_path / "file" / "outputs"), state_dir=str(tmp_path))
    )
    assert found.state == "problem"
    assert "cannot be written to; change its rights, or outputs_dir in the config." in found.text


def test_the_running_service_is_found_at_its_port(tmp_path: Path) -> None:
    """With its own word on its health."""
    jobs = ScriptedJobs(service_config(tmp_path))
    jobs.replicas = (replica("loading"),)
    with served(create_app(jobs, jobs.config, jobs.cards)) as url:
        port = int(url.rpartition(":")[2])
        [found] = checks.ports(Setup(ServiceConfig(), EVERYWHERE, port))
    assert found.state == "warning"
    assert found.text.startswith(f"The service answers at {url}, degraded: ")
    [found] = checks.ports(Setup(ServiceConfig(), "127.0.0.1", free_port()))
    assert found.state == "ok"


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nonsense", ""])
def test_a_note_of_a_cluster_that_is_gone_is_told(ray_folder: Path, address: str) -> None:
    """A bare `serve run` would look for it."""
    note = ray_folder / "ray_current_cluster"
    # Bound, so that nobody else takes it meanwhile, but nothing listens there.
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        note.write_text(address.format(port=reserved.getsockname()[1]))
        [found] = checks.ray_leftovers(setup())
    assert found.state == "warning"
    assert f"{note} names a cluster that is gone" in found.text
    with taken_port() as port:
        note.write_text(f"127.0.0.1:{port}")
        [found] = checks.ray_leftovers(setup())
        assert found == Finding("ok", "ray", f"A Ray cluster runs at 127.0.0.1:{port}.")


def test_an_environment_without_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not imported for that."""

    def missing(name: str) -> str:
        raise checks.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(checks.metadata, "version", missing)
    [found] = checks.python(setup())
    assert found.state == "problem"
    assert sys.prefix in found.text


@pytest.mark.parametrize(
    ("host", "lines", "state", "says"),
    [
        ("127.0.0.1", None, "ok", "everybody on this machine"),
        (EVERYWHERE, None, "warning", "whoever reaches it"),
        (EVERYWHERE, f"ada:{'0' * 64}\nbob:{'1' * 64}", "ok", "2 API keys"),
        ("127.0.0.1", "# none yet", "warning", "nobody gets in"),
        ("127.0.0.1", "ada", "problem", "line 1"),
    ],
)
def test_who_may_call(tmp_path: Path, host: str, lines: str | None, state: str, says: str) -> None:
    """Open to the network without keys is worth a word; a damaged file stops the start."""
    file = tmp_path / "keys"
    if lines is not None:
        file.write_text(lines)
    config = ServiceConfig(api_keys_file="" if lines is None else str(file))
    [found] = checks.keys(Setup(config, host))
    assert (found.state, found.what) == (state, "keys")
    assert says in found.text
