"""The least that an application can do, so that only the server is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Content-Length is the application's business (PEP 3333): bjoern, for one, is far slower where it has to chunk.
_HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "6")]


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(_HEADERS))
    return [b"hello\n"]
