"""The video service: one Ray Serve deployment per file, and what they share in `core`."""
