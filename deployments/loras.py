"""The LoRA files of one loaded model: chosen by name, in its transformer while it denoises.

torch is imported inside methods only.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from deployments.core.errors import InvalidRequest
from deployments.core.lora_figures import with_files
from deployments.core.loras import LoraFolder
from deployments.core.networks.model import ModelFigures
from deployments.core.spec import Lora


class Loras:
    """The files of a model's folder, on the machine of its replica.

    Args: folder: "" for a model without any.
    """

    def __init__(self, folder: str) -> None:
        self._folder = LoraFolder(folder, None)

    def counted(self, figures: ModelFigures, loras: Sequence[Lora]) -> ModelFigures:
        """Return the figures of the model with `loras` in its transformer."""
        names = {one.name for one in loras if one.strength}
        return with_files(figures, [f for f in self._folder.files() if f.name in names])

    @contextmanager
    def active(self, loras: Sequence[Lora], transformer: Any) -> Iterator[None]:
        """Have the transformer compute with `loras`, and as it was afterwards.

        Raises: InvalidRequest: a file is not there, or it does not fit; names it and what is wrong.
        """
        if not loras:
            yield
            return
        from deployments.models import lora

        linears = lora.linears(transformer)
        found = [(one, *self._folder.layers(one, linears)) for one in loras]
        adapters = [lora.Adapter(path, layers, one.strength) for one, path, layers in found]
        with ExitStack() as stack:
            try:
                stack.enter_context(lora.active(transformer, adapters))
            except ValueError as error:
                raise InvalidRequest("loras", str(error)) from error
            yield
