"""Well-known packages on this server: `python -m tests.compat`."""
