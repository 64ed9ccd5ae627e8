"""The words of a prompt that name its file."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from deployments.core.outputs import reserve
from deployments.core.titles import title_words

NOW = datetime(2025, 1, 27, 14, 30, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("The Café déjà vu", ["cafe", "deja"]),
        ("Straße über Łódź", ["strasse", "uber"]),
        ("don't stop", ["dont", "stop"]),
        ("a of the", ["video"]),
        ("静かな湖の夕日", ["video"]),
        ("🦊🦊🦊", ["video"]),
        ("שלום עולם fox", ["fox"]),
        ("\u202egnp.exe fox", ["gnp", "exe"]),
        ("../../etc/passwd", ["etc", "passwd"]),
        ("..\\..\\windows\x00\n\r\t", ["windows"]),
        ("CON NUL", ["con", "nul"]),
        ("-rf *", ["rf"]),
        ("４K video_of__rain", ["4k", "video"]),
        ("x" * 1000, ["x" * 24]),
        ("", ["video"]),
    ],
)
def test_any_prompt_gives_a_safe_name(tmp_path: Path, prompt: str, words: list[str]) -> None:
    """Only lower-case ASCII letters, digits and underscores follow the time."""
    assert title_words(prompt) == words
    name = reserve(tmp_path, prompt, NOW)
    assert name == f"20250127_143022_{'_'.join(words)}.mp4"
    assert (tmp_path / name).parent == tmp_path
