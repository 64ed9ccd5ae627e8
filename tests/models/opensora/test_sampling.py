"""The sampler leaves out passes without changing the result, and may be stopped at any step."""

from itertools import pairwise

import pytest
import torch
from diffusers import FirstBlockCacheConfig

from deployments.models.opensora.packing import make_condition, pack, position_ids, unpack
from deployments.models.opensora.sampling import Denoised, TextEmbedding, denoise, initial_noise
from deployments.models.opensora.schedule import Guidance, timesteps
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.tiny_mochi import TEXT_DIM
from tests.tiny_opensora import POOLED_DIM, tiny_transformer

SHAPE = (1, 16, 3, 4, 6)


def together(prompts: list[TextEmbedding]) -> TextEmbedding:
    return TextEmbedding(
        torch.cat([prompt.sequence for prompt in prompts]),
        torch.cat([prompt.pooled for prompt in prompts]),
    )


def prompt(seed: int, batch: int = 1) -> TextEmbedding:
    return TextEmbedding(
        initial_noise(seed, (batch, 7, TEXT_DIM)), initial_noise(seed + 100, (batch, POOLED_DIM))
    )


def run(transformer: OpenSoraTransformer3DModel, **changes: object) -> list[Denoised]:
    arguments: dict[str, object] = {
        "noise": initial_noise(0, SHAPE),
        "positive": prompt(1),
        "negative": prompt(2),
        "timesteps": timesteps(4, 3.0),
        "guidance": Guidance(),
    }
    return list(denoise(transformer, **{**arguments, **changes}))


def image(seed: int = 5) -> torch.Tensor:
    return initial_noise(seed, (1, 16, 1, 4, 6))


@torch.no_grad()
def unskipped(
    transformer: OpenSoraTransformer3DModel,
    times: list[float],
    guidance: Guidance,
    first: torch.Tensor | None,
) -> torch.Tensor:
    """All three passes at every step, in one batch, as the authors lay them out."""
    latents = initial_noise(0, SHAPE)
    text = together([prompt(1), prompt(2), prompt(2)])
    without = make_condition(SHAPE)
    cond = torch.cat([make_condition(SHAPE, first), make_condition(SHAPE, first), without])
    for index, (time, following) in enumerate(pairwise(times)):
        velocity = transformer(
            hidden_states=pack(latents).expand(3, -1, -1),
            cond=cond,
            encoder_hidden_states=text.sequence,
            pooled_projections=text.pooled,
            timestep=torch.full((3,), time),
            img_ids=position_ids(*SHAPE[2:]),
            txt_ids=torch.zeros(7, 3),
        ).sample
        c, u, z = unpack(velocity, *SHAPE[2:]).split(1)
        scales = torch.tensor(guidance.image_scales(index, len(times) - 1, SHAPE[2]))
        guided = z + scales.view(-1, 1, 1) * (u - z) + guidance.text_scale(index) * (c - u)
        latents = latents + (following - time) * guided
    if first is not None:
        latents[:, :, :1] = first
    return latents


@pytest.mark.parametrize(("with_image", "expected"), [(False, 80), (True, 110)])
def test_passes_that_cancel_are_left_out_without_changing_the_result(
    with_image: bool, expected: int
) -> None:
    """50 steps take the authors 150 passes."""
    transformer = tiny_transformer()
    first = image() if with_image else None
    times = timesteps(50, 1.5)
    whole = unskipped(transformer, times, Guidance(), first)
    passes: list[int] = []
    transformer.register_forward_hook(lambda *_: passes.append(1))
    ours = run(transformer, timesteps=times, first=first)[-1].latents
    assert len(passes) == expected
    torch.testing.assert_close(ours, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("guidance", "with_image", "expected"),
    [
        (Guidance(text=1.0), False, 1),
        (Guidance(text=1.0, image=1.0), True, 1),
        (Guidance(text=2.0, image=1.0), True, 2),
        (Guidance(text=1.0, image=2.0), True, 3),
        (Guidance(text=2.0, image=2.0), False, 2),
    ],
)
def test_each_scale_of_one_saves_its_pass(
    guidance: Guidance, with_image: bool, expected: int
) -> None:
    """And without images their scale does not matter."""
    transformer = tiny_transformer()
    first = image() if with_image else None
    whole = unskipped(transformer, [1.0, 0.5, 0.0], guidance, first)
    passes: list[int] = []
    transformer.register_forward_hook(lambda *_: passes.append(1))
    states = run(transformer, timesteps=[1.0, 0.5, 0.0], guidance=guidance, first=first)
    assert len(passes) == 2 * expected
    torch.testing.assert_close(states[-1].latents, whole, atol=1e-4, rtol=1e-4)


def test_each_step_yields_its_number_and_the_clean_latents_it_foresees() -> None:
    """What is foreseen at the last step is the result."""
    times = timesteps(4, 3.0)
    states = run(tiny_transformer())
    assert [state.step for state in states] == [1, 2, 3, 4]
    torch.testing.assert_close(states[-1].predicted, states[-1].latents)
    velocity = (states[0].latents - initial_noise(0, SHAPE)) / (times[1] - times[0])
    foreseen = initial_noise(0, SHAPE) - velocity
    torch.testing.assert_close(states[0].predicted, foreseen, atol=1e-4, rtol=1e-4)


