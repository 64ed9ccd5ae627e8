"""Turn prompts into what Open-Sora's transformer reads, and remember the latest ones.

The text encoders and their conventions are FLUX.1's: all states of T5 over a padded prompt whose
padding is not masked, and CLIP's pooled state.
"""

import re
from dataclasses import dataclass

import torch
from transformers import CLIPTextModel, PreTrainedTokenizerBase, T5EncoderModel

from deployments.models.opensora.sampling import TextEmbedding
from deployments.models.prompt_cache import OnLookup, PromptCache, nobody_counts

# hpcaitech/Open-Sora@7ad6a96: T5's length of the released model.
MAX_TOKENS = 512


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        embedding: of one prompt, on the CPU, in the text encoders' dtypes.
        truncated: the prompt was longer than T5 reads here, and its end was left out. CLIP reads
            the beginning of a long prompt only; that is usual and not reported.
    """

    embedding: TextEmbedding
    truncated: bool


def prompt_with_suffix(prompt: str, fps: int, motion_score: int) -> str:
    """Return `prompt` with the two sentences on speed and motion that all captions ended with.

    A prompt that ends in its own frame rate keeps it. Not for negative prompts: the authors give
    them no suffix.

    Args:
        prompt: as the user wrote it.
        fps: frames per second.
        motion_score: 1 (still) to 15; 4 is usual and 7 lively.
    """
    text = prompt.strip()
    if not text.endswith("."):
        text += "."
    if not re.search(r"\d+ FPS\.$", text):
        text += f" {fps} FPS."
    return f"{text} {motion_score} motion score."


class PromptEncoder:
    """Both tokenizers and text encoders, with the most recently used embeddings kept.

    T5's prompts are padded to `max_tokens`. The network was trained with one length, so it belongs
    to the checkpoint: it is the `model_max_length` stored with `tokenizer_2`, or 512 where that is
    larger or not stored.

    Args:
        tokenizer: CLIP's.
        text_encoder: CLIP's; stays on the device where it is, as does the other.
        tokenizer_2: T5's.
        text_encoder_2: T5's.
        cache_bytes: most memory that kept embeddings may take; one of the 11B model has 4 MiB.
        on_lookup: see `PromptCache`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: CLIPTextModel,
        tokenizer_2: PreTrainedTokenizerBase,
        text_encoder_2: T5EncoderModel,
        *,
        cache_bytes: int = 64 * 2**20,
        on_lookup: OnLookup = nobody_counts,
    ) -> None:
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._tokenizer_2, self._text_encoder_2 = tokenizer_2, text_encoder_2
        self.max_tokens: int = min(tokenizer_2.model_max_length, MAX_TOKENS)
        self._cache = PromptCache(self._encode, _size_bytes, cache_bytes, on_lookup)

    def encode(self, prompt: str) -> EncodedPrompt:
        """Return the embedding of `prompt`, to which nothing is added; see `prompt_with_suffix`."""
        return self._cache.get(prompt)

    @torch.no_grad()
    def _encode(self, prompt: str) -> EncodedPrompt:
        # One token more than is read shows whether there are more.
        ids = self._tokenizer_2(prompt, truncation=True, max_length=self.max_tokens + 1).input_ids
        sequence: torch.Tensor = self._text_encoder_2(
            self._padded(self._tokenizer_2, prompt, self.max_tokens).to(self._text_encoder_2.device)
        ).last_hidden_state
        length = self._text_encoder.config.max_position_embeddings
        pooled: torch.Tensor = self._text_encoder(
            self._padded(self._tokenizer, prompt, length).to(self._text_encoder.device)
        ).pooler_output
        embedding = TextEmbedding(sequence.cpu(), pooled.cpu())
        return EncodedPrompt(embedding, truncated=len(ids) > self.max_tokens)

    @staticmethod
    def _padded(tokenizer: PreTrainedTokenizerBase, prompt: str, length: int) -> torch.Tensor:
        encoded = tokenizer(
            prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        ids: torch.Tensor = encoded.input_ids
        return ids


def _size_bytes(encoded: EncodedPrompt) -> int:
    return encoded.embedding.sequence.nbytes + encoded.embedding.pooled.nbytes
