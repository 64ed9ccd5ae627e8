"""The words of a prompt that name its file. Knows nothing of files."""

import itertools
import re
import unicodedata

MAX_WORD = 24

_ENGLISH = """
a about above across after against all along am among an and any are around as at be because
been before behind being below beneath beside between beyond both but by can could did do does
down during each either for from had has have having he her here hers him his how i if in inside
into is it its itself just like me more most my near no nor not of off on onto or our out
outside over own per she should so some such than that the their them then there these they this
those through to too toward towards under until up upon us very was we were what when where
which while who whom whose why will with within without would you your
"""
_STOP_WORDS = frozenset(_ENGLISH.split())
# Letters that Unicode does not take apart into a base letter and an accent.
_LETTERS = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)
_APOSTROPHES = re.compile("['\u2019\u02bc]")
_WORD = re.compile(r"[^\W_]+")


def title_words(prompt: str) -> list[str]:
    """Return the words of a file name: the first two of `prompt` that are not stop words, in
    lower-case ASCII with accents folded, or `video` if it has none."""
    folded = _APOSTROPHES.sub("", prompt).lower().translate(_LETTERS)
    folded = unicodedata.normalize("NFKD", folded)
    folded = "".join(c for c in folded if not unicodedata.combining(c))
    words = (
        word[:MAX_WORD]
        for word in _WORD.findall(folded)
        if word.isascii() and word not in _STOP_WORDS
    )
    return list(itertools.islice(words, 2)) or ["video"]
