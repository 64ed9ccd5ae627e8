"""Sessions of a browser: what a page has in its cookie in place of the key.

Signed, not stored: the ingress needs no database, and a session outlives a restart, because the
secret lies in `state_dir`. It counts until it expires or its key is removed.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import time
from pathlib import Path

from deployments.core.config import ApiKey
from deployments.core.keys import Keyring

LASTS_S = 30 * 24 * 3600
SECRET_FILE = "session.secret"  # noqa: S105  a file name
TOKEN = re.compile(r"(?P<name>.+)\|(?P<until>[0-9]{1,12})\|(?P<mac>[0-9a-f]{64})", re.ASCII)


class Sessions:
    """Opens sessions and knows them again.

    Args: state_dir: where the secret lies, and is made at the first use.
    """

    def __init__(self, keys: Keyring, state_dir: Path) -> None:
        self._keys = keys
        self._secret = _secret(state_dir / SECRET_FILE)

    def open(self, key: ApiKey) -> str:
        """Return the token of a new session of `key`, which lasts `LASTS_S` seconds."""
        until = int(time.time()) + LASTS_S
        return f"{key.name}|{until}|{self._mac(key, until)}"

    def caller_of(self, token: str) -> str | None:
        """Return whose session it is, None when it has expired, its key is gone, or it is none."""
        if (parts := TOKEN.fullmatch(token)) is None or int(parts["until"]) < time.time():
            return None
        until, given = int(parts["until"]), parts["mac"]
        keys = self._keys.named(parts["name"])
        if any(hmac.compare_digest(self._mac(key, until), given) for key in keys):
            return parts["name"]
        return None

    def _mac(self, key: ApiKey, until: int) -> str:
        # Over the key's digest: without that key the session is nobody's.
        signed = f"{key.name}|{until}|{key.sha256}".encode()
        return hmac.new(self._secret, signed, hashlib.sha256).hexdigest()


def _secret(path: Path) -> bytes:
    """Return the secret in `path`, which is made, for our user alone, if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Whole or not at all, and never twice: two replicas may start at once.
        handle, written = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(written, path)
        Path(written).unlink()
    found = path.read_bytes()
    if len(found) < 32:
        raise ValueError(f"{path} is damaged; remove it, and everybody logs in again")
    return found
