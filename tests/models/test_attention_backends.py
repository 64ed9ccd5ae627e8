"""A back end that does not work is refused by a sentence that names those that do."""

import pytest

from deployments.models.attention_backends import check_backend, usable_backends


def test_torchs_own_attention_works_everywhere() -> None:
    """And nothing of the hub is tried, which would be downloaded."""
    usable = usable_backends("cpu")
    assert "native" in usable
    assert "_native_math" in usable
    assert not [name for name in usable if name.endswith("_hub")]
    for name in usable:
        check_backend(name, "cpu")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flsh", "diffusers knows no such back end"),
        ("sage", ".*Please install `sageattention"),
        ("_native_cudnn", "No viable backend"),
    ],
)
def test_a_back_end_that_cannot_work_is_refused_with_those_that_can(name: str, why: str) -> None:
    """Unknown, not installed, or for another device."""
    with pytest.raises(ValueError, match=f"attention: '{name}' cannot be used: {why}.* native,"):
        check_backend(name, "cpu")
