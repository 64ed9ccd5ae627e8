"""The memory plan: what a video takes of a GPU, phase by phase, before anything is computed; and
how much work it is. A share such as `num_gpus: 0.5` reserves no memory.

Figures come from the networks' own formulas (`core/networks`), which are those of tensors. What the
CUDA libraries take beside them is added here. 1 GB is 2**30 bytes, as the API counts.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, computed_field

from deployments.core.networks.model import Activations, Clip, Counts, ModelFigures, Work
from deployments.core.spec import Frozen, VideoSpec

GIB = 2**30
# CUDA context, cuBLAS workspaces, fragmentation: 0.4 to 0.6 GiB are the context's; not measured.
OVERHEAD_GB = 1.5
# cuDNN's workspaces, as a share of what convolutions keep alive; not measured.
WORKSPACE_SHARE = 0.25

ITEMSIZES = {"float32": 4, "bfloat16": 2}
PhaseName = Literal["text", "encode", "denoise", "decode"]
Stored = Literal["resident", "streamed", "fp8", "int8", "nf4"]
# In words; but for the first two the frames are other ones.
STORED: dict[Stored, str] = {
    "resident": "as they were published",
    "streamed": "in the host's memory, from where each block comes as it works",
    "fp8": "in 8-bit floating point",
    "int8": "in whole numbers of 8 bits",
    "nf4": "in 4 bits",
}
# models/quantised.py: a byte holds two weights, and as many share a scale.
NF4_BLOCK = 64


class Mode(Frozen):
    """Which networks lie on the GPU, when and how: what a replica chooses when it starts."""

    text_on_gpu: bool = Field(
        default=True,
        description="False keeps the text encoder on the CPU: a prompt takes seconds longer.",
    )
    take_turns: bool = Field(
        default=False,
        description=(
            "True keeps the transformer on the GPU only while it denoises, and the VAE only while "
            "it works; moving them costs a few seconds a video."
        ),
    )
    transformer: Stored = Field(
        default="resident",
        description=(
            "streamed: from the host's memory, one block ahead of the computation. fp8, int8 and "
            "nf4: stored in 8 or 4 bits, which changes the frames a little."
        ),
    )
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    passes_at_once: int = Field(
        default=1,
        ge=1,
        description="Passes of classifier-free guidance in one batch; here they take turns.",
    )

    @property
    def is_exact(self) -> bool:
        """Whether the transformer computes with the weights as they were published."""
        return self.transformer in ("resident", "streamed")


# From fast and large to slow and small. All give the same frames, but for the text encoder's.
PLACEMENTS = (
    Mode(),
    Mode(text_on_gpu=False),
    Mode(text_on_gpu=False, take_turns=True),
)


def modes(weights: Stored | Literal["auto"]) -> tuple[Mode, ...]:
    """Return what a replica chooses from, the fastest first; "auto" takes the weights as they were
    published."""
    stored: tuple[Stored, ...] = ("resident", "streamed") if weights == "auto" else (weights,)
    return tuple(
        placement.model_copy(update={"transformer": each})
        for each in stored
        for placement in PLACEMENTS
    )


MODES = modes("auto")


class Placement(Frozen):
    """How a replica's networks lie on its GPU, and the memory they have there, in GB."""

    mode: Mode
    available_gb: float = Field(description="What is free, and what the replica holds already.")
    total_gb: float = Field(description="The most it can ever have: its part of the whole card.")


class Phase(Frozen):
    """What one phase of a generation takes of the GPU, in GB."""

    name: PhaseName
    weights_gb: dict[str, float] = Field(description="By network, of those on the GPU.")
    activations_gb: float = Field(description="The most tensors alive together.")
    workspace_gb: float = Field(description="Of the convolutions' library.")
    overhead_gb: float = OVERHEAD_GB

    @computed_field  # type: ignore[prop-decorator]  # pydantic documents it so
    @property
    def total_gb(self) -> float:
        """Everything together."""
        taken = self.activations_gb + self.workspace_gb + self.overhead_gb
        return sum(self.weights_gb.values()) + taken


class MemoryPlan(Frozen):
    """What a video takes, by phase, and how much work it is."""

    mode: Mode
    phases: tuple[Phase, ...]
    work: Work

    @computed_field  # type: ignore[prop-decorator]  # pydantic documents it so
    @property
    def peak_gb(self) -> float:
        """The phases follow each other: what the largest takes."""
        return max(phase.total_gb for phase in self.phases)


def plan(figures: ModelFigures, spec: VideoSpec, mode: Mode) -> MemoryPlan:
    """Return what `spec` takes of a GPU and how much work it is, in a replica of this mode."""
    taken = tuple(phases_of(figures, spec, mode))
    return MemoryPlan(mode=mode, phases=taken, work=figures.work(spec))


def phases_of(figures: ModelFigures, spec: VideoSpec, mode: Mode) -> Iterator[Phase]:
    """Yield the phases of generating `spec`, or each segment of it; see `phases`."""
    return phases(
        figures,
        Clip.of(spec),
        mode,
        low_vram=spec.low_vram,
        # Each segment but the first begins with the last frame of the one before.
        conditioned=spec.conditioned or spec.segments > 1,
        fast=spec.quality == "fast",
    )


