"""With `--reload`: a thread in each worker that hears which files have changed, and tells which modules are new.

The worker is about to be replaced when a file has changed. But a page that is open in a browser may be waiting for it
to say so (django-browser-reload), and what knows of that page is in this process.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

from django.utils import autoreload

logger = logging.getLogger("django_prefork")

# How often to look whether views have imported something (seconds).
LOOK = 0.5


def send_change(path: str, sender: Any) -> bool:
    """Tell the receivers of Django's `file_changed`; whether one has dealt with it, so that the code may stay."""
    try:
        answers = autoreload.file_changed.send_robust(sender=sender, file_path=Path(path))
    except SystemExit:  # django.utils.autoreload.trigger_reload()
        return False
    return any(answer and not isinstance(answer, Exception) for _, answer in answers)


class News:
    """`changed` is the read end of a pipe that ends when something has changed, and `paths` the file that says what.

    `modules` is the write end of the pipe to the watcher; of the modules in `known` it knows.
    """

    def __init__(self, changed: int, paths: int, modules: int, known: frozenset[str]) -> None:
        self._changed = changed
        self._paths = paths
        self._modules = modules
        self._known = known
        self._count = 0

    def start(self) -> None:
        # Signals are for the main thread, which has to be woken by them.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._run, name="prefork-news", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._changed, select.POLLIN)  # nothing is ever written: its end is the message
        try:
            while not poll.poll(LOOK * 1000):
                self._report()
            self._pass_on()
            while True:
                self._report()
                threading.Event().wait(LOOK)
        except Exception:
            logger.exception("changes are not passed on to this worker any more")

    def _report(self) -> None:
        if len(sys.modules) == self._count:
            return
        modules = dict(sys.modules)
        self._count = len(modules)
        fresh = [module for name, module in modules.items() if name not in self._known]
        self._known |= modules.keys()
        for path in autoreload.iter_modules_and_files(
            tuple(module for module in fresh if isinstance(module, ModuleType)), frozenset()
        ):
            try:
                os.write(self._modules, os.fsencode(path) + b"\0")
            except BlockingIOError:
                return  # there is no watcher at the moment, and very much is imported

    def _pass_on(self) -> None:
        paths = os.pread(self._paths, os.fstat(self._paths).st_size, 0)
        sender = autoreload.StatReloader()
        for path in paths.split(b"\0"):
            if path:
                send_change(os.fsdecode(path), sender)
