"""`make weights` against a small hub on the loopback."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from deployments import downloads
from deployments.core.checkpoints import choose_checkpoint, converted_folder, is_downloaded
from deployments.core.config import ModelConfig
from deployments.downloads import HubFile, WeightsError
from deployments.models import preview_fit
from deployments.models.loading import local_folder
from deployments.models.mochi1 import loading
from deployments.models.opensora import loading as opensora_loading
from deployments.models.opensora import released
from deployments.models.previewing import PreviewMap
from deployments.opensora import LICENCE, OpenSora
from deployments.weights import REPOSITORIES, main, mochi_files, opensora_files
from tests.published_opensora import publish, tiny_sizes

REPO = "nobody/random"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Serves one folder as a hub repository; may cut the first answers in the middle."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cuts = folder, 0
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = urlsplit(handler.path).path
        if path.startswith("/api/models/"):
            self._send_info(handler, path.removeprefix("/api/models/"))
            return
        name = path.removeprefix(f"/{REPO}/resolve/").partition("/")[2]
        file = self.folder / name
        if not file.is_file():
            handler.send_error(404)
            return
        self._send_file(handler, name, file.read_bytes(), body=body)

    def _send_info(self, handler: BaseHTTPRequestHandler, repo_id: str) -> None:
        if repo_id.split("/revision/")[0] != REPO:
            handler.send_response(404)
            handler.send_header("X-Error-Code", "RepoNotFound")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        siblings = [
            {"rfilename": str(path.relative_to(self.folder)), "size": path.stat().st_size}
            for path in files
        ]
        info = {"id": REPO, "sha": COMMIT, "siblings": siblings}
        content = json.dumps(info | {"cardData": {"license": "apache-2.0"}}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _send_file(
        self, handler: BaseHTTPRequestHandler, name: str, content: bytes, *, body: bool
    ) -> None:
        asked = handler.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked and body else 0
        handler.send_response(206 if start else 200)
        handler.send_header("X-Repo-Commit", COMMIT)
        handler.send_header("ETag", f'"{name.replace("/", "-")}"')
        handler.send_header("Accept-Ranges", "bytes")
        handler.send_header("Content-Length", str(len(content) - start))
        if start:
            last = len(content) - 1
            handler.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        handler.end_headers()
        if not body:
            return
        self.requests.append((name, asked))
        if self.cuts and name.endswith(".safetensors"):
            self.cuts -= 1
            handler.wfile.write(content[start : (start + len(content)) // 2])
            handler.close_connection = True
            return
        handler.wfile.write(content[start:])


@pytest.fixture
def repository(folder: Path, tmp_path: Path) -> Path:
    """What the hub serves, with files beside it that nobody needs."""
    repository = Path(shutil.copytree(folder, tmp_path / "repository"))
    (repository / "dit.safetensors").write_bytes(b"\0" * 5000)
    (repository / "text_encoder" / "pytorch_model.bin").write_bytes(b"\0" * 5000)
    return repository


@pytest.fixture
def hub(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving(repository, tmp_path, monkeypatch) as hub:
        yield hub


@contextmanager
def serving(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub(repository)
    # What HF_ENDPOINT and HF_HOME set when the library is imported.
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # A map of few and small clips is a map too, and quickly fitted.
    monkeypatch.setattr(preview_fit, "CLIPS", 4)
    monkeypatch.setattr(preview_fit, "SIDE", 32)
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


def get(*options: str) -> int:
    return main(["mochi", "--repo", REPO, *options])


def downloaded(hub: Hub) -> list[str]:
    return [name for name, _ in hub.requests]


def test_the_needed_files_are_downloaded_and_verified(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """Licence, repository, files and sizes are shown; other formats stay where they are."""
    assert get("--accept-licence") == 0
    shown = capsys.readouterr().out
    for part in ("licence: apache-2.0", REPO, "transformer/diffusion_pytorch_model.safetensors"):
        assert part in shown
    assert "MiB to download to" in shown or "KiB to download to" in shown
    assert f"{REPO} is complete" in shown
    assert "dit.safetensors" not in downloaded(hub)
    assert "text_encoder/pytorch_model.bin" not in downloaded(hub)
    assert downloaded(hub)[-1] == "model_index.json"


def test_the_service_finds_what_was_downloaded(hub: Hub) -> None:
    """`checkpoint: auto` looks for the index in the hub cache."""
    assert get("--accept-licence") == 0
    assert is_downloaded(REPO)
    parts = loading.load(REPO, "cpu")
    assert parts.tokenizer("a fox").input_ids
    assert not is_downloaded("nobody/other")


def test_previews_are_fitted_to_what_was_downloaded_once(
    hub: Hub, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their map lies beside the weights; without it the checkpoint is complete all the same."""
    assert get("--accept-licence") == 0
    shown = capsys.readouterr().out
    assert "% of the colours" in shown
    folder = local_folder(REPO)
    written = PreviewMap.read(folder, 12)
    assert written is not None
    again = preview_fit.fit_checkpoint("mochi", repository).preview_map
    torch.testing.assert_close(written.weight, again.weight, atol=1e-4, rtol=0)
    assert get() == 0
    assert "Fitting" not in capsys.readouterr().out


