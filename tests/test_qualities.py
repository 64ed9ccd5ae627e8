"""`quality` on both backends with tiny random networks: what it changes, and what the job says."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from deployments.core.checkpoints import Checkpoint, GenerationConfig
from deployments.core.config import ModelConfig
from deployments.core.events import Decoded, Frames, Notice, Step
from deployments.core.spec import VideoSpec
from deployments.mochi import Mochi
from deployments.opensora import OpenSora
from tests.pretended_memory import PretendedMemory
from tests.test_mochi import CONFIG, GENERATION, checkpoint, spec
from tests.test_placement import CARD, SPEC, TEXT, Network, placer
from tests.tiny_opensora import tiny_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:In CPU autocast")

EVERYTHING = 1e9
DISTILLED = GENERATION.model_copy(
    update={
        "num_inference_steps": 4,
        "guidance_scale": 1.5,
        "threshold_noise": 0.1,
        "linear_steps": 3,
    }
)


@pytest.fixture(scope="module", autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def draft_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same networks with other weights and a schedule of their own, as if distilled."""
    copy = tmp_path_factory.mktemp("checkpoints") / "mochi-distilled"
    shutil.copytree(folder, copy)
    transformer = loaded(folder)._parts.transformer
    with torch.no_grad():
        transformer.proj_out.bias.add_(0.5)
    transformer.save_pretrained(copy / "transformer")
    return copy


@pytest.fixture(scope="module")
def model(folder: Path, draft_folder: Path) -> Mochi:
    draft = checkpoint(draft_folder, DISTILLED)
    return loaded(folder, draft=draft)


def loaded(folder: Path, draft: Checkpoint | None = None) -> Mochi:
    made = Mochi(CONFIG, checkpoint(folder).model_copy(update={"draft": draft}), "cpu")
    made.load()
    return made


def made_by(model: Mochi | OpenSora, spec: VideoSpec) -> tuple[Frames, list[str], int]:
    """Return the frames, what the job said, and the number of steps."""
    events = list(model.generate(spec, None))
    runs = [event.frames for event in events if isinstance(event, Decoded)]
    notices = [event.text for event in events if isinstance(event, Notice)]
    return np.concatenate(runs), notices, sum(isinstance(event, Step) for event in events)


def test_a_fast_video_says_what_it_left_out_and_leaves_no_trace(model: Mochi) -> None:
    """Exact, fast, exact: the third is the first, and the second is neither."""
    exact, said, _ = made_by(model, spec())
    assert said == []
    fast, said, steps = made_by(model, spec(quality="fast", fast_threshold=EVERYTHING))
    assert said == [f"Fast: 4 of 6 passes reused most of the last one (threshold {EVERYTHING})."]
    assert steps == 3
    assert not np.array_equal(fast, exact)
    assert np.array_equal(made_by(model, spec())[0], exact)


def test_a_fast_clip_in_segments_counts_all_its_passes(tmp_path: Path) -> None:
    """One sentence for the job; each segment makes its first passes in full."""
    tiny_pipeline().save_pretrained(tmp_path / "opensora")
    generation = GenerationConfig(
        native_area=64 * 64, max_frames=9, num_inference_steps=3, guidance_scale=4.0
    )
    at = Checkpoint(
        source=str(tmp_path / "opensora"), label="tiny", bundled=False, generation=generation
    )
    model = OpenSora(ModelConfig(name="opensora", cpu_threads=1), at, "cpu")
    model.load()
    changes = {"model": "opensora", "generated_frames": 5, "segments": 2, "num_frames": 9}
    asked = spec(**changes, quality="fast", fast_threshold=EVERYTHING)
    frames, said, steps = made_by(model, asked)
    # Two passes a step, three with the first frame of the second segment; first steps are full.
    assert said[-1:] == [
        f"Fast: 10 of 15 passes reused most of the last one (threshold {EVERYTHING})."
    ]
    assert (len(frames), steps) == (9, 6)


def test_a_draft_is_made_by_the_draft_checkpoint(
    model: Mochi, folder: Path, draft_folder: Path
) -> None:
    """With its transformer and schedule; other qualities do not notice it."""
    asked = spec(quality="draft", num_inference_steps=4, guidance_scale=1.5)
    draft, said, steps = made_by(model, asked)
    assert said == ["Draft: 4 steps of mochi-distilled."]
    assert steps == 4
    alone = Mochi(CONFIG, checkpoint(draft_folder, DISTILLED), "cpu")
    alone.load()
    exact = asked.model_copy(update={"quality": "exact"})
    assert np.array_equal(made_by(alone, exact)[0], draft)
    assert np.array_equal(made_by(model, exact)[0], made_by(loaded(folder), exact)[0])


def test_the_card_has_the_draft_checkpoints_settings(folder: Path, draft_folder: Path) -> None:
    """Without one, drafts take fewer steps of the checkpoint itself, where it says how many."""
    at = checkpoint(folder).model_copy(update={"draft": checkpoint(draft_folder, DISTILLED)})
    card = Mochi.card(CONFIG, at)
    assert (card.draft_steps, card.draft_guidance_scale) == (4, 1.5)
    assert card.draft_checkpoint == "mochi-distilled"
    assert Mochi.card(CONFIG, checkpoint(folder)).qualities == ("exact",)


def test_a_draft_checkpoint_of_other_networks_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its transformer would not fit text, latents or the memory plan."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = other / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))
    with pytest.raises(ValueError, match=r"its transformer has num_layers 3, .* 2; it has to be"):
        loaded(folder, draft=checkpoint(other, DISTILLED))


@dataclass(frozen=True)
class Parts:
    transformer: Network = field(default_factory=Network)
    vae: Network = field(default_factory=Network)
    text_encoder: Network = field(default_factory=Network)
    text_encoder_2: Network = field(default_factory=Network)


def test_a_drafter_takes_its_turn_on_the_gpu() -> None:
    """Never both transformers at once; between jobs the main one is there and the other is not."""
    parts, drafter = Parts(), Network()
    assert set(TEXT) <= vars(parts).keys()
    with placer(PretendedMemory(40)).job(SPEC, CARD, parts, drafter) as job:
        assert parts.transformer.places == ["cpu"]
        assert job.take("transformer") is drafter
        job.take("vae")
        assert (parts.transformer.places, drafter.places) == (["cpu"], ["gpu"])
    assert (parts.transformer.places[-1], drafter.places[-1]) == ("gpu", "cpu")
