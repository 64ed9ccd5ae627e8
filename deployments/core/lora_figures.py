"""What LoRA adds to the memory plan of a model: the plan's formulas count it with the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.core.loras import LoraFile, Stock
from deployments.core.networks.model import Activations, Clip, Counts, ModelFigures, Work
from deployments.core.spec import Lora, VideoSpec


@dataclass(frozen=True)
class WithLoras:
    """A model's figures with LoRA files in its transformer; see `ModelFigures`."""

    figures: ModelFigures
    files: tuple[LoraFile, ...]

    def counts(self) -> Counts:
        """Return the sizes of the networks; LoRA keeps its dtype whatever the weights' is."""
        counts = self.figures.counts()
        added = sum(file.num_parameters for file in self.files)
        in_block = counts.in_block * added // (counts.transformer - counts.outside_blocks)
        return replace(
            counts,
            transformer=counts.transformer + added,
            in_block=counts.in_block + in_block,
            kept_from_fp8=counts.kept_from_fp8 + added,
        )

    def activations(
        self, clip: Clip, itemsize: int, *, low_vram: bool, conditioned: bool
    ) -> Activations:
        """Return what each phase takes; only denoising knows of LoRA."""
        alive = self.figures.activations(clip, itemsize, low_vram=low_vram, conditioned=conditioned)
        widest = max(file.widest for file in self.files)
        return replace(alive, denoise=alive.denoise + self.lora_bytes(clip, itemsize, widest))

    def lora_bytes(self, clip: Clip, itemsize: int, widest: int) -> int:
        """Return what a pass keeps alive besides; as many as there are, they follow each other."""
        return self.figures.lora_bytes(clip, itemsize, widest)

    def work(self, spec: VideoSpec) -> Work:
        """Return what there is to compute; LoRA is a hundredth of it."""
        return self.figures.work(spec)


def figures_with(
    figures: Mapping[str, ModelFigures], loras: Sequence[Lora], stock: Stock
) -> Mapping[str, ModelFigures]:
    """Return the figures of each model with those of `loras` that its folder holds."""
    if not loras:
        return figures
    names = {lora.name for lora in loras if lora.strength}
    return {
        model: with_files(found, [file for file in stock.get(model, ()) if file.name in names])
        for model, found in figures.items()
    }


def with_files(figures: ModelFigures, files: Sequence[LoraFile]) -> ModelFigures:
    """Return the figures of a model with `files` in its transformer."""
    return WithLoras(figures, tuple(files)) if files else figures
