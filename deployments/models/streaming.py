"""Run a network with its weights in the host's memory, a block at a time on the GPU, and undo it.

diffusers 0.42.1 turns this on (`enable_group_offload`) and has no public way to rest or to turn it
off again; the names of its hooks stand here only.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from diffusers.hooks import HookRegistry

from deployments.models.blocks import blocks_of

# diffusers 0.42.1 hooks/group_offloading.py
HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
# Of the host's memory, what other processes keep: frames on their way, the encoder, the system.
HOST_RESERVE_BYTES = 2 * 2**30


def stream(network: Any, device: str, *, page_locked: bool = False) -> None:
    """Have `network`, which is on the CPU, bring each block to `device` while it works.

    On a GPU the next block is brought while one works. The results are the same, bit for bit.

    Args:
        page_locked: lock the blocks in the host's memory for good, where `lockable` allows it;
            else each block is locked as it is brought, which takes the CPU's time at every pass.
            What is outside of the blocks is brought without a stream, from where it lies.
    """
    on_gpu = device != "cpu"
    if page_locked and on_gpu:
        # One by one: diffusers would hold all of them twice meanwhile.
        for block in blocks_of(network):
            for tensor in (*block.parameters(), *block.buffers()):
                tensor.data = tensor.data.pin_memory()
    network.enable_group_offload(
        onload_device=device,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=on_gpu,
        # With it the host would run ahead of the GPU, and bring block after block before the
        # memory of those that have worked is free.
        record_stream=False,
        low_cpu_mem_usage=not page_locked,
    )


def lockable(sizes: Sequence[int], free_bytes: int) -> bool:
    """Return whether tensors of these sizes can be locked in the host's memory; see `stream`.

    torch rounds what it locks up to powers of two: pytorch 2.13
    aten/src/ATen/core/CachingHostAllocator.h (allocate).

    Args:
        sizes: in bytes.
        free_bytes: the host's memory before they are loaded.

    Raises: MemoryError: they do not even fit as they are.
    """
    locked = sum(1 << (size - 1).bit_length() for size in sizes if size)
    if sum(sizes) + HOST_RESERVE_BYTES > free_bytes:
        needed, has = ((sum(sizes) + HOST_RESERVE_BYTES) / 2**30, free_bytes / 2**30)
        raise MemoryError(
            f"streamed weights rest in the host's memory: they need {needed:.1f} GB of it, and "
            f"{has:.1f} GB are free"
        )
    return locked + HOST_RESERVE_BYTES <= free_bytes


def is_streamed(network: Any) -> bool:
    """Whether `stream` was called on `network`, and not `end_streaming` since."""
    return next(_groups(network), None) is not None


def rest(network: Any) -> None:
    """Have all weights of a streamed network in the host's memory, wherever a pass broke off."""
    for group in _groups(network):
        group.offload_()
        # With a GPU's streams buffers are brought to it, and not put back.
        for tensor, at_rest in group.cpu_param_dict.items():
            tensor.data = at_rest
    tracer = network._diffusers_hook.get_hook(HOOKS[2])
    if tracer is not None:
        # The first pass, which finds the order of the blocks, is to be begun anew.
        tracer.execution_order.clear()


def end_streaming(network: Any) -> None:
    """Undo `stream`, wherever a pass broke off: all weights are on the CPU, and none moves.

    A network that is not streamed is left as it is.
    """
    if not is_streamed(network):
        return
    rest(network)
    registry = HookRegistry.check_if_exists_or_initialize(network)
    for hook in HOOKS:
        registry.remove_hook(hook, recurse=True)


def _groups(network: Any) -> Iterator[Any]:
    """Yield what is brought and put back together: each block, and all that is outside of them."""
    for module in network.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = None if registry is None else registry.get_hook(HOOKS[0])
        if hook is not None:
            yield hook.group
