"""A policy for every page, as strict as they get."""

from __future__ import annotations

from typing import Any

# Nothing but what the site itself sends: no inline script, no inline style.
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; object-src 'none'; form-action 'self'"


def strict(get_response: Any) -> Any:
    """Middleware: the policy on every page."""

    def middleware(request: Any) -> Any:
        response = get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response

    return middleware
