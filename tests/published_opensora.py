"""The published files of Open-Sora 2.0, with tiny random networks: names and formats are real."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from transformers import T5ForConditionalGeneration

from deployments.models.opensora import released
from tests.tiny_opensora import (
    tiny_clip,
    tiny_clip_tokenizer,
    tiny_text_encoders,
    tiny_vae,
)

SENTENCES = [
    "a fox in the snow, 24 FPS. 4 motion score.",
    "the quick brown dog jumps over it",
] * 50


def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace what the tensors of the 11B model do not tell by the sizes of the tiny one."""
    monkeypatch.setattr(released, "AXES_DIMS_ROPE", (8, 12, 12))
    config = {
        "latent_channels": 16,
        "block_out_channels": (8, 8, 16, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "scaling_factor": 0.476986,
    }
    monkeypatch.setattr(released, "VAE_CONFIG", config)


def publish(folder: Path, transformer: dict[str, torch.Tensor]) -> Path:
    """Write what hpcai-tech/Open-Sora-v2 holds; `transformer` has the released keys."""
    folder.mkdir(parents=True)
    half = {key: tensor.bfloat16() for key, tensor in transformer.items()}
    save_file(half, folder / released.TRANSFORMER_FILE, {"format": "pt"})
    vae = {key: tensor.bfloat16() for key, tensor in tiny_vae().state_dict().items()}
    save_file(vae, folder / released.VAE_FILE, {"format": "pt"})
    _publish_t5(folder / released.T5_FOLDER)
    _publish_clip(folder / released.CLIP_FOLDER)
    return folder


def _publish_t5(folder: Path) -> None:
    """In two shards of float32, with the decoder, and with the tokenizer of sentencepiece."""
    folder.mkdir(parents=True)
    encoder = tiny_text_encoders()[3]
    config = json.loads(encoder.config.to_json_string()) | {
        "architectures": ["T5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    whole = T5ForConditionalGeneration(encoder.config).state_dict()
    tensors = {key: tensor for key, tensor in whole.items() if key.startswith("decoder.block")}
    tensors["lm_head.weight"] = torch.zeros(64, 32)
    encoders = encoder.state_dict()
    del encoders["encoder.embed_tokens.weight"]
    parts = (tensors, encoders)
    for number, part in enumerate(parts, start=1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        save_file(part, folder / name, {"format": "pt"})
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>", "extra_ids": 10}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=written,
        vocab_size=38,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(written.getvalue())


def _publish_clip(folder: Path) -> None:
    """The whole of CLIP, as OpenAI's repository has it: an older layout of names and files."""
    folder.mkdir(parents=True)
    clip, tokenizer = tiny_clip(), tiny_clip_tokenizer()
    text_config: dict[str, Any] = json.loads(clip.config.to_json_string())
    config = {"architectures": ["CLIPModel"], "model_type": "clip", "text_config": text_config}
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {f"text_model.{key}": tensor for key, tensor in clip.state_dict().items()}
    tensors |= {
        "logit_scale": torch.zeros(()),
        "text_model.embeddings.position_ids": torch.arange(77)[None],
        "text_projection.weight": torch.zeros(8, 24),
        "vision_model.embeddings.class_embedding": torch.zeros(8),
        "visual_projection.weight": torch.zeros(8, 8),
    }
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    special = {f"{name}_token": "<|endoftext|>" for name in ("eos", "unk", "pad")}
    special |= {"bos_token": "<|startoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n")
