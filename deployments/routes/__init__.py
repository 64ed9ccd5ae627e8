"""The HTTP routes, one file per door: the seed API, `/v1/videos`, the system."""
