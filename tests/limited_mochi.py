"""Mochi on a pretended GPU whose allocator, `ALLOCATOR`, can be told to run out of memory."""

from deployments.mochi import Mochi
from tests.allocator_limit import AllocatorLimit, on_limited_gpu

ALLOCATOR = AllocatorLimit()
BACKEND = on_limited_gpu(Mochi, ("text_encoder",), ALLOCATOR)
