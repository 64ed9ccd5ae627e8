"""What the published checkpoints can do, for tests of memory and work at full size."""

from deployments.core.spec import ModelCard

MOCHI = ModelCard(
    name="mochi",
    checkpoint="published",
    bundled=False,
    native_area=848 * 480,
    max_frames=163,
    frame_step=6,
    accepts_image=False,
    num_inference_steps=64,
    guidance_scale=4.5,
)
OPENSORA = ModelCard(
    name="opensora",
    checkpoint="published",
    bundled=False,
    native_area=768 * 768,
    max_frames=240,
    segment_frames=129,
    frame_step=4,
    accepts_image=True,
    num_inference_steps=50,
    guidance_scale=7.5,
)
