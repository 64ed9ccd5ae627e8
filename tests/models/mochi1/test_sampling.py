"""The sampler gives what diffusers' pipeline gives, and may be stopped at any step."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, MochiPipeline, MochiTransformer3DModel
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule

from deployments.models.mochi1.sampling import Denoised, denoise, initial_noise, linear_quadratic
from tests.tiny_mochi import TEXT_DIM, tiny_transformer

SHAPE = (1, 12, 3, 4, 6)
# The pipeline's rotary embedding asks for an autocast that the CPU lacks.
pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")


@pytest.fixture
def transformer() -> MochiTransformer3DModel:
    return tiny_transformer()


def prompt(seed: int, tokens: int) -> torch.Tensor:
    return initial_noise(seed, (1, tokens, TEXT_DIM))


def last(transformer: MochiTransformer3DModel, **changes: object) -> Denoised:
    arguments: dict[str, object] = {
        "latents": initial_noise(0, SHAPE),
        "positive": prompt(1, 5),
        "negative": prompt(2, 0),
        "sigmas": linear_quadratic(4),
        "guidance_scale": 4.5,
    }
    *_, result = denoise(transformer, **(arguments | changes))
    return result


@pytest.mark.parametrize("steps", [2, 3, 28, 64])
def test_the_schedule_is_diffusers_with_the_clean_fraction_counted(steps: int) -> None:
    """diffusers lists noise fractions; Mochi's scheduler turns them round and appends 1."""
    expected = [1.0 - noise for noise in linear_quadratic_schedule(steps, 0.025)]
    assert linear_quadratic(steps) == pytest.approx([*expected, 1.0], abs=1e-12)


def test_fastmochi_schedule_has_six_small_steps_and_two_large_ones() -> None:
    """FastMochi is distilled for linear_quadratic(8, 0.1, 6), which the pipeline cannot say."""
    sigmas = linear_quadratic(8, 0.1, 6)
    assert sigmas == pytest.approx(
        [*(i / 60 for i in range(6)), *[1 - x for x in linear_quadratic_schedule(8, 0.1, 6)][6:], 1]
    )
    assert sigmas == sorted(set(sigmas))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1,), "num_steps must be at least 2"),
        ((8, 0.0), "threshold_noise"),
        ((8, 1.0), "threshold_noise"),
        ((8, 0.1, 0), "linear_steps"),
        ((8, 0.1, 8), "linear_steps"),
    ],
)
def test_an_impossible_schedule_is_refused(arguments: tuple[float, ...], message: str) -> None:
    """Each refusal names the argument."""
    with pytest.raises(ValueError, match=message):
        linear_quadratic(*arguments)


def test_noise_follows_from_the_seed_alone() -> None:
    """The same seed gives the same numbers, another seed others."""
    assert torch.equal(initial_noise(7, SHAPE), initial_noise(7, SHAPE))
    assert not torch.equal(initial_noise(7, SHAPE), initial_noise(8, SHAPE))
    assert initial_noise(2**32 - 1, SHAPE).dtype == torch.float32


@pytest.mark.parametrize("guidance_scale", [1.0, 4.5])
@pytest.mark.parametrize("negative", ["", "blurry, grey"])
def test_the_latents_are_those_of_the_stock_pipeline(
    pipeline: MochiPipeline, guidance_scale: float, negative: str
) -> None:
    """In float32 only the order of additions differs."""
    stock = pipeline(
        prompt="a red fox runs",
        negative_prompt=negative,
        height=32,
        width=48,
        num_frames=13,
        num_inference_steps=6,
        guidance_scale=guidance_scale,
        latents=initial_noise(3, SHAPE),
        output_type="latent",
    ).frames
    ours = last(
        pipeline.transformer,
        latents=initial_noise(3, SHAPE),
        positive=trimmed(pipeline, "a red fox runs"),
        negative=trimmed(pipeline, negative),
        sigmas=linear_quadratic(6),
        guidance_scale=guidance_scale,
    )
    torch.testing.assert_close(ours.latents, stock, atol=1e-4, rtol=1e-4)


def trimmed(pipeline: MochiPipeline, text: str) -> torch.Tensor:
    embedding, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    return embedding[:, mask[0].bool()] if text else embedding[:, :0]


