"""`make serve`: start `serve run` on a chosen port, say where the service is, and end when a
deploy fails.

`serve run` itself takes the port from the YAML only, and stays up with every path a 404 when the
first deploy fails. So this program writes a copy of the config where the port differs, watches the
status, and passes Ctrl-C on.
"""

import argparse
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DASHBOARD_LINE = re.compile(r"(?:dashboard at|Dashboard:?)\s+\S*?(127\.0\.0\.1:\d+)", re.IGNORECASE)
TOKEN_FILE = Path("~/.ray/auth_token")
DEPLOY_TIMEOUT_S = 300
STOP_TIMEOUT_S = 30
# Serve takes its HTTP proxy for dead after three failed looks, 10 s apart by its default: half a
# minute without an answer. The operator's own environment has the last word.
PATIENCE = {"RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2"}


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make serve", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("config/serve.yaml"))
    parser.add_argument("--port", type=int, default=None, help="overrides the config's port")
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    host = config["http_options"]["host"]
    port = options.port or config["http_options"]["port"]
    path = config_with_port(options.config, config, port)
    if reason := port_in_use(host, port):
        say(f"{reason}\nPORT=18123 make serve takes another port.")
        return 1
    return Service(path, host, port).run()


def config_with_port(path: Path, config: dict[str, Any], port: int) -> Path:
    """Return `path`, or a copy of it with another port, saying so."""
    if config["http_options"]["port"] == port:
        return path
    config["http_options"]["port"] = port
    copy = path.with_suffix(f".{port}.local.yaml")
    copy.write_text(f"# A copy of {path.name} with port {port}.\n{yaml.safe_dump(config)}")
    say(f"Port {port} instead of the config's own: wrote {copy}")
    return copy


def port_in_use(host: str, port: int) -> str:
    """Return why the port cannot be taken, or ""."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return f"Cannot listen on {host}:{port}: {error.strerror}."
    return ""


class Service:
    """A running `serve run`, watched until it ends."""

    def __init__(self, config: Path, host: str, port: int) -> None:
        self._config = config
        shown = "127.0.0.1" if host == "0.0.0.0" else host  # noqa: S104  compared, not bound
        self._url = f"http://{shown}:{port}"
        self._dashboard = ""
        self._failed = False

    def run(self) -> int:
        """Start, watch, and return the exit status: 0 after Ctrl-C, 1 when the deploy failed."""
        environment = {
            **PATIENCE,
            **os.environ,
            "RAY_ADDRESS": "local",  # a stale cluster of somebody else is never picked up
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray's own ports stay on the loopback
            "PYTHONUNBUFFERED": "1",
        }
        command = [str(Path(sys.executable).with_name("serve")), "run", str(self._config)]
        # A script's background job ignores SIGINT, and the child would inherit that; a signal that
        # has a handler is reset to its default in the child.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # A session of its own: Ctrl-C reaches it once, from us, and not twice.
        self._child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        signal.signal(signal.SIGINT, lambda *_: self._stop())
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        threading.Thread(target=self._watch, daemon=True).start()
        passing_on = threading.Thread(target=self._pass_on, daemon=True)
        passing_on.start()
        code = self._child.wait()
        # Ray's daemons hold the pipe a while longer than `serve run` lives: do not wait for them.
        passing_on.join(timeout=1)
        return 1 if self._failed else abs(code)

    def _pass_on(self) -> None:
        """Copy the child's output to ours, and pick the dashboard's address out of it."""
        for line in self._child.stdout or ():
            if found := DASHBOARD_LINE.search(line):
                self._dashboard = found.group(1)
            sys.stdout.write(line)
            sys.stdout.flush()

    def _watch(self) -> None:
        """Say when the service answers; end it when its deploy fails."""
        deadline = time.monotonic() + DEPLOY_TIMEOUT_S
        while self._child.poll() is None and time.monotonic() < deadline:
            if health := fetch_json(f"{self._url}/health"):
                say(self._welcome(health))
                return
            for name, cause in self._failed_applications():
                say(f"\nThe deploy of {name!r} failed:\n{cause}\n")
                self._failed = True
                self._stop()
                return
            time.sleep(0.5)

    def _welcome(self, health: dict[str, Any]) -> str:
        return (
            f"\n  Page        {self._url}/\n"
            f"  API         {self._url}/docs\n"
            f"  Dashboard   http://{self._dashboard or '127.0.0.1:8265'}/"
            f"   (token: {Path(sys.executable).with_name('ray')} get-auth-token)\n"
            f"  Health      {health.get('status')}: {health.get('message')}\n"
            "  Ctrl-C stops it; waiting and running jobs go on at the next start.\n"
        )

    def _failed_applications(self) -> Iterator[tuple[str, str]]:
        """Ask the dashboard, which answers before the service does, how the deploy stands."""
        if not self._dashboard:
            return
        token = TOKEN_FILE.expanduser()
        headers = (
            {"Authorization": f"Bearer {token.read_text().strip()}"} if token.is_file() else {}
        )
        answer = fetch_json(f"http://{self._dashboard}/api/serve/applications/", headers)
        for name, application in (answer or {}).get("applications", {}).items():
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                yield name, str(application.get("message", ""))

    def _stop(self) -> None:
        """Ask for a clean shutdown; SIGTERM would skip it. Then insist."""
        if self._child.poll() is None:
            self._child.send_signal(signal.SIGINT)
            insist = threading.Timer(STOP_TIMEOUT_S, self._child.kill)
            insist.daemon = True
            insist.start()


def fetch_json(url: str, headers: dict[str, str] | None = None) -> dict[str, Any] | None:
    """Return the JSON object at `url`, or None while nothing useful answers. 503 counts."""
    request = urllib.request.Request(url, headers=headers or {})  # noqa: S310  our own http URLs
    # Not through a proxy that the environment may name: it does not know this machine's loopback.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            found = json.load(error)
        except ValueError:
            return None
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return found if isinstance(found, dict) else None


def say(text: str) -> None:
    """Write a line for the person at the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
