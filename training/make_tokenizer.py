"""Make the checkpoint's T5 tokenizer: a unigram model whose pieces are the world's words.

Pieces are whole words of the captions, sub-words that SentencePiece finds in them, and every
printable ASCII and Latin-1 character. Text is case-folded (nmt_nfkc_cf) and anything else
becomes <unk>, so that any text is taken.

    python -m training.make_tokenizer --out checkpoints/mochi-tiny/tokenizer
"""

import argparse
import base64
import io
import json
import logging
import string
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sentencepiece
from transformers import T5Tokenizer

from training.captions import UNKNOWN_WORDS, caption
from training.scenes import draw_training_scene

VOCAB_SIZE = 640
_LATIN_1 = "".join(chr(code) for code in range(0xA1, 0x100) if code != 0xAD)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_log = logging.getLogger(__name__)


def corpus(seed: int, captions: int) -> Iterator[str]:
    """Captions, each unknown word a few times, and every character that must be a piece."""
    rng = np.random.default_rng(seed)
    for _ in range(captions):
        yield caption(rng, draw_training_scene(rng))
    for _ in range(captions // 400):
        yield " ".join(UNKNOWN_WORDS)
    for _ in range(3):
        yield " ".join(string.ascii_lowercase + string.digits + string.punctuation + _LATIN_1)


def _train_unigram(lines: list[str], folder: Path) -> tuple[list[str], str]:
    """Let SentencePiece find sub-words; returns its pieces and its case-folding table."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        vocab_size=VOCAB_SIZE,
        model_type="unigram",
        character_coverage=1.0,
        normalization_rule_name="nmt_nfkc_cf",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
        hard_vocab_limit=False,  # the world has fewer words than VOCAB_SIZE
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    trained = T5Tokenizer.from_pretrained(folder, extra_ids=0)
    stored = json.loads(trained.backend_tokenizer.to_str())
    return trained.convert_ids_to_tokens(range(len(trained))), stored["normalizer"][
        "precompiled_charsmap"
    ]


def make_tokenizer(out: Path, lines: list[str], max_tokens: int) -> T5Tokenizer:
    """Make and save it; returns what `from_pretrained` will give."""
    with tempfile.TemporaryDirectory() as folder:
        pieces, charsmap = _train_unigram(lines, Path(folder))
    words = Counter(word for line in lines for word in line.translate(_NO_PUNCTUATION).split())
    scores = dict.fromkeys(pieces, -12.0)  # log probability; a whole word always wins
    scores |= {f"\u2581{word}": -5.0 for word in sorted(words) if len(word) > 1}
    scores |= dict.fromkeys(("<pad>", "</s>", "<unk>"), 0.0)
    tokenizer = T5Tokenizer(
        vocab=list(scores.items()),
        extra_ids=0,
        _spm_precompiled_charsmap=base64.b64decode(charsmap),
        model_max_length=max_tokens,
    )
    tokenizer.save_pretrained(out)
    return T5Tokenizer.from_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = list(corpus(arguments.seed, 20_000))
    tokenizer = make_tokenizer(arguments.out, lines, max_tokens=256)
    _log.info("%d pieces in %s", len(tokenizer), arguments.out)


if __name__ == "__main__":
    main()
