"""What a video takes on the GPU, by phase, and how much work it is; figures of the full-size
networks, which `test_memory_networks` holds to counts."""

import pytest
import torch

from deployments.core.memory import (
    GIB,
    MODES,
    OVERHEAD_GB,
    PLACEMENTS,
    Mode,
    Phase,
    Stored,
    fastest_mode,
    modes,
    peak_gb,
    phases,
    plan,
)
from deployments.core.networks.figures import MochiFigures, OpenSoraFigures
from deployments.core.networks.model import Clip, ModelFigures
from deployments.core.spec import ModelCard, VideoRequest, VideoSpec, resolve
from deployments.models.opensora.sampling import TextEmbedding, denoise
from deployments.models.opensora.schedule import Guidance, timesteps
from tests.published_cards import MOCHI as MOCHI_CARD
from tests.published_cards import OPENSORA as OPENSORA_CARD
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import POOLED_DIM, tiny_transformer

MOCHI, OPENSORA = MochiFigures(), OpenSoraFigures()
DEFAULT, LONGEST = Clip(720, 720, 67), Clip(848, 480, 163)
RESIDENT, TEXT_ON_CPU, IN_TURNS = PLACEMENTS
STREAMED = MODES[-1]


def spec_of(card: ModelCard, **changed: object) -> VideoSpec:
    return resolve(VideoRequest(prompt="a fox", seed=0).model_copy(update=changed), card)


def by_name(figures: ModelFigures, clip: Clip, mode: Mode, **settings: bool) -> dict[str, Phase]:
    return {phase.name: phase for phase in phases(figures, clip, mode, **settings)}


def test_the_default_request_is_24300_tokens_and_the_longest_native_clip_44520() -> None:
    """genmo's README counts 44,520 visual tokens for 848x480 and 163 frames."""
    assert DEFAULT.tokens(6) == 24_300
    assert LONGEST.tokens(6) == 44_520


def test_phases_follow_each_other_and_do_not_add_up() -> None:
    """Each has the weights on the GPU, what it keeps alive and the overhead; the peak counts."""
    made = plan(MOCHI, spec_of(MOCHI_CARD), TEXT_ON_CPU)
    assert [phase.name for phase in made.phases] == ["text", "denoise", "decode"]
    text, denoise_phase, decode = made.phases
    weights_gb = 2 * (MOCHI.counts().transformer + MOCHI.counts().vae) / GIB
    for phase in made.phases:
        assert sum(phase.weights_gb.values()) == pytest.approx(weights_gb)
    assert text.total_gb == pytest.approx(weights_gb + OVERHEAD_GB)
    # About 108.8 kB a token, and 10.2 kB a pixel with a quarter for cuDNN.
    assert denoise_phase.activations_gb == pytest.approx(24_300 * 108.8e3 / GIB, rel=0.02)
    assert decode.activations_gb == pytest.approx(10.15e3 * 720 * 720 / GIB, rel=0.01)
    assert decode.workspace_gb == decode.activations_gb / 4
    assert made.peak_gb == decode.total_gb


def test_a_plan_is_plain_data() -> None:
    """It crosses processes and stands in answers, with its sums."""
    made = plan(OPENSORA, spec_of(OPENSORA_CARD, has_image=True), MODES[0]).model_dump(mode="json")
    assert made["peak_gb"] == max(phase["total_gb"] for phase in made["phases"])
    assert made["work"]["total_flops"] > made["work"]["denoise_flops"] > 0


def test_an_image_adds_a_phase_and_so_does_a_second_segment() -> None:
    """Both begin with a frame that is encoded."""
    for changed in ({"has_image": True}, {"num_frames": 240}):
        made = plan(OPENSORA, spec_of(OPENSORA_CARD, **changed), RESIDENT)
        assert [phase.name for phase in made.phases] == ["text", "encode", "denoise", "decode"]
        assert made.work.encode_flops > 0
    assert plan(OPENSORA, spec_of(OPENSORA_CARD), RESIDENT).work.encode_flops == 0


def test_each_mode_takes_less_than_the_one_before() -> None:
    """They are listed from fast to small; and streamed they begin anew."""
    for figures in (MOCHI, OPENSORA):
        for stored in ("resident", "streamed"):
            needs = [peak_gb(figures, DEFAULT, mode) for mode in modes(stored)]
            assert needs == sorted(needs, reverse=True)


