"""Networks and samplers. Knows torch, diffusers and transformers, and nothing else of ours."""
