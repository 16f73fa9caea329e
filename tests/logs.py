"""Loggers without handlers, a handler that keeps records, a pipe: what tests of logging share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = ("django_prefork", "django_prefork.access", "django_prefork.worker", "django", "django.request")


@contextmanager
def bare_loggers() -> Iterator[logging.Logger]:
    """Yields a root logger without handlers, above ours and Django's; to the real one pytest adds its own at any time.

    Whatever is made of any logger meanwhile is undone.
    """
    root = logging.RootLogger(logging.WARNING)
    bare = [logging.getLogger(name) for name in NAMES]
    everyone = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    before = [(each, {**vars(each), "handlers": each.handlers[:]}) for each in everyone]
    for each in bare:
        each.handlers, each.propagate, each.disabled = [], True, False
        each.setLevel(logging.NOTSET)
        if each.parent is logging.root:
            each.parent = root
    try:
        yield root
    finally:
        for each, attributes in before:
            vars(each).update(attributes)
            each.setLevel(each.level)  # forgets what it had worked out about levels


class Kept(logging.Handler):
    """A handler of the project's that keeps what it gets."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def both_ends() -> Iterator[tuple[int, int]]:
    """A pipe, closed at the end as far as the test has not done it."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for fd in ends:
            try:
                os.close(fd)
            except OSError:
                pass


def fill(fd: int) -> None:
    """Fill a pipe and leave it blocking, as a standard stream is."""
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, b"." * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)