def test_a_checkpoint_without_previews_is_complete(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is said."""

    def no_memory(family: str, folder: Path) -> preview_fit.Fit:
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(preview_fit, "fit_checkpoint", no_memory)
    assert get("--accept-licence") == 0
    shown = capsys.readouterr().out
    assert "There will be no previews: not enough memory" in shown
    assert f"{REPO} is complete" in shown


def test_a_download_that_was_cut_goes_on_where_it_stopped(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request asks for the rest only, and the file is whole."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # Written to disk in pieces of this size; the published files have thousands of them.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts = 1
    assert get("--accept-licence") == 0
    resumed = [(name, asked) for name, asked in hub.requests if asked]
    assert len(resumed) == 1
    assert resumed[0][1].startswith("bytes=")
    assert resumed[0][1] != "bytes=0-"


def test_a_second_run_downloads_nothing(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there is not asked for again, and no licence question comes up."""
    assert get("--accept-licence") == 0
    hub.requests.clear()
    assert get() == 0
    assert downloaded(hub) == []
    assert "(here already)" in capsys.readouterr().out


def test_a_folder_can_be_named(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It becomes an ordinary diffusers folder, and the config line to use it is shown."""
    target = tmp_path / "models" / "mochi"
    assert get("--accept-licence", "--dir", str(target)) == 0
    assert (target / "model_index.json").is_file()
    assert f'checkpoint: "{target}"' in capsys.readouterr().out


def test_without_consent_nothing_is_downloaded(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script has to say so; a person is asked."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert get() == 1
    assert "--accept-licence" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda: "n")
    assert get() == 1
    assert downloaded(hub) == []
    monkeypatch.setattr("builtins.input", lambda: "y")
    assert get() == 0


def test_a_disk_that_is_too_full_is_refused_before_the_download(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has both sizes and the ways out."""
    monkeypatch.setattr(downloads, "free_bytes", lambda folder: 2**20)
    assert get("--accept-licence") == 1
    assert "Too little disk: 2.0 GiB are needed with a reserve, 1.0 MiB" in capsys.readouterr().err
    assert downloaded(hub) == []


def test_a_repository_whose_weights_do_not_fit_is_reported(
    hub: Hub, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Verified by name and shape, without loading."""
    path = repository / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    gone = sorted(tensors)[0]
    del tensors[gone]
    save_file(tensors, path, {"format": "pt"})
    assert get("--accept-licence") == 1
    assert f"vae: 1 weights do not fit, first: {gone}" in capsys.readouterr().err


def test_an_unknown_repository_and_an_unreachable_hub_are_said_plainly(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, no traceback."""
    assert main(["mochi", "--repo", "nobody/nothing"]) == 1
    assert "nobody/nothing does not exist" in capsys.readouterr().err
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert get() == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_the_half_size_variant_is_taken_where_it_is_published() -> None:
    """Parts without one come in full precision."""
    names = [
        "model_index.json",
        "README.md",
        "dit.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/spiece.model",
        "text_encoder/config.json",
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
        "transformer/diffusion_pytorch_model.bf16-00001-of-00001.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.bf16.json",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bf16.safetensors",
    ]
    needed = [file.name for file in mochi_files(HubFile(name, 1) for name in names)]
    left = set(names) - set(needed)
    assert left == {
        "README.md",
        "dit.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        "transformer/diffusion_pytorch_model-00001-of-00001.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }


def test_a_repository_that_lacks_a_part_is_refused() -> None:
    """Before the question and the download."""
    with pytest.raises(WeightsError, match="not a complete"):
        mochi_files([HubFile("model_index.json", 1), HubFile("vae/config.json", 1)])


@pytest.fixture
def published_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Open-Sora's repository, with files beside it that nobody needs."""
    tiny_sizes(monkeypatch)
    data = Path(__file__).parent / "data" / "opensora" / "transformer_state_dict.safetensors"
    repository = publish(tmp_path / "repository", load_file(data))
    for name in ("flux1-dev.safetensors", "flux1-dev-ae.safetensors", "README.md"):
        (repository / name).write_bytes(b"\0" * 5000)
    (repository / released.CLIP_FOLDER / "pytorch_model.bin").write_bytes(b"\0" * 5000)
    with serving(repository, tmp_path, monkeypatch) as hub:
        yield hub


def get_opensora(*options: str) -> int:
    return main(["opensora", "--repo", REPO, *options])


def test_opensora_is_downloaded_and_converted(
    published_hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    """The licences are shown; FLUX.1's files stay where they are; the service finds the result."""
    assert get_opensora("--accept-licence") == 0
    shown = capsys.readouterr().out
    assert " ".join(LICENCE.split()) in " ".join(shown.split())
    for part in ("licence: apache-2.0", "to download to", "about, converted, to", "free there"):
        assert part in shown
    assert f"{REPO} is complete in {converted_folder(REPO)}." in shown
    assert f"hf cache rm model/{REPO}" in shown
    left = {"flux1-dev.safetensors", "flux1-dev-ae.safetensors", "README.md"}
    assert not {*downloaded(published_hub)} & {
        *left,
        f"{released.CLIP_FOLDER}/pytorch_model.bin",
    }
    published = OpenSora.published.model_copy(update={"repo_id": REPO})
    config = ModelConfig(name="opensora", checkpoint="auto")
    chosen = choose_checkpoint(config, published=published, bundled=OpenSora.bundled, on_gpu=True)
    assert (chosen.source, chosen.label) == (str(converted_folder(REPO)), REPO)
    assert opensora_loading.load(chosen.source, "cpu").tokenizer_2("a fox").input_ids


def test_opensora_is_converted_once(published_hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    """Then it is only verified, and the download may go."""
    assert get_opensora("--accept-licence") == 0
    shutil.rmtree(constants.HF_HUB_CACHE)
    published_hub.requests.clear()
    assert get_opensora() == 0
    assert downloaded(published_hub) == []
    assert "is complete in" in capsys.readouterr().out
    weights = converted_folder(REPO) / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    assert get_opensora() == 1
    assert "is not a usable Open-Sora" in capsys.readouterr().err


def test_both_models_keep_one_text_encoder_where_theirs_are_equal(
    published_hub: Hub,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever comes second; the service loads it as before."""
    mochi, opensora = tmp_path / "mochi", tmp_path / "opensora"
    monkeypatch.setitem(REPOSITORIES, "mochi", str(mochi))
    assert get_opensora("--accept-licence", "--dir", str(opensora)) == 0
    assert "text encoders" not in capsys.readouterr().out
    shutil.copytree(opensora / "text_encoder_2", mochi / "text_encoder")
    (mochi / "model_index.json").write_text("{}")
    assert get_opensora("--dir", str(opensora)) == 0
    assert "share their files now" in capsys.readouterr().out
    name = "model.safetensors"
    assert (mochi / "text_encoder" / name).samefile(opensora / "text_encoder_2" / name)
    assert get_opensora("--dir", str(opensora)) == 0
    assert "share their files now" not in capsys.readouterr().out
    opensora_loading.load(str(opensora), "cpu")


def test_a_conversion_that_failed_downloads_nothing_again(
    published_hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second run goes on with what is here, without a question."""
    with monkeypatch.context() as broken:
        broken.setattr(released, "AXES_DIMS_ROPE", (16, 56, 56))
        assert get_opensora("--accept-licence") == 1
    assert "The download cannot be converted: axes_dims_rope" in capsys.readouterr().err
    published_hub.requests.clear()
    assert get_opensora() == 0
    assert downloaded(published_hub) == []


def test_the_converted_folder_can_be_named(
    published_hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the config line to use it is shown."""
    target = tmp_path / "models" / "opensora"
    assert get_opensora("--accept-licence", "--dir", str(target)) == 0
    assert (target / "model_index.json").is_file()
    assert f'checkpoint: "{target}"' in capsys.readouterr().out


def test_the_disk_must_hold_download_and_converted_files(
    published_hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are asked for before the download."""
    repository = published_hub.folder
    needed = (*repository.glob("*v2*"), *repository.glob("hunyuan*"), *repository.glob("*/*/*"))
    total = sum(path.stat().st_size for path in needed if path.suffix != ".bin")
    free = 2 * 2**30 + total
    monkeypatch.setattr(downloads, "free_bytes", lambda folder: free)
    assert get_opensora("--accept-licence") == 1
    assert "Too little disk" in capsys.readouterr().err
    assert downloaded(published_hub) == []
    free += total
    assert get_opensora("--accept-licence") == 0


def test_without_consent_opensora_is_not_downloaded(
    published_hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The question names all licences, which are above it."""
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert get_opensora() == 1
    assert "deployments.weights opensora --accept-licence" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda: "n")
    assert get_opensora() == 1
    assert "under the licences above? [y/N]" in capsys.readouterr().out
    assert downloaded(published_hub) == []


def test_a_repository_that_is_not_opensoras_is_refused() -> None:
    """Before the question and the download."""
    with pytest.raises(WeightsError, match=r"lacks Open_Sora_v2\.safetensors"):
        opensora_files([HubFile("model.safetensors", 1)])


def test_a_text_encoder_in_pytorchs_format_alone_is_taken() -> None:
    """The converter reads it."""
    names = [
        released.TRANSFORMER_FILE,
        released.VAE_FILE,
        f"{released.T5_FOLDER}/config.json",
        f"{released.T5_FOLDER}/pytorch_model.bin",
        f"{released.T5_FOLDER}/tf_model.h5",
        f"{released.CLIP_FOLDER}/model.safetensors",
        f"{released.CLIP_FOLDER}/pytorch_model.bin",
        f"{released.CLIP_FOLDER}/README.md",
    ]
    needed = [file.name for file in opensora_files(HubFile(name, 1) for name in names)]
    assert needed == [*names[:4], names[5]]