def test_networks_that_take_turns_are_alone_on_the_gpu() -> None:
    """In a replica's mode, or because the request asks for low_vram."""
    turns = by_name(OPENSORA, DEFAULT, IN_TURNS, conditioned=True)
    expected = {"text": [], "encode": ["vae"], "denoise": ["transformer"], "decode": ["vae"]}
    assert {name: list(phase.weights_gb) for name, phase in turns.items()} == expected
    asked = by_name(OPENSORA, DEFAULT, TEXT_ON_CPU, low_vram=True, conditioned=True)
    # Where it rests on the GPU between jobs, the transformer is still there at the beginning.
    expected["text"] = ["transformer"]
    assert {name: list(phase.weights_gb) for name, phase in asked.items()} == expected


@pytest.mark.parametrize(
    ("stored", "mochi_gb", "opensora_gb"),
    [
        ("resident", 18.68, 22.15),
        ("streamed", 0.96, 1.37),
        ("fp8", 11.88, 14.10),
        ("int8", 9.44, 11.13),
        ("nf4", 6.28, 7.37),
    ],
)
def test_the_transformer_can_be_streamed_or_stored_in_fewer_bits(
    stored: Stored, mochi_gb: float, opensora_gb: float
) -> None:
    """fp8 leaves the modulations of norms as they are, a quarter of the weights; a layer is copied
    in bfloat16 while it works."""
    mode = IN_TURNS.model_copy(update={"transformer": stored})
    for figures, expected_gb in ((MOCHI, mochi_gb), (OPENSORA, opensora_gb)):
        made, exact = (by_name(figures, DEFAULT, each)["denoise"] for each in (mode, IN_TURNS))
        assert made.weights_gb["transformer"] == pytest.approx(expected_gb, abs=0.01)
        copies = {"fp8": 2, "int8": 2, "nf4": 4}.get(stored, 0)
        copied_gb = copies * figures.counts().largest_layer / GIB
        assert made.activations_gb == pytest.approx(exact.activations_gb + copied_gb)


def test_12_gb_hold_the_default_clip_streamed() -> None:
    """What streaming is for."""
    assert peak_gb(MOCHI, DEFAULT, STREAMED) < 11.5


def test_passes_in_one_batch_take_as_much_more() -> None:
    """Open-Sora's authors run three at once, and see 60.3 GB at 768 pixels: 34 GB of weights, and
    three times this, but that their peak is in the rotation of queries, 34 bytes a channel instead
    of 30; ours take turns."""
    authors = Clip(1024, 576, 129)
    batched = by_name(OPENSORA, authors, Mode(passes_at_once=3))["denoise"].activations_gb
    assert batched == 3 * by_name(OPENSORA, authors, Mode())["denoise"].activations_gb
    assert batched * GIB * 34 / 30 == pytest.approx(60.3e9 - 34e9, rel=0.08)


def test_single_precision_takes_twice_the_weights() -> None:
    """And not twice the activations: some are in single precision always."""
    half, single = (
        by_name(MOCHI, DEFAULT, Mode(dtype=d))["denoise"] for d in ("bfloat16", "float32")
    )
    assert single.weights_gb["transformer"] == 2 * half.weights_gb["transformer"]
    assert half.activations_gb < single.activations_gb < 2 * half.activations_gb


def test_decoding_in_tiles_takes_less() -> None:
    """What `low_vram` is for. Of Open-Sora in time, where a short clip is one tile anyway; of Mochi
    in space, where a small one is."""
    for figures, larger, smaller in (
        (OPENSORA, Clip(1024, 576, 129), Clip(1024, 576, 33)),
        (MOCHI, Clip(848, 480, 13), Clip(256, 256, 163)),
    ):
        whole, tiled = (
            figures.activations(larger, 2, low_vram=v, conditioned=False) for v in (False, True)
        )
        assert tiled.decode < 0.6 * whole.decode
        assert tiled.denoise == whole.denoise
        first, second = (
            figures.activations(smaller, 2, low_vram=v, conditioned=False) for v in (False, True)
        )
        assert second.decode == pytest.approx(first.decode, rel=0.05)


def test_mochis_tiles_take_the_same_for_every_frame_and_more_work() -> None:
    """Their overlaps are decoded twice."""
    sizes = (Clip(848, 480, 13), Clip(1920, 1088, 163))
    tiled = [MOCHI.activations(clip, 2, low_vram=True, conditioned=False) for clip in sizes]
    assert tiled[0].decode == tiled[1].decode
    exact, in_tiles = (
        plan(MOCHI, spec_of(MOCHI_CARD, low_vram=low), RESIDENT).work for low in (False, True)
    )
    assert 1.2 < in_tiles.decode_flops / exact.decode_flops < 2
    assert in_tiles.denoise_flops == exact.denoise_flops


