"""Memory of Mochi's decode against the clip's length: in time chunks, and diffusers' one pass.

    python -m benchmarks.decode_memory [--frames 19 67 163] [--side 64]

A decoder of medium size with random weights on the CPU. Each case runs in a process of its own, and
the growth of its resident memory from before the decode to the peak is what counts. Compare the
ratios: they carry over to the full-size decoder, the megabytes do not.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKLMochi

from deployments.models.mochi1.decode import decode, to_uint8

FRAMES_PER_LATENT, PIXELS_PER_LATENT = 6, 8
STATUS = Path("/proc/self/status")


def medium_vae() -> AutoencoderKLMochi:
    """Return a VAE with a quarter of the channels of the published one."""
    torch.manual_seed(0)
    return AutoencoderKLMochi(
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 64, 128, 192),
        layers_per_block=(1, 1, 1, 1, 1),
        add_attention_block=(False,) * 5,
    ).eval()


def resident_kib(field: str) -> int:
    """Return VmRSS (now) or VmHWM (peak) of this process."""
    found = re.search(rf"{field}:\s+(\d+)", STATUS.read_text())
    return int(found[1]) if found else 0


def measure(way: str, num_frames: int, side: int) -> tuple[float, float]:
    """Decode one clip; return the growth of resident memory in MiB, and the seconds."""
    torch.set_num_threads(1)
    vae = medium_vae()
    num_latents = (num_frames - 1) // FRAMES_PER_LATENT + 1
    small = side // PIXELS_PER_LATENT
    latents = torch.randn(1, vae.config.latent_channels, num_latents, small, small)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
    before, began = resident_kib("VmRSS"), time.perf_counter()
    if way == "chunks":
        for frames in decode(vae, latents):
            to_uint8(frames)
    else:
        with torch.no_grad():
            to_uint8(vae.decode(latents).sample)
    return (resident_kib("VmHWM") - before) / 2**10, time.perf_counter() - began


def in_a_fresh_process(way: str, num_frames: int, side: int) -> tuple[float, float]:
    """Run `measure` where nothing has been allocated before."""
    case = ["--case", way, str(num_frames), "--side", str(side)]
    command = [sys.executable, "-m", "benchmarks.decode_memory", *case]
    # Freed tensors go back to the system at once; else the allocator's leftovers are counted.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    growth, seconds = done.stdout.split()[-2:]
    return float(growth), float(seconds)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[19, 67, 163])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--case", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.case:
        way, num_frames = options.case
        print(*measure(way, int(num_frames), options.side))
        return
    print("frames   chunks MiB   ratio   one pass MiB   ratio   one pass / chunks   seconds")
    first: tuple[float, float] | None = None
    for num_frames in options.frames:
        chunks, chunks_s = in_a_fresh_process("chunks", num_frames, options.side)
        whole, whole_s = in_a_fresh_process("one-pass", num_frames, options.side)
        first = first or (chunks, whole)
        print(
            f"{num_frames:<8} {chunks:10.0f} {chunks / first[0]:7.2f} {whole:14.0f}"
            f" {whole / first[1]:7.2f} {whole / chunks:19.1f} {chunks_s:5.1f} / {whole_s:.1f}"
        )


if __name__ == "__main__":
    main()
