"""Says in which process, and as what, it is asked; and has something to call."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
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
    if environ["QUERY_STRING"] == "fork":
        os.fork()
    if environ["PATH_INFO"] == "/endless":
        start_response("200 OK", [])
        return endless()
    # While there is a file of that name.
    if environ["PATH_INFO"] == "/locked" and os.path.exists(os.environ.get("TEST_LOCK", "")):
        # No signal ends that, and with PyDLL no other thread of Python's runs meanwhile.
        library = (ctypes.PyDLL if environ["QUERY_STRING"] else ctypes.CDLL)(None)
        mutex = ctypes.create_string_buffer(64)
        while True:
            library.pthread_mutex_lock(mutex)
    return django(environ, start_response)


def endless() -> Iterator[bytes]:
    while True:
        time.sleep(0.001)  # prefork: ok
        yield b"piece"


def drag() -> None:
    if os.environ.get("TEST_DRAG"):
        time.sleep(float(os.environ["TEST_DRAG"]))  # prefork: ok


def fork() -> None:
    os.fork()


def fill() -> None:
    os.write(2, f"filled {os.getpid()}\n".encode())


def spill() -> None:
    raise RuntimeError("the cache has a hole")
