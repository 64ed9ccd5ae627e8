"""Which of diffusers' attention back ends work here: asked by computing a little with each."""

import warnings

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    attention_backend,
    dispatch_attention_fn,
)

# Both published models' heads; the back ends that want few kinds of heads want these.
HEAD_DIM = 128
TOKENS = 16


def check_backend(name: str, device: str) -> None:
    """Raise unless attention by the back end `name` works on `device`.

    Back ends of the hub (`..._hub`) are downloaded by this, when the package `kernels` is there.

    Raises: ValueError: it is unknown, not installed, or does not work there; says what does.
    """
    known = {backend.value for backend in AttentionBackendName}
    problem = "diffusers knows no such back end" if name not in known else _problem(name, device)
    if problem:
        raise ValueError(
            f"attention: {name!r} cannot be used: {problem.rstrip('.')}. On this {_kind(device)} "
            f"there are: {', '.join(usable_backends(device))}"
        )


def usable_backends(device: str) -> list[str]:
    """Return the back ends that are installed and work on `device`, without those of the hub."""
    names = [backend.value for backend in AttentionBackendName]
    return [name for name in names if not name.endswith("_hub") and not _problem(name, device)]


def _problem(name: str, device: str) -> str:
    """Return why the back end fails, in the words of its library; "" when it works."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    try:
        _check_attention_backend_requirements(AttentionBackendName(name))
        with warnings.catch_warnings(), torch.no_grad(), attention_backend(name):
            # torch says of each kernel why it does not fit, before it fails.
            warnings.simplefilter("ignore")
            heads = torch.zeros(1, TOKENS, 1, HEAD_DIM, dtype=dtype, device=device)
            dispatch_attention_fn(heads, heads, heads)
            if device != "cpu":
                torch.cuda.synchronize()  # a kernel that fails is heard of when it is waited for
    except Exception as error:  # noqa: BLE001 - whatever a library raises, it does not work
        return str(error).partition("\n")[0] or type(error).__name__
    return ""


def _kind(device: str) -> str:
    return "CPU" if device == "cpu" else "GPU"
