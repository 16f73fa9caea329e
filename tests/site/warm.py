"""Says in which process, and as what, it is asked; and has something to call."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application

if os.environ.get("TEST_HTTPS"):
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_SCHEME", "https")
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]

django: WSGIHandler = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    words = (os.getpid(), environ["wsgi.url_scheme"], environ["HTTP_HOST"], environ["RAW_URI"])
    os.write(2, ("asked " + " ".join(map(str, words)) + "\n").encode())
    if environ["PATH_INFO"] == "/exits":
        raise SystemExit(3)
    return django(environ, start_response)


def fill() -> None:
    os.write(2, f"filled {os.getpid()}\n".encode())


def spill() -> None:
    raise RuntimeError("the cache has a hole")
