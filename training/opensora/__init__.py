"""How checkpoints/opensora-tiny is made: the world of the tiny Mochi, and pictures for images."""
