"""Seconds from `serve run` to the first 200 and to the first model ready, and the memory of each
replica."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import yaml

from benchmarks.running import ROOT, free_port, print_table, replicas_memory, wait_until_ready


def main() -> None:
    """Print the table and one JSON line."""
    # Undoes an ignored SIGINT, which the child would inherit: it is how the service is stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    port = free_port()
    with TemporaryDirectory() as folder:
        config = yaml.safe_load((ROOT / "config/serve.yaml").read_text())
        config["http_options"]["port"] = port
        args = config["applications"][0]["args"]
        args["outputs_dir"], args["state_dir"] = f"{folder}/outputs", f"{folder}/state"
        path = Path(folder) / "serve.yaml"
        path.write_text(yaml.safe_dump(config))
        command = [str(Path(sys.executable).with_name("serve")), "run", str(path)]
        environment = {
            **os.environ,
            "RAY_ADDRESS": "local",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for_answer(f"http://127.0.0.1:{port}/health")
            answers = time.monotonic() - began
            wait_until_ready(f"http://127.0.0.1:{port}", 1)
            ready = time.monotonic() - began
            memory = replicas_memory()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
    print_table(["until", "seconds"], [["first 200", f"{answers:.1f}"], ["ready", f"{ready:.1f}"]])
    print_table(["replica", "PSS, MiB"], [[n, f"{mb:.0f}"] for n, mb in sorted(memory.items())])
    print(json.dumps({"first_200_s": round(answers, 1), "ready_s": round(ready, 1)}))


def wait_for_answer(url: str) -> None:
    """Return when `url` answers 200."""
    while True:
        try:
            if httpx.get(url, timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.1)


if __name__ == "__main__":
    main()
