"""Sessions of a browser: signed, bound to a key, good across restarts."""

import stat
import threading
from pathlib import Path

import pytest

from deployments.core import sessions
from deployments.core.config import ServiceConfig
from deployments.core.keys import Keyring, digest
from deployments.core.sessions import SECRET_FILE, Sessions


def ring(**names: str) -> Keyring:
    keys = [{"name": name, "sha256": digest(key)} for name, key in names.items()]
    return Keyring(ServiceConfig(api_keys=keys))


def opened(keys: Keyring, folder: Path, key: str = "one") -> tuple[Sessions, str]:
    found = Sessions(keys, folder)
    entry = keys.owner_of(key)
    assert entry is not None
    return found, found.open(entry)


def test_a_session_is_known_again_also_after_a_restart(tmp_path: Path) -> None:
    """The secret lies in the state folder, for our user alone."""
    first, token = opened(ring(ada="one"), tmp_path)
    assert first.caller_of(token) == "ada"
    assert Sessions(ring(ada="one"), tmp_path).caller_of(token) == "ada"
    assert stat.S_IMODE((tmp_path / SECRET_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]


def test_a_session_ends_with_its_key(tmp_path: Path) -> None:
    """Also when the name has another key by now."""
    _, token = opened(ring(ada="one"), tmp_path)
    assert Sessions(ring(bob="two"), tmp_path).caller_of(token) is None
    assert Sessions(ring(ada="new"), tmp_path).caller_of(token) is None
    assert Sessions(ring(ada="one"), tmp_path).caller_of(token) == "ada"


def test_a_session_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After its thirty days."""
    monkeypatch.setattr(sessions, "LASTS_S", -1)
    found, token = opened(ring(ada="one"), tmp_path)
    assert found.caller_of(token) is None


def test_a_session_cannot_be_made_or_changed_without_the_secret(tmp_path: Path) -> None:
    """Neither its caller nor its end."""
    found, token = opened(ring(ada="one", bob="two"), tmp_path)
    name, until, mac = token.split("|")
    for forged in (
        f"bob|{until}|{mac}",
        f"{name}|{int(until) + 1}|{mac}",
        f"{name}|{until}|{'0' * 64}",
        f"{name}|{until}",
        "",
        "|" * 200,
        f"{name}|{'9' * 5000}|{mac}",
    ):
        assert found.caller_of(forged) is None, forged
    other, _ = opened(ring(ada="one", bob="two"), tmp_path / "other")
    assert other.caller_of(token) is None


def test_replicas_that_start_at_once_have_one_secret(tmp_path: Path) -> None:
    """Whoever comes second reads what is there."""
    keys = ring(ada="one")
    found: list[Sessions] = []
    threads = [
        threading.Thread(target=lambda: found.append(Sessions(keys, tmp_path))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = keys.owner_of("one")
    assert entry is not None
    token = found[0].open(entry)
    assert [one.caller_of(token) for one in found] == ["ada"] * 8
    assert [path.name for path in tmp_path.iterdir()] == [SECRET_FILE]


def test_a_damaged_secret_is_not_used(tmp_path: Path) -> None:
    """An empty one would let anybody sign."""
    (tmp_path / SECRET_FILE).write_bytes(b"")
    with pytest.raises(ValueError, match="damaged"):
        Sessions(ring(ada="one"), tmp_path)
