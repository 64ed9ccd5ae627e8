"""Compile the repeated blocks of a transformer with torch's compiler, and only those.

A model has a few kinds of blocks and dozens of each: compiled one by one, all of a kind share what
was compiled for the first. Shapes are symbols in it, so that it serves clips and prompts of every
size; see `warm_up` of each family for the few that are apart.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from deployments.models.blocks import blocks_of

BACKEND = "inductor"
# Variants of one block: kinds of it, no prompt, a single frame, other strides. torch's limit is 8.
RECOMPILE_LIMIT = 64


def compile_blocks(transformer: Any, warm_up: Callable[[], None]) -> None:
    """Compile in place, and have `warm_up` run passes so that it is done when this returns.

    Only a block's `forward` is compiled: what diffusers hooks into it later (streamed weights) and
    what is put around it (the step cache) stays outside. A shape that needs another variant is
    compiled when it comes; beyond the limit it runs uncompiled.

    Args:
        transformer: of diffusers, its weights stored as they will be.
        warm_up: runs passes of the shapes that need a variant.

    Raises: RuntimeError: there is no compiler, or it failed; the message says which.
    """
    # In this process: workers of the compiler would outlive its death, and hold memory idly.
    torch._inductor.config.compile_threads = 1
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    plain = [(block, block.forward) for block in blocks_of(transformer)]
    for block, forward in plain:
        block.forward = torch.compile(forward, backend=BACKEND, dynamic=True)
    try:
        warm_up()
    except TorchDynamoException as error:
        for block, forward in plain:
            block.forward = forward
        raise RuntimeError(
            f"compile: torch's compiler failed: {_gist(error)} It needs a C++ compiler (g++) and, "
            "for a GPU, Triton; `compile: false` does without."
        ) from error


def _gist(error: Exception) -> str:
    """Return the first sentence of torch's account, which goes on for pages."""
    first, *_ = str(error).strip().splitlines()
    return first if first.endswith(".") else f"{first}."
