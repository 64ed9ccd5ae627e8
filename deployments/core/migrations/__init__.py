"""Schema of the job database, one numbered step per change; run by `job_store` at start."""