@pytest.mark.parametrize(
    ("available_gb", "expected"),
    [
        (138.0, RESIDENT),
        (39.0, RESIDENT),
        (30.0, TEXT_ON_CPU),
        (25.0, IN_TURNS),
        (23.5, Mode(transformer="streamed")),
        (11.5, Mode(text_on_gpu=False, transformer="streamed")),
        (7.5, STREAMED),
        (4.0, STREAMED),
    ],
)
def test_the_fastest_mode_that_fits_is_taken(available_gb: float, expected: Mode) -> None:
    """None that changes the frames."""
    assert fastest_mode(MOCHI, LONGEST, available_gb) == expected
    assert all(mode.is_exact for mode in MODES)


@pytest.mark.parametrize("weights", ["resident", "streamed", "fp8", "int8", "nf4"])
def test_asked_for_weights_are_taken_and_the_others_placed_around_them(weights: Stored) -> None:
    """However much memory there is."""
    for available_gb in (4.0, 30.0, 138.0):
        mode = fastest_mode(MOCHI, LONGEST, available_gb, weights)
        assert mode.transformer == weights
        assert mode.model_copy(update={"transformer": "resident"}) in PLACEMENTS
    assert fastest_mode(MOCHI, LONGEST, 138.0, weights) == Mode(transformer=weights)
    assert fastest_mode(MOCHI, LONGEST, 4.0, weights).take_turns


def test_mochi_passes_twice_a_step_unless_guidance_is_off() -> None:
    """An empty negative prompt has no tokens: no pass of T5, and less attention."""
    work = plan(MOCHI, spec_of(MOCHI_CARD), RESIDENT).work
    assert (work.passes, work.denoise_flops) == (128, 64 * work.step_flops)
    unguided = plan(MOCHI, spec_of(MOCHI_CARD, guidance_scale=1.0), RESIDENT).work
    assert unguided.passes == 64
    described = plan(MOCHI, spec_of(MOCHI_CARD, negative_prompt="blurred"), RESIDENT).work
    assert described.text_flops == 2 * work.text_flops
    assert described.step_flops == 2 * unguided.step_flops > work.step_flops


@pytest.mark.parametrize("has_image", [False, True])
@pytest.mark.parametrize(("steps", "guidance_scale"), [(50, 7.5), (12, 1.0)])
def test_open_soras_passes_are_those_that_its_sampler_makes(
    steps: int, guidance_scale: float, has_image: bool
) -> None:
    """Counted in a tiny network: 80 of text and 110 of images at 50 steps, not 150."""
    changed = {"num_inference_steps": steps, "guidance_scale": guidance_scale}
    spec = spec_of(OPENSORA_CARD, **changed, has_image=has_image)
    transformer = tiny_transformer()
    passes: list[int] = []
    transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    text = TextEmbedding(torch.zeros(1, 4, TEXT_DIM), torch.zeros(1, POOLED_DIM))
    noise = torch.zeros(1, 16, 2, 2, 2)
    first = torch.zeros(1, 16, 1, 2, 2) if has_image else None
    times = timesteps(steps, 1.0)
    for _ in denoise(transformer, noise, text, text, times, Guidance(text=guidance_scale), first):
        pass
    work = plan(OPENSORA, spec, RESIDENT).work
    assert work.passes == len(passes)
    if (steps, guidance_scale) == (50, 7.5):
        assert work.passes == (110 if has_image else 80)
        assert work.step_flops == (3 if has_image else 2) * work.denoise_flops // work.passes


def test_every_segment_is_work_and_the_later_ones_begin_with_a_frame() -> None:
    """240 frames are two segments: the first from text, the second from the last frame."""
    work, half = (
        plan(OPENSORA, spec_of(OPENSORA_CARD, num_frames=n), RESIDENT).work for n in (240, 121)
    )
    assert (half.passes, work.passes) == (80, 80 + 110)
    assert work.text_flops == half.text_flops
    assert work.decode_flops == 2 * half.decode_flops


def test_the_published_sums_are_met() -> None:
    """48 * (2 N * 113.25e6 + 12288 * (N + 256)^2 + 19.3e9) a pass of Mochi; and of Open-Sora at 768
    pixels what 57 blocks of 12 * 3072^2 weights a token and their attention make."""
    assert plan(MOCHI, spec_of(MOCHI_CARD), RESIDENT).work.step_flops == pytest.approx(
        1.24e15, rel=0.01
    )
    one_pass = 48 * (2 * 24_300 * 113.25e6 + 12_288 * 24_556**2 + 19.3e9)
    assert MOCHI.transformer.flops(24_300, 256) == pytest.approx(one_pass, rel=0.001)
    tokens, blocks = 76_032 + 512, 57
    one_pass = blocks * (2 * tokens * 12 * 3072**2 + 4 * tokens**2 * 3072)
    assert OPENSORA.transformer.flops(76_032, 512) == pytest.approx(one_pass, rel=0.001)
