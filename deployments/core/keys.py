"""API keys: who may call, known by the digests of their keys.

A key is 256 random bits, so a plain SHA-256 is right: slow hashes protect what people can think of,
and nobody guesses this. For the same reason a wrong key is not slowed down: a delay would guard
nothing, and hold a place in the service for every stranger who asks for one.
"""

import hashlib
import hmac
import re
import secrets
from pathlib import Path

from pydantic import ValidationError

from deployments.core.config import ApiKey, ServiceConfig
from deployments.core.log import logger

LINE = re.compile(r"\s*(?P<name>[^\s:#]+)\s*:\s*(?P<sha256>\S+)\s*")
PREFIX = "vs_"


def new_key() -> str:
    """Return a key that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return what the config keeps of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def config_entry(name: str, key: str) -> ApiKey:
    """Return what the config holds of a key. Raises: ValueError: `name` cannot be a name."""
    try:
        return ApiKey(name=name, sha256=digest(key))
    except ValidationError:
        raise ValueError(
            f"{name!r} cannot be a key's name: up to 64 letters, digits, dots, dashes and "
            "underscores, the first one a letter or a digit"
        ) from None


class Keyring:
    """The keys of the config and of its file, which is read again when it has changed.

    Raises: ValueError: the file cannot be read; the message names the line.
    """

    def __init__(self, config: ServiceConfig) -> None:
        self._configured = config.api_keys
        self._file = Path(config.api_keys_file) if config.api_keys_file else None
        self._seen = self._stamp()
        self._from_file = _read(self._file) if self._file else ()

    def __len__(self) -> int:
        return len(self._entries())

    @property
    def required(self) -> bool:
        """Whether a caller needs a key: there are some, or a file for them, which may be empty."""
        return bool(self._configured or self._file)

    def owner_of(self, key: str) -> ApiKey | None:
        """Return the entry of a key, None for one that is not known."""
        given, found = digest(key), None
        for entry in self._entries():  # all of them, whichever fits: the time taken tells nothing
            if hmac.compare_digest(entry.sha256, given):
                found = entry
        return found

    def named(self, name: str) -> list[ApiKey]:
        """Return the entries of a caller: two while one key replaces another."""
        return [entry for entry in self._entries() if entry.name == name]

    def _entries(self) -> list[ApiKey]:
        if self._file is not None and (stamp := self._stamp()) != self._seen:
            self._seen = stamp
            try:
                self._from_file = _read(self._file)
            except ValueError as error:
                # Half an edit must not lock everybody out; nor may it let anybody in.
                logger.error("%s; the keys stay as they were", error)  # noqa: TRY400  a sentence
            else:
                logger.info("api_keys_file: %d keys", len(self._from_file))
        return [*self._configured, *self._from_file]

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes with the file: looked at with every request, a few microseconds."""
        if self._file is None:
            return None
        try:
            stat = self._file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _read(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys in a file of lines `name:sha256`. Raises: ValueError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"api_keys_file: {path} cannot be read: {error}") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            found.append(ApiKey.model_validate(_named(line)))
        except ValueError:
            where = f"api_keys_file: line {number} of {path}"
            raise ValueError(
                f"{where} is not NAME:SHA256, a name of letters, digits, dots, dashes and "
                "underscores, and 64 hexadecimal digits; `video-service new-key NAME` prints one"
            ) from None
    return tuple(found)


def _named(line: str) -> dict[str, str]:
    if (parts := LINE.fullmatch(line)) is None:
        raise ValueError("no colon")
    return parts.groupdict()
