"""Make both tokenizers of the tiny Open-Sora: T5's unigram model and CLIP's byte-level pairs.

Both know the world's words and the words of the prompt suffix, and take any text: T5's as the tiny
Mochi's does, CLIP's because any byte is one of its tokens.

    python -m training.opensora.make_tokenizers --out checkpoints/opensora-tiny
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Final

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer, PreTrainedTokenizerBase

from deployments.models.opensora.text import prompt_with_suffix
from training.make_tokenizer import corpus, make_tokenizer

# The authors pad T5's text to 512 tokens, and all are attended. Captions have up to about 40.
T5_TOKENS: Final = 64
CLIP_TOKENS: Final = 77
CLIP_VOCAB: Final = 1024
START, END = "<|startoftext|>", "<|endoftext|>"
_log = logging.getLogger(__name__)


def suffixed_corpus(seed: int, captions: int) -> list[str]:
    """What both are made from: the world's captions, ended as Open-Sora ends them."""
    return [prompt_with_suffix(line, 24, 4) for line in corpus(seed, captions)]


def make_clip_tokenizer(out: Path, lines: list[str]) -> CLIPTokenizer:
    """Make and save it; returns what `from_pretrained` will give."""
    # The 256 letters that stand for bytes.
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Splitting and case folding are those of CLIP's own class; only the pairs are learned.
    untrained = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[]).backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=CLIP_VOCAB,
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    untrained.train_from_iterator(lines, trainer)
    learned = untrained.get_vocab()
    # A byte must be a token at the end of a word, too.
    words = sorted(learned.keys() - {START, END}, key=lambda word: learned[word])
    words = list(dict.fromkeys([*alphabet, *(f"{letter}</w>" for letter in alphabet), *words]))
    merges = [tuple(pair) for pair in json.loads(untrained.to_str())["model"]["merges"]]
    # CLIP's pooled state is that of the largest id: the end must come last.
    vocab = {word: index for index, word in enumerate([*words, START, END])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=CLIP_TOKENS)
    tokenizer.save_pretrained(out)
    return CLIPTokenizer.from_pretrained(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/opensora-tiny"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = suffixed_corpus(arguments.seed, 20_000)
    made: dict[str, PreTrainedTokenizerBase] = {
        "tokenizer": make_clip_tokenizer(arguments.out / "tokenizer", lines),
        "tokenizer_2": make_tokenizer(arguments.out / "tokenizer_2", lines, T5_TOKENS),
    }
    for name, tokenizer in made.items():
        lengths = [len(tokenizer(line).input_ids) for line in lines[:2000]]
        _log.info("%s: %d pieces, longest %d", name, len(tokenizer), max(lengths))


if __name__ == "__main__":
    main()
