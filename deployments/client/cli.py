"""The command line: `video-service generate "a red ball"`, and what belongs to it.

What a video's fields may hold is the service's to say: they are sent as typed, and its sentence is
shown. Only the path of a finished file goes to stdout; everything else goes to stderr.
"""

import argparse
import os
import sys
import textwrap
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from deployments.client.api import Client, ClientError, Video, state
from deployments.client.progress import downloading, following

DEFAULT_URL = "http://127.0.0.1:8000"
POLL_S = 0.5
# Jobs outlive a restart of the service, which takes about half a minute; so does this client.
PATIENCE_S = 90.0
INTERRUPTED = 130
CONSENT = (
    "I will use this video lawfully. I do not use it to deceive, harm or imitate anyone, and I "
    "answer for what I make."
)
# Option, field of the form, what it takes.
FIELDS = (
    ("--frames", "num_frames", "number of frames"),
    ("--fps", "fps", "frames per second"),
    ("--width", "width", "pixels, a multiple of 8"),
    ("--height", "height", "pixels, a multiple of 8"),
    ("--seed", "seed", "the same seed makes the same video"),
    ("--backend", "prefer_backend", "auto, or a model's name"),
    ("--negative-prompt", "negative_prompt", "what the video should not show"),
    ("--steps", "num_inference_steps", "denoising steps"),
    ("--guidance", "guidance_scale", "how closely the video follows the prompt"),
    ("--quality", "quality", "exact, fast or draft, where the model has it"),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 on errors, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if options.command == "doctor":
            # Imported late: it knows the config and the models, which the other commands do not.
            from deployments.client.doctor import examine

            return examine(options.config, Console(highlight=False, soft_wrap=True))
        if options.command == "new-key":
            return print_new_key(options.name, console)
        # Never an option: whoever may list this machine's processes would read it there.
        key = os.environ.get("VIDEO_SERVICE_KEY", "")
        with Client(getattr(options, "url", "") or default_url(), key) as client:
            return COMMANDS[options.command](client, options, console)
    except ClientError as error:
        _say(console, str(error))
        return 1
    except KeyboardInterrupt:
        _say(console, "Stopped.")
        return INTERRUPTED


def default_url() -> str:
    """Return where the service is, unless --url says so."""
    return os.environ.get("VIDEO_SERVICE_URL") or DEFAULT_URL


def generate(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Make a video and fetch it; Ctrl-C cancels it on the server."""
    target = _checked(options.output)
    fields = {name: value for _, name, _ in FIELDS if (value := getattr(options, name)) is not None}
    if options.low_vram:
        fields["low_vram"] = "true"
    if not (options.lawful_use_consent or _consents(console)):
        raise ClientError(
            "Without your consent nothing is made; --lawful-use-consent says: " + CONSENT
        )
    if options.loras:
        fields["loras"] = ", ".join(options.loras)
    fields |= {"prompt": options.prompt, "lawful_use_consent": "true"}
    try:
        video_id = client.submit(fields, options.image)
    except KeyboardInterrupt:
        _say(console, "Stopped. If the service has taken it, `video-service list` shows it.")
        return INTERRUPTED
    try:
        video = _follow(client, video_id, console)
    except KeyboardInterrupt:
        return _cancel_after_interrupt(client, video_id, console)
    if video.error is not None:
        raise ClientError(f"{video_id}: {state(video)}")
    for notice in video.notices:
        _say(console, notice)
    _say(console, f"{video_id} by {video.model}: {_recipe(video)}, seed {video.seed}")
    return _fetch(client, video, target, console)


def list_videos(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Print a line for each of the newest videos, to stdout."""
    videos = list(client.newest(options.limit))
    sys.stdout.writelines(f"{_line(video)}\n" for video in videos)
    if not videos:
        _say(console, "There are no videos yet.")
    return 0


def cancel(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Stop a video."""
    return 0 if _say_cancelled(client.cancel(options.id), console) else 1


def download(client: Client, options: argparse.Namespace, console: Console) -> int:
    """Fetch the file of a completed video."""
    target = _checked(options.output)
    return _fetch(client, client.get(options.id), target, console)


def print_new_key(name: str, console: Console) -> int:
    """Make an API key: the key goes to stdout, what the config keeps of it to stderr."""
    from deployments.core.keys import config_entry, new_key

    key = new_key()
    try:
        entry = config_entry(name, key)
    except ValueError as error:
        raise ClientError(str(error)) from error
    _say(console, "The key, shown this once; give it to its user:")
    sys.stdout.write(f"{key}\n")
    sys.stdout.flush()
    _say(console, "A line for the api_keys_file:")
    _say(console, f"{entry.name}:{entry.sha256}")
    _say(console, "Or an entry of api_keys in the config:")
    _say(console, f"- {{name: {entry.name}, sha256: {entry.sha256}}}")
    return 0


COMMANDS = {"generate": generate, "list": list_videos, "cancel": cancel, "download": download}


def _follow(client: Client, video_id: str, console: Console) -> Video:
    """Show the progress until the video is done."""
    with following(console) as show:
        heard = time.monotonic()
        while True:
            try:
                video = client.get(video_id)
                heard = time.monotonic()
            except ClientError as error:
                if not error.may_pass:
                    raise
                if time.monotonic() - heard > PATIENCE_S:
                    raise ClientError(
                        f"{error} {video_id} goes on once the service runs."
                    ) from error
                show(None)
            else:
                show(video)
                if video.done:
                    return video
            time.sleep(POLL_S)


def _cancel_after_interrupt(client: Client, video_id: str, console: Console) -> int:
    try:
        _say_cancelled(client.cancel(video_id), console)
    except (ClientError, KeyboardInterrupt) as error:
        reason = f": {error}" if isinstance(error, ClientError) else "."
        _say(console, f"Not cancelled{reason} `video-service cancel {video_id}` does it.")
    return INTERRUPTED


def _say_cancelled(video: Video, console: Console) -> bool:
    """Say what came of a cancellation; returns whether the video is or will be cancelled."""
    if not video.done:
        _say(console, f"{video.id} is being cancelled; it stops within one step.")
        return True
    if video.error is not None and video.error.code == "cancelled":
        _say(console, f"{video.id} is cancelled.")
        return True
    had = f"had already ended: {state(video)}."
    more = f" `video-service download {video.id}` fetches it." if video.video_url else ""
    _say(console, f"{video.id} {had}{more}")
    return False


def _fetch(client: Client, video: Video, target: Path, console: Console) -> int:
    path = target / video.file_name if target.is_dir() else target
    with downloading(console) as seen:
        client.download(video, path, seen)
    sys.stdout.write(f"{path}\n")
    return 0


def _checked(output: Path) -> Path:
    """Refuse a place that cannot be written to before hours are spent on a video."""
    folder = output if output.is_dir() else output.absolute().parent
    if not os.access(folder, os.W_OK):
        reason = "cannot be written to" if folder.is_dir() else "does not exist"
        raise ClientError(f"{output}: the folder {folder} {reason}.")
    return output


def _consents(console: Console) -> bool:
    """Ask, once, where somebody can answer."""
    if not sys.stdin.isatty():
        return False
    _say(console, f"{CONSENT}\nDo you agree? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _line(video: Video) -> str:
    """Return a video as a line of a table."""
    made = datetime.fromtimestamp(video.created_at, UTC).astimezone()
    stands: str = video.status
    if video.status == "in_progress":
        stands = f"{video.phase} {video.progress}%"
    elif video.error is not None and video.error.code == "cancelled":
        stands = "cancelled"
    prompt = textwrap.shorten(video.prompt or "", 60, placeholder=" ...")
    start = f"{video.id}  {made:%Y-%m-%d %H:%M}  {stands:<12}"
    return f"{start}  {video.model:<9} {video.size:<9}  {prompt}"


def _recipe(video: Video) -> str:
    loras = "".join(f", {lora.name}:{lora.strength:g}" for lora in video.loras)
    return f"{video.size}, {video.num_frames} frames at {video.fps} fps{loras}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="video-service", description="Make videos on a running video service."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make a video and fetch it"))
    newest = commands.add_parser("list", help="show the newest videos")
    newest.add_argument("--limit", type=_count, default=20, metavar="COUNT", help="how many: 20")
    stop = commands.add_parser("cancel", help="stop a video")
    stop.add_argument("id", metavar="ID")
    fetch = commands.add_parser("download", help="fetch a finished video")
    fetch.add_argument("id", metavar="ID")
    _add_output(fetch)
    for command in (parser, *(commands.choices[name] for name in COMMANDS)):
        # No default: that of a command would hide what stands before it.
        command.add_argument(
            "--url",
            default=argparse.SUPPRESS,
            help=f"where the service is; else VIDEO_SERVICE_URL, else {DEFAULT_URL}",
        )
    new = commands.add_parser("new-key", help="make an API key, for the service's config")
    new.add_argument("name", metavar="NAME", help="whose it is")
    doctor = commands.add_parser("doctor", help="look at this machine and say what to do")
    doctor.add_argument(
        "--config", type=Path, default=Path("config/serve.yaml"), metavar="FILE", help="the config"
    )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return int(text)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", metavar="PROMPT", help="what the video shows")
    parser.add_argument("--image", type=Path, metavar="FILE", help="the picture it begins with")
    for option, field, takes in FIELDS:
        parser.add_argument(
            option, dest=field, metavar=field.rpartition("_")[2].upper(), help=takes
        )
    parser.add_argument(
        "--lora",
        dest="loras",
        action="append",
        metavar="NAME[:STRENGTH]",
        help="a LoRA file of the model, and how much of it; again for another one",
    )
    parser.add_argument("--low-vram", action="store_true", help="trade speed for GPU memory")
    parser.add_argument(
        "--lawful-use-consent", action="store_true", help=f"do not ask; it says: {CONSENT}"
    )
    _add_output(parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="FILE",
        help="where the MP4 goes, which is replaced; else its own name in this folder",
    )


if __name__ == "__main__":
    sys.exit(main())
