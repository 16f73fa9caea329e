"""The Django project of the benchmarks, and the WSGI applications beside it."""

from __future__ import annotations