def phases(
    figures: ModelFigures,
    clip: Clip,
    mode: Mode,
    *,
    low_vram: bool = False,
    conditioned: bool = False,
    fast: bool = False,
) -> Iterator[Phase]:
    """Yield the phases of generating `clip`, in their order.

    Args:
        low_vram: the request asks for less memory: the networks take turns in any mode.
        conditioned: the clip begins with a given frame, which is encoded.
        fast: passes through the transformer are reused, for which some of them are kept.
    """
    itemsize, counts = ITEMSIZES[mode.dtype], figures.counts()
    sizes = {
        "text_encoder": itemsize * counts.text_encoder,
        "transformer": transformer_bytes(counts, mode),
        "vae": itemsize * counts.vae,
    }
    alive = figures.activations(clip, itemsize, low_vram=low_vram, conditioned=conditioned)
    for name, size in _activation_bytes(alive, counts, mode, fast=fast).items():
        on_gpu = [each for each in sizes if _is_on_gpu(each, name, mode, low_vram)]
        convolves = name in ("encode", "decode")
        yield Phase(
            name=name,
            weights_gb={network: sizes[network] / GIB for network in on_gpu},
            activations_gb=size / GIB,
            workspace_gb=WORKSPACE_SHARE * size / GIB if convolves else 0.0,
        )


def _activation_bytes(
    alive: Activations, counts: Counts, mode: Mode, *, fast: bool
) -> dict[PhaseName, int]:
    """Return what each phase keeps alive on the GPU, in the order of the phases."""
    taken: dict[PhaseName, int] = {"text": alive.text if mode.text_on_gpu else 0}
    if alive.encode is not None:
        taken["encode"] = alive.encode
    taken["denoise"] = mode.passes_at_once * alive.denoise + _copied_bytes(counts, mode)
    taken["denoise"] += alive.kept if fast else 0
    taken["decode"] = alive.decode
    return taken


def _copied_bytes(counts: Counts, mode: Mode) -> int:
    """Return what a layer takes while its weights are in the dtype of the computation."""
    itemsize = ITEMSIZES[mode.dtype]
    if mode.transformer in ("fp8", "int8"):
        return itemsize * counts.largest_layer
    # Each byte of two weights becomes an index of four bytes first.
    return (itemsize + 2) * counts.largest_layer if mode.transformer == "nf4" else 0


def _is_on_gpu(network: str, phase: PhaseName, mode: Mode, low_vram: bool) -> bool:
    """Whether `network` lies on the GPU in `phase`, as `Placer` and the backends move them."""
    if network == "text_encoder":
        return mode.text_on_gpu
    if network == "vae":
        return phase in ("encode", "decode") or not (mode.take_turns or low_vram)
    if phase == "denoise":
        return True
    if mode.transformer == "streamed" or mode.take_turns:
        return False
    # Between jobs it rests on the GPU, and makes room for what comes after the text.
    return phase == "text" or not low_vram


def transformer_bytes(counts: Counts, mode: Mode) -> int:
    """Return what the transformer's weights take of the GPU while it works.

    Streamed, the GPU holds what is outside of the blocks, the block that works and the next:
    diffusers 0.42.1 hooks/group_offloading.py, block level with a stream (the next block is
    brought before one works, which is let go afterwards). In fp8, norms and the outermost layers
    keep their dtype: hooks/layerwise_casting.py. int8 and nf4 are models/quantised.py.
    """
    itemsize, blocks, norms = ITEMSIZES[mode.dtype], counts.in_blocks, counts.in_norms
    if mode.transformer == "streamed":
        return itemsize * (counts.outside_blocks + 2 * counts.in_block)
    if mode.transformer == "fp8":
        return counts.transformer + (itemsize - 1) * counts.kept_from_fp8
    if mode.transformer == "resident":
        return itemsize * counts.transformer
    kept = itemsize * (counts.transformer - blocks.weights - norms.weights)
    in_int8 = norms.weights + itemsize * norms.rows
    if mode.transformer == "int8":
        return kept + in_int8 + blocks.weights + itemsize * blocks.rows
    return kept + in_int8 + blocks.weights // 2 + itemsize * blocks.weights // NF4_BLOCK


def peak_gb(figures: ModelFigures, clip: Clip, mode: Mode, *, low_vram: bool = False) -> float:
    """Return the most GPU memory, in GB, that generating `clip` takes; see `phases`."""
    return max(phase.total_gb for phase in phases(figures, clip, mode, low_vram=low_vram))


def need_gb(figures: ModelFigures, spec: VideoSpec, mode: Mode) -> float:
    """Return the most GPU memory, in GB, that generating `spec` takes."""
    return max(phase.total_gb for phase in phases_of(figures, spec, mode))


def fastest_mode(
    figures: ModelFigures,
    largest: Clip,
    available_gb: float,
    weights: Stored | Literal["auto"] = "auto",
) -> Mode:
    """Return the fastest mode in which the `largest` clip fits, else the smallest one.

    Args: weights: how the transformer is stored; see `modes`.
    """
    choices = modes(weights)
    fits = (mode for mode in choices if peak_gb(figures, largest, mode) <= available_gb)
    return next(fits, choices[-1])