def test_each_step_yields_its_number_and_the_clean_latents_it_foresees(
    transformer: MochiTransformer3DModel,
) -> None:
    """What is foreseen at the last step lies on the line to the result."""
    sigmas = linear_quadratic(4)
    noise = initial_noise(0, SHAPE)
    states = list(denoise(transformer, noise, prompt(1, 5), prompt(2, 0), sigmas, 4.5))
    assert [state.step for state in states] == [1, 2, 3, 4]
    torch.testing.assert_close(states[-1].predicted, states[-1].latents)
    velocity = (states[0].latents - noise) / (sigmas[1] - sigmas[0])
    torch.testing.assert_close(states[0].predicted, noise + velocity, atol=1e-3, rtol=1e-3)
    assert all(state.latents.dtype == torch.float32 for state in states)


def test_guidance_of_one_makes_one_pass_a_step(transformer: MochiTransformer3DModel) -> None:
    """The negative prompt cancels out, so it is not computed."""
    passes: list[int] = []
    transformer.register_forward_hook(lambda *_: passes.append(1))
    last(transformer, guidance_scale=1.0)
    assert len(passes) == 4
    last(transformer, guidance_scale=2.0)
    assert len(passes) == 4 + 8


def test_bfloat16_weights_are_used_without_losing_the_small_steps(
    transformer: MochiTransformer3DModel,
) -> None:
    """The latents stay float32: rounded to bfloat16, steps of 0.0008 would vanish."""
    exact = last(transformer, sigmas=linear_quadratic(12))
    rounded = last(transformer.to(torch.bfloat16), sigmas=linear_quadratic(12))
    assert rounded.latents.dtype == torch.float32
    error = (rounded.latents - exact.latents).norm() / exact.latents.norm()
    assert error < 0.05


def test_a_stopped_job_leaves_no_trace_in_the_next_one(
    transformer: MochiTransformer3DModel,
) -> None:
    """Closing the generator resets the step caches, also for a clip of another size."""
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    clean = last(transformer)
    other = initial_noise(0, (1, 12, 2, 8, 8))
    stopped = denoise(transformer, other, prompt(1, 5), prompt(2, 0), linear_quadratic(4), 4.5)
    next(stopped)
    stopped.close()
    assert torch.equal(last(transformer).latents, clean.latents)
    transformer.disable_cache()


def test_the_step_cache_keeps_the_two_branches_apart(
    transformer: MochiTransformer3DModel,
) -> None:
    """With one name for both, the cached residual of one branch would serve the other."""
    ran: list[int] = []
    transformer.transformer_blocks[-1].ff.register_forward_hook(lambda *_: ran.append(1))
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    cached = last(transformer)
    transformer.disable_cache()
    assert len(ran) == 2
    assert torch.isfinite(cached.latents).all()


def test_the_sampler_does_not_change_the_callers_grad_mode(
    transformer: MochiTransformer3DModel,
) -> None:
    """Between two steps the caller's own setting holds."""
    steps = denoise(
        transformer,
        initial_noise(0, SHAPE),
        prompt(1, 5),
        prompt(2, 0),
        linear_quadratic(2),
        4.5,
    )
    assert not next(steps).latents.requires_grad
    assert torch.is_grad_enabled()
    steps.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": torch.zeros(1, 4, 1, 4, 4)}, r"\(1, 12, T, h, w\)"),
        ({"latents": torch.zeros(1, 12, 1, 4, 5)}, "multiples of 2"),
        ({"latents": torch.zeros(SHAPE, dtype=torch.bfloat16)}, "float32"),
        ({"positive": torch.zeros(1, 5, 7)}, "positive must be"),
        ({"negative": torch.zeros(2, 5, TEXT_DIM)}, "negative must be"),
        ({"sigmas": [1.0]}, "sigmas"),
        ({"sigmas": [0.5, 0.2, 1.0]}, "sigmas"),
        ({"sigmas": [0.0, 0.5]}, "sigmas"),
        ({"guidance_scale": 0.5}, "guidance_scale"),
    ],
)
def test_wrong_arguments_are_refused_by_name(
    transformer: MochiTransformer3DModel, changes: dict[str, object], message: str
) -> None:
    """Before any work is done."""
    with pytest.raises(ValueError, match=message):
        last(transformer, **changes)
