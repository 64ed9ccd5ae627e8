"""Turn prompts into the embeddings that Mochi's transformer reads, and remember the latest ones."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase, T5EncoderModel

from deployments.models.prompt_cache import OnLookup, PromptCache, nobody_counts

# genmoai/mochi@0c86aeb src/genmo/mochi_preview/pipelines.py (MAX_T5_TOKEN_LENGTH)
MAX_TOKENS = 256


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as the transformer reads it.

    Attributes:
        embedding: (1, n, D), on the CPU, in the text encoder's dtype; n counts real tokens only,
            with the closing one, and is 0 for an empty prompt.
        truncated: the prompt was longer than MAX_TOKENS tokens and its end was not read.
    """

    embedding: torch.Tensor
    truncated: bool


class PromptEncoder:
    """Tokenizer and T5 encoder, with the most recently used embeddings kept.

    Args:
        text_encoder: stays on the device where it is.
        cache_bytes: most memory that kept embeddings may take; 256 tokens of Mochi are 2 MiB.
        on_lookup: see `PromptCache`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        *,
        cache_bytes: int = 64 * 2**20,
        on_lookup: OnLookup = nobody_counts,
    ) -> None:
        self._tokenizer, self._text_encoder = tokenizer, text_encoder
        self._cache = PromptCache(
            self._encode, lambda encoded: encoded.embedding.nbytes, cache_bytes, on_lookup
        )

    def encode(self, prompt: str) -> EncodedPrompt:
        """Return the embedding of `prompt`.

        An empty prompt has no tokens and costs no pass: the authors mask all of it out
        (genmoai/mochi@0c86aeb pipelines.py, get_conditioning_for_prompts).
        """
        return self._cache.get(prompt)

    @torch.no_grad()
    def _encode(self, prompt: str) -> EncodedPrompt:
        if not prompt:
            width = self._text_encoder.config.d_model
            return EncodedPrompt(torch.zeros(1, 0, width, dtype=self._text_encoder.dtype), False)
        # One token more than is read shows whether there are more.
        ids = self._tokenizer(prompt, truncation=True, max_length=MAX_TOKENS + 1).input_ids
        truncated = len(ids) > MAX_TOKENS
        if truncated:
            ids = self._tokenizer(prompt, truncation=True, max_length=MAX_TOKENS).input_ids
        # Not padded: the transformer reads real tokens only, and the encoder masks the others.
        batch = torch.tensor([ids], device=self._text_encoder.device)
        embedding: torch.Tensor = self._text_encoder(batch).last_hidden_state
        return EncodedPrompt(embedding.cpu(), truncated)
