"""Keeps the PID and the sockets; starts, watches and retires generations; forwards signals."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

from django_prefork import inheritance
from django_prefork.scoreboard import Scoreboard
from django_prefork.supervisor.changes import Changes
from django_prefork.supervisor.generation import PATIENCE, Generation, Stage
from django_prefork.supervisor.generations import Generations
from django_prefork.supervisor.notify import Notifier
from django_prefork.supervisor.place import Place
from django_prefork.supervisor.system import how, say
from django_prefork.supervisor.terminal import Terminal
from django_prefork.supervisor.upgrade import Upgrade
from django_prefork.supervisor.workers import Workers

# A SIGHUP to the whole process group comes from the Arbiter as well, by its word: within this time (seconds) it is one.
SAME_SIGNAL = 2.0
# Who ends a process and then its group (timeout(1) does) means one stop, and the Arbiter, which passes on what it gets,
# may be heard first: within this time (seconds) it is one. Nobody presses Ctrl-C twice as fast.
SAME_STOP = 0.05

# By name: on Linux SIGCLD hides SIGCHLD in any table built from dir(signal).
_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_WORDS: dict[int, str] = {
    signal.SIGTTIN: "more",
    signal.SIGTTOU: "fewer",
    signal.SIGUSR1: "reopen",
    signal.SIGWINCH: "none",
}
_HANDLED = (*_STOP, *_WORDS, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)


class Supervisor:
    """`words` is what the command left (see `arbiter/launch.py`), or what an earlier image of this process did."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.command: dict[str, Any] = words["command"]
        self.next_image = Upgrade(self.command["executable"])
        self.board = Scoreboard(words["board"])
        self.workers = Workers(self.board)
        #: As the newest generation that was ready has it.
        self.place = Place(words["place"], words["queues"], words["pid_file"])
        self.notifier = Notifier(words["environment"])
        #: With `--reload`.
        self.changes = Changes(words["watched"]) if words["watched"] is not None else None
        if self.changes is not None:
            self.changes.begin(words.get("began"))
        self.generations = Generations(
            words,
            board=self.board,
            place=self.place,
            workers=self.workers,
            notifier=self.notifier,
            changes=self.changes,
        )
        # Ignored signals stay ignored over an exec; nohup asks for that.
        self.terminal = Terminal(words.get("terminal", signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN))
        self.status = 0
        self.drain_until: float | None = None
        self.stop_deadline: float | None = None
        #: When SIGHUP came to this process itself.
        self._hung_up_at = -SAME_SIGNAL
        self._told_to_stop_at = -SAME_STOP

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
            # In this order: who sends a signal because of what the log said means the state that it spoke of.
            signals = self._signals()
            self._listen()
            self._handle(signals)
            self._reap()
            self.generations.look_for_changes()
            self.generations.begin()
            self._end_what_stays()
        self.place.clean_up()
        if not self.place.brief:
            say("INFO", f"stopped, exit status {self.status}")
        return self.status

    def _receive_signals(self) -> None:
        self._wakeup, wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(wakeup, False)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, _note)
        # Who executed us blocked them: until here, none may be lost.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # What ended before there was a handler.
        os.write(wakeup, bytes([signal.SIGCHLD]))

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        if self.terminal.fd >= 0:
            poll.register(self.terminal.fd, 0)  # its end is told unasked
        for generation in self.generations:
            for fd in generation.descriptors():
                poll.register(fd, select.POLLIN)
        deadlines = [self.drain_until, self.stop_deadline, self.notifier.next, self.next_image.deadline]
        deadlines += self.generations.deadlines()
        known = [deadline for deadline in deadlines if deadline is not None]
        poll.poll(max(0.0, min(known) - time.monotonic()) * 1000 + 1 if known else None)
        self.terminal.look()
        self.notifier.keep_alive()

    # -- signals -------------------------------------------------------------------------------------------------------

    def _signals(self) -> bytes:
        try:
            return os.read(self._wakeup, 1024)
        except BlockingIOError:
            return b""

    def _handle(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _STOP:
                if time.monotonic() - self._told_to_stop_at >= SAME_STOP:
                    self.stop(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self._hung_up_at = time.monotonic()
                if self.terminal.was_closed:
                    self.stop("SIGHUP, the terminal was closed")
                else:
                    self.generations.reload()
            elif number == signal.SIGUSR2:
                self.upgrade()
            elif number == signal.SIGWINCH and sys.stdin is not None and sys.stdin.isatty():
                pass  # a terminal that changed its size
            elif number in _WORDS:
                # As words, not as signals: what a terminal or a service manager sends to all processes at once must
                # not count twice, and a generation that boots hears them when it can.
                for generation in self.generations:
                    generation.say(_WORDS[number])

    def stop(self, reason: str) -> None:
        """Gracefully, after `drain_delay`; a second time without that, and then at once."""
        self._told_to_stop_at = time.monotonic()
        if not self.board.draining and self.place.drain_delay:
            # Not ready any more, and closing after each answer, but accepting: a load balancer notices late.
            self.board.drain()
            say("INFO", f"{reason}: draining for {self.place.drain_delay:g} s")
            self.notifier.stopping()
            self.drain_until = time.monotonic() + self.place.drain_delay
            self.generations.want_no_more()
            return
        first = self.stop_deadline is None
        if first:
            self.drain_until = None
            if not self.place.brief:
                say("INFO", f"{reason}: stopping")
            self.notifier.stopping()
            self.board.stop()
            self.stop_deadline = time.monotonic() + self.place.graceful_timeout + PATIENCE
            self.generations.want_no_more()
        else:
            say("INFO", f"{reason} again: stopping at once")
            self.stop_deadline = time.monotonic() + PATIENCE
            for generation in self.generations:
                if generation.pid is None:
                    self.workers.kill(generation)
        for generation in self.generations:
            if generation.pid is None:
                generation.retire()
            elif generation.has_booted:
                generation.say("stop" if first else "quick")
            else:  # it does not listen yet, and has nothing to finish
                generation.signal(signal.SIGTERM)

    # -- upgrade -------------------------------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """This process itself anew, with the interpreter and the django-prefork that are there now; then a reload."""
        # The next image would not know until when it is to drain.
        if self.board.draining or self.next_image.pid is not None or not self.generations.ever_healthy:
            say("INFO", "SIGUSR2: not now")
        else:
            self.next_image.probe(self._words())

    def _take_over(self) -> None:
        """By the next image of this process, which has been tried."""
        say("INFO", f"SIGUSR2: {self.next_image.executable} takes over")
        self.generations.prepare_upgrade()
        self.next_image.become(self._words())

    def _words(self) -> dict[str, Any]:
        """For the next image of this process."""
        descriptors = [self.board.fd, *self.place.descriptors(), *self.generations.descriptors()]
        if self.changes is not None:
            descriptors.append(self.changes.fd)
        return {
            "command": self.command,
            "board": self.board.fd,
            "queues": self.place.queues,
            "pid_file": self.place.pid_file,
            "place": self.place.words,
            "environment": self.notifier.environment,
            "terminal": self.terminal.watched,
            "watched": None if self.changes is None else self.changes.fd,
            "descriptors": descriptors,
            **self.generations.words(),
        }

    # -- what generations say, and their end ---------------------------------------------------------------------------

    def _listen(self) -> None:
        for generation in self.generations:
            generation.listen()
            for message in generation.messages():
                self._heard(generation, message)

    def _heard(self, generation: Generation, message: str) -> None:
        word, _, rest = message.partition(" ")
        generation.progress = time.monotonic()
        if word == "place":
            generation.place = json.loads(rest)
        elif word == "booted":
            generation.booted()
            if self.stop_deadline is not None:
                generation.say("stop")
        elif word == "worker" and generation.stage is Stage.BOOTING:
            self.generations.worker_ready(generation)
        elif word == "ready" and generation.stage is Stage.BOOTING:
            self.generations.ready(generation)
        elif word == "failed" and generation.stage is Stage.BOOTING:
            self.generations.fail(generation, rest)
        elif word == "stacks":  # of a worker that is not its own
            for other in self.generations:
                if other is not generation:
                    other.say(f"stacks:{rest}")
        elif word == "changed" and generation.stage in (Stage.BOOTING, Stage.SERVING):
            when, _, path = rest.partition(" ")
            # What a worker has imported late, and what was written before, may be the code's own doing.
            in_boot = when == "late" or (when == "boot" and generation.may_have_written(path))
            self.generations.changed(path, in_boot=in_boot)
        elif word == "steer":
            self._steer(rest)
        elif word == "reload":
            if time.monotonic() - self._hung_up_at >= SAME_SIGNAL:
                self.generations.reload()
        elif word == "upgrade":
            self.upgrade()
        elif word == "stop" and self.stop_deadline is not None:
            generation.say("stop")  # our signal came when it had just begun to listen to words
        elif word == "stop" and not self.board.draining and generation.stage is not Stage.FAILED:
            self.stop(f"{rest} to the arbiter")

    def _steer(self, text: str) -> None:
        """What somebody asks for at the control socket: as by a signal, but that it is said who."""
        what, _, who = text.partition(" ")
        say("INFO", f"{who}: {what}")
        if what == "reload":
            self.generations.reload()
        elif what == "stop":
            self.stop(who)
        elif what == "drain":
            self.board.drain()
            self.notifier.stopping()
        elif what.startswith("scale:"):
            for generation in self.generations:
                generation.say(what)

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
            if pid == self.next_image.pid:
                if self.next_image.worked(status) and not self.board.draining:
                    self._take_over()
                continue
            for generation in self.generations:
                if generation.pid == pid:
                    self._arbiter_ended(generation, status)
                    break
            else:
                self.workers.ended(pid, status)
        self.generations.bury()

    def _arbiter_ended(self, generation: Generation, status: int) -> None:
        for message in generation.messages():  # its last words
            self._heard(generation, message)
        generation.listen()
        name = generation.name
        generation.pid = None
        self.board.forget(generation.number)
        if self.stop_deadline is not None or generation.life is None:
            generation.retire()
        elif not self.generations.ever_healthy and self.changes is None:
            # Nothing ever served: whoever started us must hear of it, and try again when it is mended.
            say("ERROR", f"the arbiter {name} {how(status)} before it was ready")
            self.board.stop()
            generation.retire()
            self.status = status if status > 0 else 1
            self.stop_deadline = time.monotonic() + PATIENCE
        elif status == 0 and generation.stage is not Stage.BOOTING:
            generation.retire()
            self.stop(f"the arbiter {name} left")
        else:
            self.generations.lost(generation, name, status)

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _end_what_stays(self) -> None:
        now = time.monotonic()
        if self.drain_until is not None and now >= self.drain_until:
            self.stop("drained")
        self.next_image.end_what_stays(now)
        self.generations.end_what_stays(now)
        if self.stop_deadline is not None and now >= self.stop_deadline:
            self.stop_deadline = now + PATIENCE
            for generation in self.generations:
                if generation.pid is not None:
                    say("ERROR", f"the arbiter {generation.name} has not left: killed")
                    generation.signal(signal.SIGKILL)
                self.workers.kill(generation)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finished(self) -> bool:
        return self.stop_deadline is not None and not self.generations


def _note(number: int, frame: object) -> None:
    """The wake-up descriptor has the signal already."""
