"""Which view a request is for: Django finds it, the scoreboard tells it, and no worker that is stuck is asked."""

from __future__ import annotations

import functools
from typing import Any

from django.core.handlers.base import BaseHandler

from django_prefork.row import Row
from django_prefork.worker.knots import Knot

# Names of this many views are kept; a project that makes new ones for each request must not fill the memory.
_MOST = 4096


def name_views(row: Row, knot: Knot) -> None:
    """From now on, write the view of each request that Django resolves in this process to `row`.

    The request itself is given to `knot`. There is no signal for it, and `process_view` is a middleware's, which a
    project would have to install.
    """
    original = getattr(BaseHandler.resolve_request, "__wrapped__", BaseHandler.resolve_request)
    names: dict[Any, bytes] = {}

    @functools.wraps(original)
    def resolve_request(self: BaseHandler, request: Any) -> Any:
        knot.held["request"] = request
        match = original(self, request)
        try:
            name = names.get(match.func)
            if name is None:
                if len(names) >= _MOST:
                    names.clear()
                name = names[match.func] = name_of(match.func)
            row.view(name)
        except (TypeError, AttributeError):  # it cannot be hashed, or has no name: it is served all the same
            pass
        return match

    BaseHandler.resolve_request = resolve_request  # type: ignore[method-assign]


def name_of(view: Any) -> bytes:
    """As one would import it: `shop.views.Basket`."""
    while isinstance(view, functools.partial):
        view = view.func
    view = getattr(view, "view_class", view)
    if not hasattr(view, "__qualname__"):
        view = type(view)
    return f"{view.__module__}.{view.__qualname__}".encode()
