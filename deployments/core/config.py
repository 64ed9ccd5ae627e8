"""The one configuration: `args` of `config/serve.yaml`, typed, with every default and its reason.

Read once by `serve_app.build` and handed down; nothing else reads files or the environment for
settings.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr, model_validator

from deployments.core.spec import AUTO, Frozen
from deployments.core.webhooks import Endpoint, Event, check_url, read_secrets

Device = Literal["auto", "cuda", "cpu"]
Weights = Literal["auto", "resident", "streamed", "fp8", "int8", "nf4"]
# Their hooks are inside the blocks, where the compiler cannot follow.
UNCOMPILED_WEIGHTS = frozenset[Weights]({"streamed", "fp8"})
Preset = Literal[
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"
]


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _absolute_or_none(path: str) -> str:
    return _absolute(path) if path else ""


FolderPath = Annotated[str, AfterValidator(_absolute)]
FilePath = Annotated[str, AfterValidator(_absolute_or_none)]


class ModelConfig(Frozen):
    """One model deployment."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_]*$", description="Which model; also its backend name in the API."
    )
    backend: str = Field(
        default="",
        description="Python module that holds the model's BACKEND; empty: deployments.<name>.",
    )
    checkpoint: str = Field(
        default=AUTO,
        description=(
            "auto: published weights if they are on disk and there is a GPU, else the bundled tiny "
            "checkpoint. Or a diffusers folder, or a hub id that is already downloaded."
        ),
    )
    device: Device = Field(
        default="auto",
        description="auto: a GPU if the cluster has one with enough share free, else the CPU.",
    )
    num_gpus: float = Field(
        default=0.5, gt=0, le=8, description="GPU share of one replica; ignored on the CPU."
    )
    num_cpus: float = Field(
        default=0.2, gt=0, description="Ray's bookkeeping of CPUs, not a limit."
    )
    num_replicas: int = Field(
        default=1, ge=1, description="Copies of the model, one job each at a time."
    )
    cpu_threads: int = Field(
        default=0, ge=0, description="Threads of a model on the CPU; 0 means all cores."
    )
    weights: Weights = Field(
        default="auto",
        description=(
            "How the transformer lies on the GPU: auto takes the fastest way that fits when the "
            "replica starts."
        ),
    )
    memory_fraction: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Most of the card's memory that a replica may allocate; null: all of it.",
    )
    keep_alive_s: float | None = Field(
        default=None,
        ge=0,
        description="An idle model leaves the GPU after so many seconds; null: never.",
    )
    attention: str = Field(
        default="native", description="Attention back end, by its name in diffusers."
    )
    compile: bool = Field(
        default=False,
        description="Compile the transformer's blocks before the replica is ready: minutes once.",
    )
    draft_checkpoint: str = Field(
        default="",
        description=(
            "A checkpoint of the same family, distilled to few steps, whose transformer makes "
            "`quality: draft`; empty: the same transformer with fewer steps, where that is of use."
        ),
    )
    loras_dir: FilePath = Field(
        default="", description="A folder of LoRA files for this model; empty: none."
    )

    @model_validator(mode="after")
    def _blocks_can_be_compiled(self) -> "ModelConfig":
        if self.compile and self.weights in UNCOMPILED_WEIGHTS:
            raise ValueError(
                f"compile: does not go with weights: {self.weights}, but with auto, resident, int8 "
                "and nf4"
            )
        return self


class EncoderConfig(Frozen):
    """How MP4 files are written."""

    crf: int = Field(
        default=18, ge=0, le=51, description="x264 quality: lower is better and larger."
    )
    preset: Preset = Field(default="medium", description="x264 speed against file size.")
    embed_recipe: bool = Field(
        default=True,
        description="Write prompt, seed and settings into the file; a shared clip carries them.",
    )


class LimitsConfig(Frozen):
    """What one client, and all of them, may ask for."""

    max_queued: int = Field(default=100, ge=1, description="Waiting jobs; more get a 429.")
    max_queued_per_key: int = Field(
        default=50, ge=1, description="Waiting jobs of one API key, where there are keys."
    )
    max_upload_mb: int = Field(default=32, ge=1, description="Size of a whole request body in MiB.")
    max_image_megapixels: int = Field(
        default=64,
        ge=1,
        description=(
            "Pixels of an uploaded image, in millions, looked at before it is decoded; decoding "
            "takes up to 18 bytes of memory for each."
        ),
    )
    min_free_disk_mb: int = Field(
        default=500, ge=0, description="A job is refused when the outputs folder has less."
    )
    max_attempts: int = Field(
        default=3, ge=1, description="Runs of one job when its processes die; then it fails."
    )


