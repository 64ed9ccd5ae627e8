"""Passes that have every variant of Mochi's compiled blocks made before the first job."""

from diffusers import MochiTransformer3DModel

from deployments.models.mochi1.sampling import denoise, initial_noise, linear_quadratic

# (T, h, w) of latents, and tokens of the prompt: a clip, and one frame, whose tokens lie otherwise
# in memory. No size is that of an axis of the network, for which the compiler would take it.
SHAPES = (((2, 14, 10), 7), ((1, 22, 26), 11))
GUIDANCE_SCALE = 2.0


def warm_up(transformer: MochiTransformer3DModel) -> None:
    """Run a pass with a prompt and one without, for each of `SHAPES`."""
    config = transformer.config
    for shape, num_tokens in SHAPES:
        prompt = initial_noise(1, (1, num_tokens, config.text_embed_dim))
        noise = initial_noise(0, (1, config.in_channels, *shape))
        sigmas = linear_quadratic(2)
        steps = denoise(transformer, noise, prompt, prompt[:, :0], sigmas, GUIDANCE_SCALE)
        next(steps)
        steps.close()
