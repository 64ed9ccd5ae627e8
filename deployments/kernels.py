"""By which routines a model's transformer computes: the attention back end, and compiled blocks.

torch is imported inside methods only.
"""

from collections.abc import Callable
from typing import Any

from deployments.core.config import UNCOMPILED_WEIGHTS, ModelConfig


class Kernels:
    """What `attention` and `compile` in the config ask for.

    Args:
        device: "cpu", or "cuda" for the first GPU that this process sees.
    """

    def __init__(self, config: ModelConfig, device: str) -> None:
        self._attention, self._compile, self._device = config.attention, config.compile, device

    def check(self, stored: str) -> None:
        """Refuse what cannot work, before any weights are loaded.

        Args: stored: how the transformer's weights will be, see `weights` in the config.
        Raises: ValueError: it names the setting, and what would do.
        """
        if self._compile and stored in UNCOMPILED_WEIGHTS:
            raise ValueError(
                f"compile: the GPU's free memory calls for {stored} weights, which do not go with "
                "compiled blocks; set weights to int8 or nf4, or compile to false"
            )
        if self._attention != "native":
            from deployments.models.attention_backends import check_backend

            check_backend(self._attention, self._device)

    def use(self, transformer: Any, warm_up: Callable[[Any], None], *, rests_on_cpu: bool) -> None:
        """Let a loaded transformer compute so.

        Args:
            warm_up: runs passes through it, so that all is compiled before the first job.
            rests_on_cpu: whether it lies there between jobs.

        Raises: RuntimeError: the compiler failed.
        """
        if self._attention != "native":
            transformer.set_attention_backend(self._attention)
        if not self._compile:
            return
        from deployments.models.compiling import compile_blocks
        from deployments.models.weight_modes import move

        move(transformer, self._device)
        compile_blocks(transformer, lambda: warm_up(transformer))
        if rests_on_cpu:
            move(transformer, "cpu")
