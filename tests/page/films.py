"""Real clips for the tests of the page: scenes of the demo checkpoints' world, drawn small."""

import contextlib
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

from deployments.core import outputs
from deployments.core.config import ServiceConfig
from deployments.core.service import Submission, new_job_id
from deployments.core.spec import ModelCard, VideoRequest
from tests.scripted_jobs import MOCHI, OPENSORA, ScriptedJobs, replica
from training.captions import caption
from training.render import render
from training.scenes import draw_scene, draw_thing

EXAMPLES = (
    "a red ball moving right over the sea at sunset",
    "A serene lake at sunset with mountains in the background",
    "a yellow triangle bouncing over the sea at night",
)


class Film:
    """A short clip, its first frame, and what it shows in words."""

    def __init__(
        self,
        background: str,
        width: int,
        height: int,
        num_frames: int = 48,
        fps: int = 24,
        thing: tuple[str, str, str] | None = None,
    ) -> None:
        self.width, self.height = width, height
        self.num_frames, self.fps = num_frames, fps
        rng = np.random.default_rng(11)
        moving = draw_thing(rng, *thing) if thing else None
        scene = draw_scene(rng, background=background, sky="sunset", thing=moving)
        self.prompt = caption(rng, scene)
        frames = (render(scene, height, width, num_frames) * 255).astype(np.uint8)
        self.mp4 = _encoded(frames, fps)
        poster = io.BytesIO()
        Image.fromarray(frames[0]).save(poster, "WEBP", quality=90)
        self.poster = poster.getvalue()
        self.last = frames[-1].astype(float)
        small = io.BytesIO()
        middle = Image.fromarray(frames[len(frames) // 2])
        middle.resize((width // 16, height // 16)).save(small, "JPEG")
        self.preview = small.getvalue()


def _encoded(frames: np.ndarray, fps: int) -> bytes:
    _, height, width, _ = frames.shape
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    command += ["-pix_fmt", "yuv420p", "-preset", "ultrafast", "-threads", "1"]
    command += ["-movflags", "frag_keyframe+empty_moov", "-f", "mp4", "-"]
    done = subprocess.run(command, input=frames.tobytes(), capture_output=True, check=True)
    return done.stdout


class FilmJobs(ScriptedJobs):
    """Scripted jobs whose videos are films with posters; jobs are held until a test ends them."""

    def __init__(
        self, config: ServiceConfig, film: Film, cards: Sequence[ModelCard] = (MOCHI, OPENSORA)
    ) -> None:
        # The first with examples: the others have the bare card of the tests.
        first = cards[0].model_copy(update={"example_prompts": EXAMPLES})
        super().__init__(config, [first, *cards[1:]])
        self.replicas = tuple(replica(model=card.name) for card in cards)
        self.hold = True
        self.film = film
        self.video = film.mp4

    def finish(self, job_id: str) -> None:
        """Complete the job with the film of the moment."""
        self.video = self.film.mp4
        super().finish(job_id)
        name = self.jobs[job_id].file_name
        assert name is not None
        poster, _ = outputs.picture_paths(Path(self.config.outputs_dir) / name)
        outputs.write_whole(poster, self.film.poster)

    def add(self, prompt: str = "a red ball", **fields: object) -> str:
        """Have a job begun by somebody else."""
        given = {"width": self.film.width, "height": self.film.height, "seed": 7, "fps": 24}
        given |= {"num_frames": self.film.num_frames, "prompt": prompt} | fields
        job_id = new_job_id()
        request = VideoRequest.model_validate(given)
        submitted = self.submit(Submission(job_id=job_id, request=request))
        # It waits for nothing, and Playwright's loop is already running in this thread.
        with contextlib.suppress(StopIteration):
            submitted.send(None)
        return job_id

    def foresee(self, job_id: str, step: int) -> None:
        """Show how the film will be, as a model would on its way."""
        self.preview(job_id, step, self.film.preview)

    def queue(self, job_id: str, position: int) -> None:
        """Put the job back into the queue."""
        self.set(
            job_id,
            status="queued",
            phase="queued",
            progress=0,
            step=0,
            num_steps=0,
            queue_position=position,
        )
