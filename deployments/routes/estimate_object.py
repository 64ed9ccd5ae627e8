"""The estimate: what a video would take, as it goes over the wire."""

from typing import Literal

from pydantic import BaseModel, Field

from deployments.core.events import ModelState
from deployments.core.memory import STORED, Mode, Phase, PhaseName
from deployments.core.memory_fit import Nearest, Size
from deployments.core.networks.model import Work
from deployments.core.outlook import Candidate, Outlook
from deployments.routes.video_object import rounded

TERA = 1e12
ON_CPU = "on the CPU; memory is that of a GPU which holds all networks"
UNKNOWN = "not known before a model is ready; memory is that of a GPU which holds all networks"


class ModelChance(BaseModel):
    """One of the models that may make the video."""

    model: str = Field(examples=["mochi"])
    state: ModelState = Field(description="`ready` or `unloaded` where one of its replicas is.")
    peak_gb: float | None = Field(
        description="The most GPU memory that the video takes there; null where it is not known.",
        examples=[36.02],
    )
    fits: bool | None = Field(description="As below, of this model.")


class PhaseMemory(BaseModel):
    """What one phase takes of the GPU, in GB (2^30 bytes)."""

    phase: PhaseName = Field(description="`encode` is of the first frame, where one is given.")
    weights_gb: dict[str, float] = Field(
        description="The networks that lie on the GPU in this phase.",
        examples=[{"text_encoder": 8.87, "transformer": 18.68, "vae": 0.86}],
    )
    activations_gb: float = Field(
        description="The most tensors that are alive together.", examples=[4.88]
    )
    workspace_gb: float = Field(description="Of the convolutions' library.", examples=[1.22])
    overhead_gb: float = Field(description="Of the GPU's driver and libraries.", examples=[1.5])
    total_gb: float = Field(description="All of these.", examples=[36.02])


class WorkTflop(BaseModel):
    """How much is to be computed, in 10^12 floating point operations; with `quality: fast`, what
    it is at most."""

    text: float = Field(examples=[2.42])
    encode: float = Field(examples=[0.0])
    denoise: float = Field(examples=[78928.0])
    decode: float = Field(examples=[1039.4])
    total: float = Field(examples=[79969.8])


class NearestSize(BaseModel):
    """A size of frames, in pixels."""

    width: int = Field(examples=[512])
    height: int = Field(examples=[512])


class NearestFit(BaseModel):
    """What would fit; each is one change of the request that leaves the rest as it is."""

    low_vram: bool = Field(description="Whether `low_vram` alone makes it fit.")
    num_frames: int | None = Field(
        description="Most frames that fit; null where none do.", examples=[61]
    )
    size: NearestSize | None = Field(
        description="Largest size of about the same aspect that fits; null where none does."
    )
    message: str = Field(
        description="The same in a sentence.",
        examples=["It would fit with at most 61 frames, or at 512x512."],
    )


class VideoEstimate(BaseModel):
    """What a video would take, were it asked for now."""

    object: Literal["video.estimate"] = "video.estimate"
    model: str = Field(
        description="The model this is about: of those of `models` that are ready and have the "
        "memory the one that is free first, else the first.",
        examples=["mochi"],
    )
    checkpoint: str = Field(examples=["genmo/mochi-1-preview"])
    models: list[ModelChance] = Field(
        description="The models that may make it; the first of them that is free does."
    )
    routing: str = Field(
        description="Why those.", examples=["image given: opensora makes videos from images"]
    )
    seconds_to_make: float | None = Field(
        description="About how long the making takes, from what videos took here before; null "
        "while nothing is known.",
        examples=[83.2],
    )
    seconds_until_start: float | None = Field(
        description="About how long it would wait first; null while nobody can say.", examples=[0.0]
    )
    seconds_left: float | None = Field(
        description="Both together; null where one is.", examples=[83.2]
    )
    placement: str = Field(
        description="Where the networks lie.", examples=["all networks stay on the GPU"]
    )
    memory: list[PhaseMemory] = Field(
        description="What each phase takes; they follow each other. Empty where it is not known."
    )
    peak_gb: float | None = Field(
        description="What the largest of them takes; null where it is not known.", examples=[36.02]
    )
    available_gb: float | None = Field(
        description="What the model can have of its GPU now; null on the CPU, and while it is not "
        "ready.",
        examples=[79.1],
    )
    fits: bool | None = Field(
        description="Whether that is enough; null where there is nothing to compare."
    )
    nearest: NearestFit | None = Field(description="What would fit, where it does not.")
    work_tflop: WorkTflop | None = Field(description="Null where it is not known.")
    generated_width: int = Field(description="Width the network makes.", examples=[512])
    generated_height: int = Field(description="Height the network makes.", examples=[512])
    generated_frames: int = Field(
        description="Frames the network makes, of each segment.", examples=[49]
    )
    segments: int = Field(description="How many pieces the clip is made in.", examples=[1])
    num_inference_steps: int = Field(description="Denoising steps of each.", examples=[64])


