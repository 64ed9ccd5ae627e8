"""Open-Sora 2.0: network, sampling, prompts, autoencoder, loading, conversion. Knows torch,
diffusers and transformers only."""
