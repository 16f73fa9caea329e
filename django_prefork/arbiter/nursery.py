"""How a worker comes into being: its slot, its pipe, the fork; and its first and last lines in the child."""

from __future__ import annotations

import os
import signal
import time
import traceback
from array import array
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from django_prefork import process, signals
from django_prefork.arbiter import fork_safety
from django_prefork.arbiter.audit import Audit
from django_prefork.arbiter.children import Child
from django_prefork.arbiter.listeners import Listener
from django_prefork.config import Config
from django_prefork.log import AccessLog
from django_prefork.scoreboard import Scoreboard, anonymous_file
from django_prefork.worker.prefault import prefault
from django_prefork.worker.worker import Worker


class CannotFork(Exception):
    """There cannot be another process now. The text says why."""


class Nursery:
    """Forks the workers of one generation; what it is given is what they get."""

    def __init__(
        self,
        application: Callable[..., Any],
        config: Config,
        *,
        listeners: list[Listener],
        board: Scoreboard,
        generation: int,
        access_log: AccessLog | None,
        queues: list[list[int]],
        audit: Audit,
        ranges: array[int] | None,
    ) -> None:
        self._application = application
        self._config = config
        self._listeners = listeners
        self._board = board
        self._generation = generation
        self._access_log = access_log
        self._queues = queues
        self._audit = audit
        self._ranges = ranges

    def fork(self, siblings: Iterable[Child], life: int, forget: Callable[[], None]) -> Child:
        """A new worker. `life` is the generation's pipe; `forget` closes what is the Arbiter's alone.

        Raises `CannotFork`.
        """
        now = time.monotonic()
        try:
            slot = self._board.claim(self._generation, now + self._config.boot_timeout)
        except RuntimeError as error:
            raise CannotFork(str(error)) from None
        signals.emit(signals.pre_fork, slot=slot, generation=self._generation)
        # Each time: what was closed once may be open again, by a signal's receiver or a thread of the project.
        fork_safety.clean()
        self._audit.look()
        self._audit.tell()
        opened: list[int] = []
        # No signal may find the child with our handlers, or it would write into our wake-up pipe.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            read, write = os.pipe()
            opened += (read, write)
            os.set_blocking(read, False)
            dump = anonymous_file("prefork-stacks")
            opened.append(dump)
            if self._access_log is not None:
                self._access_log.prepare(slot)
            pid = fork_safety.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            for fd in opened:
                os.close(fd)
            self._board.free(slot)
            raise CannotFork(f"cannot fork: {error.strerror}") from None
        if pid == 0:
            os.close(read)
            self._be_worker(slot, life, write, dump, siblings, forget)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.close(write)
        self._board.occupy(slot, pid)
        return Child(slot, self._generation, pid, read, dump, now)

    def _be_worker(
        self, slot: int, life: int, pipe: int, dump: int, siblings: Iterable[Child], forget: Callable[[], None]
    ) -> NoReturn:
        """In the child; whatever happens, it ends here."""
        try:
            signal.set_wakeup_fd(-1)
            self._board.occupy(slot, os.getpid())
            forget()
            # A copy of their pipes would keep their end from being noticed.
            for child in siblings:
                child.close()
            process.set_title(f"{self._config.proc_name or 'django-prefork'}: worker {slot} gen {self._generation}")
            process.go_first()
            try:
                if self._ranges is not None:
                    prefault(self._ranges)
                worker = Worker(
                    self._application,
                    self._config,
                    self._listeners,
                    self._board,
                    slot=slot,
                    generation=self._generation,
                    life=life,
                    pipe=pipe,
                    dump=dump,
                    access_log=self._access_log,
                    queues=self._queues,
                )
                worker.run()
            except BaseException:
                text = "failed " + traceback.format_exc().replace("\n", "\v") + "\n"
                os.write(pipe, text.encode())
                os._exit(1)
            worker.exit()
        finally:
            os._exit(1)