def video_estimate(found: Outlook) -> VideoEstimate:
    """Return `found` in its wire form."""
    chosen, times = found.chosen, found.times
    spec, plan = chosen.spec, chosen.plan
    both = None
    if times.start_s is not None and times.make_s is not None:
        both = times.start_s + times.make_s
    return VideoEstimate(
        model=spec.model,
        checkpoint=spec.checkpoint,
        models=[_chance(one) for one in found.candidates],
        routing=found.reason,
        seconds_to_make=rounded(times.make_s),
        seconds_until_start=rounded(times.start_s),
        seconds_left=rounded(both),
        placement=_placement(chosen),
        memory=[_phase(phase) for phase in plan.phases] if plan else [],
        peak_gb=_gb(plan.peak_gb) if plan else None,
        available_gb=_gb(chosen.placement.available_gb) if chosen.placement else None,
        fits=chosen.fits,
        nearest=None if found.nearest is None else _nearest(found.nearest),
        work_tflop=_work(plan.work) if plan else None,
        generated_width=spec.generated_width,
        generated_height=spec.generated_height,
        generated_frames=spec.generated_frames,
        segments=spec.segments,
        num_inference_steps=spec.num_inference_steps,
    )


def _chance(one: Candidate) -> ModelChance:
    peak_gb = _gb(one.plan.peak_gb) if one.plan else None
    return ModelChance(model=one.spec.model, state=one.state, peak_gb=peak_gb, fits=one.fits)


def _placement(chosen: Candidate) -> str:
    if chosen.placement is not None:
        return _mode(chosen.placement.mode, low_vram=chosen.spec.low_vram)
    return ON_CPU if chosen.device == "cpu" else UNKNOWN


def _mode(mode: Mode, *, low_vram: bool) -> str:
    if mode.transformer == "resident":
        return _places(mode, low_vram=low_vram)
    stored = STORED[mode.transformer]
    return f"{_places(mode, low_vram=low_vram)}; the transformer's weights are {stored}"


def _places(mode: Mode, *, low_vram: bool) -> str:
    text = "" if mode.text_on_gpu else "text is encoded on the CPU; "
    if mode.take_turns or low_vram:
        return f"{text}transformer and autoencoder take turns on the GPU"
    return f"{text}the other networks stay on the GPU" if text else "all networks stay on the GPU"


def _phase(phase: Phase) -> PhaseMemory:
    return PhaseMemory(
        phase=phase.name,
        weights_gb={network: _gb(size) for network, size in phase.weights_gb.items()},
        activations_gb=_gb(phase.activations_gb),
        workspace_gb=_gb(phase.workspace_gb),
        overhead_gb=_gb(phase.overhead_gb),
        total_gb=_gb(phase.total_gb),
    )


def _work(work: Work) -> WorkTflop:
    return WorkTflop(
        text=work.text_flops / TERA,
        encode=work.encode_flops / TERA,
        denoise=work.denoise_flops / TERA,
        decode=work.decode_flops / TERA,
        total=work.total_flops / TERA,
    )


def _nearest(found: Nearest) -> NearestFit:
    return NearestFit(
        low_vram=found.low_vram,
        num_frames=found.num_frames,
        size=None if found.size is None else _size(found.size),
        message=found.sentence,
    )


def _size(size: Size) -> NearestSize:
    return NearestSize(width=size.width, height=size.height)


def _gb(size_gb: float) -> float:
    return round(size_gb, 3)