def test_the_given_images_are_in_the_result_and_in_every_preview() -> None:
    """Exactly as they were given, at both ends."""
    first, last = image(5), image(6)
    states = run(tiny_transformer(), first=first, last=last)
    for latents in (*(state.predicted for state in states), states[-1].latents):
        assert torch.equal(latents[:, :, :1], first)
        assert torch.equal(latents[:, :, -1:], last)
    assert not torch.equal(states[0].latents[:, :, :1], first)


def test_clips_in_a_batch_are_the_clips_alone() -> None:
    """Also their images: the authors put them back in the first clip only."""
    transformer = tiny_transformer()
    noise = initial_noise(0, (2, *SHAPE[1:]))
    images = torch.cat([image(5), image(6)])
    both = run(transformer, noise=noise, positive=prompt(1, 2), negative=prompt(2, 2), first=images)
    for index in range(2):
        one = slice(index, index + 1)
        alone = run(
            transformer,
            noise=noise[one],
            positive=TextEmbedding(prompt(1, 2).sequence[one], prompt(1, 2).pooled[one]),
            negative=TextEmbedding(prompt(2, 2).sequence[one], prompt(2, 2).pooled[one]),
            first=images[one],
        )
        torch.testing.assert_close(both[-1].latents[one], alone[-1].latents, atol=1e-4, rtol=1e-4)


def test_bfloat16_weights_are_used_without_rounding_the_latents() -> None:
    """Latents and the sum over the steps stay float32."""
    transformer = tiny_transformer()
    exact = run(transformer, first=image())[-1].latents
    rounded = run(transformer.to(torch.bfloat16), first=image())[-1].latents
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() / exact.norm() < 0.05


def test_a_stopped_job_leaves_no_trace_in_the_next_one() -> None:
    """Closing the generator resets the step caches, also for a clip of another size."""
    transformer = tiny_transformer()
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    clean = run(transformer, first=image())[-1].latents
    other = initial_noise(0, (1, 16, 2, 8, 8))
    stopped = denoise(transformer, other, prompt(1), prompt(2), timesteps(4, 3.0), Guidance())
    next(stopped)
    stopped.close()
    assert torch.equal(run(transformer, first=image())[-1].latents, clean)


def test_the_step_cache_keeps_the_three_branches_apart() -> None:
    """With one name for all, the residual of one branch would serve the next in the same step."""
    transformer = tiny_transformer()
    ran: list[int] = []
    transformer.single_transformer_blocks[-1].attn.register_forward_hook(lambda *_: ran.append(1))
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    cached = run(transformer, first=image())[-1].latents
    assert len(ran) == 3
    assert torch.isfinite(cached).all()


def test_the_sampler_does_not_change_the_callers_grad_mode() -> None:
    """Between two steps the caller's own setting holds."""
    steps = denoise(
        tiny_transformer(),
        initial_noise(0, SHAPE),
        prompt(1),
        prompt(2),
        timesteps(2, 1.0),
        Guidance(),
    )
    assert not next(steps).latents.requires_grad
    assert torch.is_grad_enabled()
    steps.close()


def test_a_seed_always_draws_the_same_noise() -> None:
    """Float32 on the CPU, whatever the device of the network."""
    noise = initial_noise(7, SHAPE)
    assert torch.equal(noise, initial_noise(7, SHAPE))
    assert noise.dtype == torch.float32
    assert noise.device.type == "cpu"


ONE_FRAME = (1, 16, 1, 4, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": torch.zeros(1, 4, 3, 4, 6)}, r"noise must be \(B, 16, T, h, w\)"),
        ({"noise": torch.zeros(1, 16, 3, 4, 5)}, "multiples of 2"),
        ({"noise": torch.zeros(SHAPE, dtype=torch.bfloat16)}, "noise must be float32"),
        ({"positive": TextEmbedding(torch.zeros(1, 7, 3), torch.zeros(1, 24))}, "positive.seq"),
        ({"positive": TextEmbedding(torch.zeros(1, 7, 32), torch.zeros(1, 3))}, "positive.pooled"),
        ({"negative": TextEmbedding(torch.zeros(1, 5, 32), torch.zeros(1, 24))}, "negative.seq"),
        ({"negative": prompt(2, batch=2)}, "negative.sequence must be"),
        ({"timesteps": [1.0]}, "timesteps"),
        ({"timesteps": [1.0, 0.5]}, "timesteps"),
        ({"timesteps": [0.9, 0.0]}, "timesteps"),
        ({"timesteps": [1.0, 0.2, 0.5, 0.0]}, "timesteps"),
        ({"first": torch.zeros(1, 16, 2, 4, 6)}, r"first must be \(1, 16, 1, 4, 6\)"),
        ({"last": torch.zeros(1, 16, 1, 4, 4)}, "last must be"),
        ({"noise": torch.zeros(ONE_FRAME), "first": torch.zeros(ONE_FRAME)}, "first needs"),
        ({"noise": torch.zeros(ONE_FRAME), "last": torch.zeros(ONE_FRAME)}, "last needs"),
    ],
)
def test_wrong_arguments_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    """Before any work is done."""
    with pytest.raises(ValueError, match=message):
        run(tiny_transformer(), **changes)
