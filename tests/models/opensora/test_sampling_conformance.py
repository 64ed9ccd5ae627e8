"""The sampler's results are the authors', in all their modes."""

import json

import pytest
import torch

from deployments.models.opensora.packing import pack
from deployments.models.opensora.sampling import Denoised, TextEmbedding, denoise
from deployments.models.opensora.schedule import Guidance, flow_shift, timesteps
from deployments.models.opensora.transformer_opensora import OpenSoraTransformer3DModel
from tests.tiny_opensora import CONFORMANCE, reference, reference_transformer

MANIFEST = json.loads((CONFORMANCE / "manifest.json").read_text())
RUNS = MANIFEST["files"]["sampler.safetensors"]["config"]
TOLERANCE = {"atol": 5e-4, "rtol": 1e-4}


@pytest.fixture(scope="module")
def transformer() -> OpenSoraTransformer3DModel:
    return reference_transformer()


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    return reference("sampler")


@pytest.fixture(scope="module")
def text(data: dict[str, torch.Tensor]) -> dict[str, TextEmbedding]:
    names = ("pos", "pos2", "neg", "empty")
    return {
        name: TextEmbedding(data[f"text.{name}.t5"], data[f"text.{name}.clip"]) for name in names
    }


def together(prompts: list[TextEmbedding]) -> TextEmbedding:
    return TextEmbedding(
        torch.cat([prompt.sequence for prompt in prompts]),
        torch.cat([prompt.pooled for prompt in prompts]),
    )


def alpha_of(run: dict[str, object]) -> float:
    if not run["shift"]:
        return 1.0
    return run["flow_shift"] or flow_shift(latent_frames=3, tokens_per_frame=6)


def states_of(
    transformer: OpenSoraTransformer3DModel,
    data: dict[str, torch.Tensor],
    text: dict[str, TextEmbedding],
    name: str,
) -> list[Denoised]:
    run = RUNS[name]
    guidance = Guidance(
        text=run["guidance"],
        image=run["guidance_img"],
        text_oscillation=run["text_osci"],
        image_oscillation=run["image_osci"],
        temporal_image_scaling=run["scale_temporal_osci"],
    )
    images = {}
    for reference_name in run["refs"] or []:
        images[{"ref_head": "first", "ref_tail": "last"}[reference_name]] = data[reference_name][
            None
        ]
    return list(
        denoise(
            transformer,
            data[f"{name}.noise"],
            together([text[prompt] for prompt in run["prompts"]]),
            together([text[prompt or "empty"] for prompt in run["negative_prompts"]]),
            timesteps(run["num_steps"], alpha_of(run)),
            guidance,
            **images,
        )
    )


@pytest.mark.parametrize("name", sorted(RUNS))
def test_the_result_is_the_authors(
    transformer: OpenSoraTransformer3DModel,
    data: dict[str, torch.Tensor],
    text: dict[str, TextEmbedding],
    name: str,
) -> None:
    """All their modes, one clip and two, with and without oscillation and shift."""
    times = timesteps(RUNS[name]["num_steps"], alpha_of(RUNS[name]))
    assert times == pytest.approx(data[f"{name}.timesteps"].tolist(), abs=1e-6, rel=0)
    states = states_of(transformer, data, text, name)
    torch.testing.assert_close(states[-1].latents, data[f"{name}.latents"], **TOLERANCE)


@pytest.mark.parametrize("name", ["t2v", "i2v_head"])
def test_every_step_is_the_authors(
    transformer: OpenSoraTransformer3DModel,
    data: dict[str, torch.Tensor],
    text: dict[str, TextEmbedding],
    name: str,
) -> None:
    """They stored what goes into each step: what comes out of the one before."""
    stored = data[f"{name}.packed_latents_per_step"]
    states = states_of(transformer, data, text, name)
    assert torch.equal(pack(data[f"{name}.noise"]), stored[0])
    for state, following in zip(states, stored[1:], strict=False):
        torch.testing.assert_close(pack(state.latents), following, **TOLERANCE)
