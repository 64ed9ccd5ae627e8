"""API keys: what is kept of them, and the file that is read again."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.core.config import ServiceConfig
from deployments.core.keys import Keyring, digest, new_key


def ring(file: Path | None = None, **names: str) -> Keyring:
    keys = [{"name": name, "sha256": digest(key)} for name, key in names.items()]
    return Keyring(ServiceConfig(api_keys=keys, api_keys_file=str(file or "")))


def write(file: Path, *lines: str) -> None:
    """In a way that is seen, however fast one edit follows another."""
    file.write_text("\n".join(lines))
    os.utime(file, ns=(0, file.stat().st_mtime_ns + len(lines) + 1))


def name_of(keys: Keyring, key: str) -> str | None:
    entry = keys.owner_of(key)
    return entry and entry.name


def test_a_new_key_cannot_be_guessed() -> None:
    """256 bits, and never the same."""
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("vs_") and len(key) == 46 for key in keys)


def test_a_key_is_known_by_its_digest_alone() -> None:
    """The config does not hold the key."""
    keys = ring(ada="one", bob="two")
    assert [name_of(keys, key) for key in ("one", "two", "three", "", digest("one"))] == [
        "ada",
        "bob",
        None,
        None,
        None,
    ]


def test_without_keys_none_is_needed() -> None:
    """As before there were any; an empty file locks everybody out."""
    assert not ring().required
    assert ring(ada="one").required


def test_the_file_adds_keys_and_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Comments and blank lines are left out."""
    file = tmp_path / "keys"
    write(file, "# ours", "", f" bob : {digest('two')} ")
    keys = ring(file, ada="one")
    assert keys.required
    assert (name_of(keys, "one"), name_of(keys, "two")) == ("ada", "bob")
    write(file, f"eve:{digest('three')}")
    assert (name_of(keys, "two"), name_of(keys, "three")) == (None, "eve")


def test_a_name_may_have_two_keys_while_one_replaces_the_other() -> None:
    """Both are the same caller."""
    same = [{"name": "ada", "sha256": digest(key)} for key in ("old", "new")]
    keys = Keyring(ServiceConfig(api_keys=same))
    assert name_of(keys, "old") == name_of(keys, "new") == "ada"
    assert len(keys.named("ada")) == 2


@pytest.mark.parametrize("line", ["ada", "ada:123", f"a b:{'0' * 64}", f":{'0' * 64}"])
def test_a_damaged_file_stops_the_start_and_names_the_line(tmp_path: Path, line: str) -> None:
    """Nobody is locked out, or let in, by a slip."""
    file = tmp_path / "keys"
    write(file, f"bob:{digest('two')}", line)
    with pytest.raises(ValueError, match=r"line 2 .* NAME:SHA256"):
        ring(file)
    with pytest.raises(ValueError, match="cannot be read"):
        ring(tmp_path / "missing")


def test_a_damaged_edit_leaves_the_keys_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says so once in the log."""
    file = tmp_path / "keys"
    write(file, f"bob:{digest('two')}")
    keys = ring(file)
    write(file, "half an ed")
    assert [name_of(keys, "two") for _ in range(3)] == ["bob"] * 3
    file.unlink()
    assert name_of(keys, "two") == "bob"
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(
    ("name", "sha256"),
    [("a b", "0" * 64), ("", "0" * 64), ("ada", "0" * 63), ("ada", "G" * 64), ("a" * 65, "0" * 64)],
)
def test_the_config_refuses_what_is_no_key(name: str, sha256: str) -> None:
    """A key in place of its digest, for example."""
    with pytest.raises(ValidationError):
        ServiceConfig(api_keys=[{"name": name, "sha256": sha256}])