class ApiKey(Frozen):
    """A key as the service knows it: not the key itself."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="Whose it is; two keys of one name see the same jobs.",
    )
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="The SHA-256 of the key, in hex.")


class RetentionConfig(Frozen):
    """What is removed without being asked for; nothing by default, and never what is pinned."""

    max_age_hours: float | None = Field(
        default=None,
        gt=0,
        description="Videos and failed jobs older than this are removed; null keeps them.",
    )
    max_total_gb: float | None = Field(
        default=None,
        gt=0,
        description="GiB of unpinned videos to keep; the oldest go first; null keeps them all.",
    )


class WebhookConfig(Frozen):
    """One receiver of webhooks."""

    url: str = Field(description="Where they go; http:// only into a private network.")
    secret: SecretStr = Field(
        default=SecretStr(""),
        description="whsec_...; two with a space between while one replaces the other.",
    )
    secret_env: str = Field(
        default="",
        description="The environment variable that holds the secret, which then is in no file.",
    )
    events: tuple[Event, ...] = Field(
        default=("video.completed", "video.failed"), min_length=1, description="What to tell."
    )
    allow_private: bool = Field(
        default=False, description="The receiver is on this machine or in a private network."
    )

    @model_validator(mode="after")
    def _can_be_sent_to(self) -> "WebhookConfig":
        check_url(self.url, allow_private=self.allow_private)
        if bool(self.secret.get_secret_value()) == bool(self.secret_env):
            raise ValueError("give either secret or secret_env")
        if not self.secret_env:
            self._read(self.secret.get_secret_value(), "secret")
        return self

    def endpoint(self, environ: Mapping[str, str]) -> Endpoint:
        """Return the receiver with its secret. Raises ValueError when `environ` has none."""
        secret, name = self.secret.get_secret_value(), "secret"
        if self.secret_env:
            secret, name = environ.get(self.secret_env, ""), f"${self.secret_env}"
        self._read(secret, name)
        return Endpoint.at(self.url, secret, self.events, allow_private=self.allow_private)

    @staticmethod
    def _read(secret: str, name: str) -> None:
        try:
            read_secrets(secret)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None


class ServiceConfig(Frozen):
    """The `args` of `config/serve.yaml`."""

    # An error message must not hold a secret.
    model_config = ConfigDict(hide_input_in_errors=True)

    models: tuple[ModelConfig, ...] = Field(
        default=(ModelConfig(name="mochi"), ModelConfig(name="opensora")),
        min_length=1,
        description="The models, in the order in which they are preferred.",
    )
    outputs_dir: FolderPath = Field(
        default="outputs", validate_default=True, description="Where the videos go."
    )
    state_dir: FolderPath = Field(
        default=".state", validate_default=True, description="Where the job database lives."
    )
    database_url: str = Field(
        default="", description="Any SQLAlchemy URL; empty means SQLite in state_dir."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=("localhost", "127.0.0.1", "[::1]"),
        description='Host names under which browsers may reach the service; "*" allows any.',
    )
    api_keys: tuple[ApiKey, ...] = Field(
        default=(),
        description=(
            "Who may call, as {name, sha256}; `video-service new-key NAME` makes one. Without any, "
            "and without a file, the service is open to whoever reaches it."
        ),
    )
    api_keys_file: FilePath = Field(
        default="",
        description="A file of more keys, a line NAME:SHA256 each; read again when it changes.",
    )
    consent: Literal["user", "operator"] = Field(
        default="user",
        description=(
            "Who agrees to lawful use under /v1: the user with each video, or the operator for "
            "all, so that OpenAI's clients work as they are. /generate always asks."
        ),
    )
    webhooks: tuple[WebhookConfig, ...] = Field(
        default=(), description="Who is told, by HTTP, when a video is done."
    )
    encoder: EncoderConfig = EncoderConfig()
    limits: LimitsConfig = LimitsConfig()
    retention: RetentionConfig = RetentionConfig()

    @model_validator(mode="after")
    def _names_are_unique(self) -> "ServiceConfig":
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError(f"models: each name may stand once, got {names}")
        return self

    @property
    def resolved_database_url(self) -> str:
        """The database URL with the default filled in."""
        return self.database_url or f"sqlite:///{self.state_dir}/jobs.sqlite3"
