"""The service from the outside: a small HTTP client, its command line, and the doctor.

Knows the service by its HTTP API; only the doctor looks at this machine and the config. Imports no
ray, no torch and no fastapi.
"""
