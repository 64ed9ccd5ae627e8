"""Tokens, their positions and the condition are the authors'."""

import pytest
import torch

from deployments.models.opensora.packing import make_condition, pack, position_ids, unpack
from tests.tiny_opensora import reference

SHAPE = (1, 16, 3, 4, 6)


@pytest.fixture(scope="module")
def data() -> dict[str, torch.Tensor]:
    return reference("packing_conditions")


def test_latents_are_packed_as_the_authors_do_and_come_back(data: dict[str, torch.Tensor]) -> None:
    """Exactly: it only moves numbers."""
    assert torch.equal(pack(data["latents"]), data["packed"])
    assert torch.equal(unpack(data["packed"], *SHAPE[2:]), data["latents"])


def test_several_clips_are_packed_each_for_itself(data: dict[str, torch.Tensor]) -> None:
    """The batch stays the first axis."""
    both = torch.cat([data["latents"], -data["latents"]])
    assert torch.equal(pack(both), torch.cat([data["packed"], -data["packed"]]))
    assert torch.equal(unpack(pack(both), *SHAPE[2:]), both)


def test_positions_count_latent_frames_rows_and_columns(data: dict[str, torch.Tensor]) -> None:
    """In the order of the tokens, from zero; one frame of one token is also a clip."""
    assert torch.equal(position_ids(*SHAPE[2:]), data["img_ids"][0])
    assert position_ids(*SHAPE[2:]).dtype == torch.float32
    assert position_ids(1, 2, 2).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("mode", "images"),
    [
        ("t2v", []),
        ("i2v_head", ["first"]),
        ("i2v_tail", ["last"]),
        ("i2v_loop", ["first", "last"]),
    ],
)
def test_the_condition_is_the_authors(
    data: dict[str, torch.Tensor], mode: str, images: list[str]
) -> None:
    """Four channels of the mask, then the reference latents; zeros where nothing is given."""
    stored = {"first": data["ref_head"][None], "last": data["ref_tail"][None]}
    condition = make_condition(SHAPE, **{name: stored[name] for name in images})
    assert torch.equal(condition, data[f"{mode}.cond_packed"])
    mask, latents = condition.split([4, 64], dim=-1)
    assert torch.equal(unpack(mask, *SHAPE[2:]), data[f"{mode}.masks"])
    assert torch.equal(unpack(latents, *SHAPE[2:]), data[f"{mode}.masked_ref"])
