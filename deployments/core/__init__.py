"""What every deployment shares. Knows no ray, no fastapi, no torch and no diffusers."""
