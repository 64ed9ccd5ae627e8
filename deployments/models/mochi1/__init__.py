"""Mochi 1: decoding, sampling, prompts and loading. Knows torch, diffusers, transformers only."""
