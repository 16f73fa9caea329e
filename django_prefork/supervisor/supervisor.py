"""Keeps the PID and the sockets; starts, watches and retires generations; forwards signals."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import time
from typing import Any

from django_prefork import inheritance
from django_prefork.scoreboard import Scoreboard
from django_prefork.supervisor.generation import Generation

# A new Arbiter after one that was lost comes at once; one that keeps failing, ever more slowly (seconds).
BACKOFF = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# How much longer than an Arbiter itself the Supervisor waits for it, in seconds: the Arbiter names what it kills.
PATIENCE = 1.0

# By name: on Linux SIGCLD hides SIGCHLD in any table built from dir(signal).
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_FORWARDED = (signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGWINCH)
_HANDLED = (*_STOP, *_FORWARDED, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class Supervisor:
    """`words` is what the command left: see `arbiter/launch.py`."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.command: dict[str, Any] = words["command"]
        self.listeners: list[dict[str, Any]] = words["listeners"]
        self.board = Scoreboard(words["board"])
        self.pid_file: dict[str, Any] | None = words["pid_file"]
        self.graceful_timeout: float = words["graceful_timeout"]
        self.retire_timeout: float = words["retire_timeout"]
        self.boot_timeout: float = words["boot_timeout"]
        first = words["first"]
        #: In the order they were started; the last one is the newest.
        self.generations = [Generation(1, first["pid"], first["life"], first["control"])]
        self.status = 0
        self.stop_deadline: float | None = None
        self.next_start: float | None = None
        self.failures = 0
        self.ever_healthy = False

    @classmethod
    def inherit(cls, fd: int) -> Supervisor:
        words = inheritance.take(fd)
        for descriptor in words["descriptors"]:
            os.set_inheritable(descriptor, False)
        return cls(words)

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the server has stopped; the exit status."""
        self._receive_signals()
        while not self._finished():
            self._wait()
            self._handle_signals()
            self._listen()
            self._reap()
            self._replace()
            self._end_what_stays()
        self._clean_up()
        say("INFO", f"stopped, exit status {self.status}")
        return self.status

    def _receive_signals(self) -> None:
        self._wakeup, wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, _note)
        # The command blocked them: until here, none may be lost.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for generation in self.generations:
            if generation.pid is not None:
                poll.register(generation.control, select.POLLIN)
        deadlines = [self.stop_deadline, self.next_start]
        deadlines += [self._boot_deadline(generation) for generation in self.generations]
        deadlines += [self._retire_deadline(generation) for generation in self.generations]
        known = [deadline for deadline in deadlines if deadline is not None]
        poll.poll(max(0.0, min(known) - time.monotonic()) * 1000 + 1 if known else None)

    # -- signals -------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        try:
            numbers = os.read(self._wakeup, 1024)
        except BlockingIOError:
            return
        for number in numbers:
            if number in _STOP:
                self.stop(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                say("WARNING", "SIGHUP: reloading is not there yet; stop the server and start it again")
            elif number == signal.SIGUSR2:
                say("WARNING", "SIGUSR2: upgrading in place is not there yet; stop the server and start it again")
            elif number == signal.SIGWINCH and sys.stdin is not None and sys.stdin.isatty():
                pass  # a terminal that changed its size
            elif number in _FORWARDED:
                self._newest().signal(number)

    def stop(self, reason: str) -> None:
        """Gracefully; a second time, at once."""
        if self.stop_deadline is None:
            say("INFO", f"{reason}: stopping")
            self.board.stop()
            self.stop_deadline = time.monotonic() + self.graceful_timeout + PATIENCE
            self.next_start = None
        else:
            say("INFO", f"{reason} again: stopping at once")
            self.stop_deadline = time.monotonic() + PATIENCE
            for reading in self._orphans():
                _kill(reading.pid, signal.SIGKILL)
        for generation in self.generations:
            generation.signal(signal.SIGTERM)
            if generation.pid is None:
                generation.retire()

    # -- generations ---------------------------------------------------------------------------------------------------

    def _newest(self) -> Generation:
        return self.generations[-1]

    def _listen(self) -> None:
        for generation in self.generations:
            for message in generation.messages():
                if message == "ready":
                    self._ready(generation)
                elif message.startswith("stop") and self.stop_deadline is None:
                    self.stop(message.removeprefix("stop ") + " to the arbiter")

    def _ready(self, generation: Generation) -> None:
        generation.healthy = True
        self.ever_healthy = True
        self.failures = 0
        for older in self.generations:
            if older.number < generation.number and older.life is not None:
                say("INFO", f"gen={older.number} retires: gen={generation.number} is ready")
                self.board.retire(older.number)
                older.retire()

    def _reap(self) -> None:
        # Whoever ended: an Arbiter, a worker of an Arbiter that was lost, or, as PID 1, anybody's orphan.
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            status = os.waitstatus_to_exitcode(code)
            for generation in self.generations:
                if generation.pid == pid:
                    self._arbiter_ended(generation, status)
                    break
            else:
                self._orphan_ended(pid, status)
        for generation in list(self.generations):
            if generation.pid is None and generation.life is None and not self._workers_of(generation):
                self.board.bury(generation.number)
                generation.close()
                self.generations.remove(generation)

    def _arbiter_ended(self, generation: Generation, status: int) -> None:
        for message in generation.messages():  # its last words
            if message == "ready":
                self._ready(generation)
        pid, generation.pid = generation.pid, None
        how = _how(status)
        if self.stop_deadline is not None or generation.life is None:
            generation.retire()
            return
        if status == 0:
            generation.retire()
            self.stop(f"the arbiter gen={generation.number} pid={pid} left")
            return
        if not self.ever_healthy:
            # Nothing ever served: whoever started us must hear of it, and try again when it is mended.
            say("ERROR", f"the arbiter gen={generation.number} pid={pid} {how} before it was ready")
            self.board.stop()
            generation.retire()
            self.status = status if status > 0 else 1
            self.stop_deadline = time.monotonic() + PATIENCE
            return
        if not generation.healthy:
            generation.retire()
        delay = BACKOFF[min(self.failures, len(BACKOFF) - 1)]
        self.failures += 1
        self.next_start = time.monotonic() + delay
        say(
            "ERROR",
            f"the arbiter gen={generation.number} pid={pid} {how}: its workers serve on, "
            f"a new generation starts {f'in {delay:g} s' if delay else 'now'}",
        )

    def _orphan_ended(self, pid: int, status: int) -> None:
        for reading in self.board.occupied():
            if reading.pid == pid:
                self.board.free(reading.slot)
                if status:
                    say("ERROR", f"worker={reading.slot} gen={reading.generation} pid={pid} {_how(status)}")
                else:
                    say("INFO", f"worker={reading.slot} gen={reading.generation} pid={pid} left")

    def _replace(self) -> None:
        if self.next_start is None or time.monotonic() < self.next_start:
            return
        self.next_start = None
        number = max(generation.number for generation in self.generations) + 1
        try:
            self.generations.append(Generation.start(number, self.command, self.board.fd, self.listeners))
        except OSError as error:
            delay = BACKOFF[min(self.failures, len(BACKOFF) - 1)] or 1.0
            self.failures += 1
            self.next_start = time.monotonic() + delay
            say("ERROR", f"cannot start gen={number}: {error.strerror}; again in {delay:g} s")
        else:
            say("INFO", f"gen={number} pid={self._newest().pid} started")

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _boot_deadline(self, generation: Generation) -> float | None:
        """Only for a replacement: the first start may migrate, compile, wait for a database."""
        if generation.healthy or generation.pid is None or generation.number == 1:
            return None
        return generation.started + self.boot_timeout

    def _retire_deadline(self, generation: Generation) -> float | None:
        if generation.retired_at is None or not self.retire_timeout:
            return None
        return generation.retired_at + self.retire_timeout

    def _end_what_stays(self) -> None:
        now = time.monotonic()
        for generation in self.generations:
            boot = self._boot_deadline(generation)
            if boot is not None and now >= boot:
                say(
                    "ERROR",
                    f"gen={generation.number} pid={generation.pid} not ready after {self.boot_timeout:g} s: killed",
                )
                generation.started = now  # once
                generation.signal(signal.SIGKILL)
            retire = self._retire_deadline(generation)
            if retire is not None and now >= retire and self.stop_deadline is None:
                generation.retired_at = now  # again only after as long
                self._kill_workers(generation)
                generation.signal(signal.SIGKILL)
        if self.stop_deadline is not None and now >= self.stop_deadline:
            self.stop_deadline = now + PATIENCE
            for generation in self.generations:
                if generation.pid is not None:
                    say("ERROR", f"the arbiter gen={generation.number} pid={generation.pid} has not left: killed")
                    generation.signal(signal.SIGKILL)
                self._kill_workers(generation)

    def _kill_workers(self, generation: Generation) -> None:
        for reading in self._workers_of(generation):
            served = (
                f" serving {reading.request!r} for {time.monotonic() - reading.since:.1f} s" if reading.request else ""
            )
            say(
                "ERROR",
                f"worker={reading.slot} gen={reading.generation} pid={reading.pid}{served} has not left: killed",
            )
            _kill(reading.pid, signal.SIGKILL)

    def _workers_of(self, generation: Generation) -> list[Any]:
        found = []
        for reading in self.board.occupied():
            if reading.generation != generation.number:
                continue
            if generation.pid is None and not _alive(reading.pid):
                self.board.free(reading.slot)  # not our child here (macOS), or it ended between two looks
            else:
                found.append(reading)
        return found

    def _orphans(self) -> list[Any]:
        return [reading for g in self.generations if g.pid is None for reading in self._workers_of(g)]

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        return self.stop_deadline is not None and not self.generations

    def _clean_up(self) -> None:
        """Unlink what is ours, and only while it is: somebody may have put a file of the same name there since."""
        for listener in self.listeners:
            if listener["own"] and listener["path"]:
                _unlink(listener["path"], listener["inode"], socket_only=True)
        if self.pid_file is not None:
            _unlink(self.pid_file["path"], self.pid_file["inode"], socket_only=False)


def _note(number: int, frame: object) -> None:
    """The wake-up descriptor has the signal already."""


def _how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _unlink(path: str, inode: list[int], *, socket_only: bool) -> None:
    try:
        status = os.lstat(path)
        if [status.st_dev, status.st_ino] == inode and (not socket_only or stat.S_ISSOCK(status.st_mode)):
            os.unlink(path)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):
            say("WARNING", f"cannot remove {path}: {error.strerror}")


def say(level: str, text: str) -> None:
    """One line on stderr, as the other processes write theirs; a closed or full stderr harms nobody."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S %z")
    try:
        os.write(2, f"[{stamp}] [{os.getpid()}] [{level}] {text}\n".encode())
    except OSError:
        pass
