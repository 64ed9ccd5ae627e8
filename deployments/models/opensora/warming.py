"""Passes that have Open-Sora's compiled blocks made before the first job."""

from deployments.models.opensora.packing import PATCH
from deployments.models.opensora.sampling import TextEmbedding, denoise, initial_noise
from deployments.models.opensora.schedule import Guidance
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel

# (T, h, w) of latents. No size is that of an axis of the network, for which the compiler would
# take it.
SHAPES = ((2, 14, 10), (1, 22, 26))
TEXT_TOKENS = 23


def warm_up(transformer: OpenSoraTransformer3DModel) -> None:
    """Run a pass for each of `SHAPES`; all branches of guidance go through the same blocks."""
    config = transformer.config
    prompt = TextEmbedding(
        initial_noise(1, (1, TEXT_TOKENS, config.joint_attention_dim)),
        initial_noise(2, (1, config.pooled_projection_dim)),
    )
    for shape in SHAPES:
        noise = initial_noise(0, (1, config.in_channels // PATCH**2, *shape))
        steps = denoise(transformer, noise, prompt, prompt, [1.0, 0.0], Guidance(text=1.0))
        next(steps)
        steps.close()
