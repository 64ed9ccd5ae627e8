"""Measurements as programs: each prints a table; times are compared as ratios within one run."""
