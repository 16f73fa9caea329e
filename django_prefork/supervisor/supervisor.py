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
from django_prefork.supervisor.generation import Generation, Stage
from django_prefork.supervisor.notify import Notifier
from django_prefork.supervisor.place import Place
from django_prefork.supervisor.system import how, say
from django_prefork.supervisor.terminal import Terminal
from django_prefork.supervisor.upgrade import Upgrade
from django_prefork.supervisor.workers import Workers

# A new Arbiter after one that was lost comes at once; one that keeps failing, ever more slowly (seconds).
BACKOFF = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
# How much longer than an Arbiter itself the Supervisor waits for it, in seconds: the Arbiter names what it kills.
PATIENCE = 1.0
# A SIGHUP to the whole process group comes from the Arbiter as well, by its word: within this time (seconds) it is one.
SAME_SIGNAL = 2.0

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
        #: In the order they were started; the last one is the newest.
        self.generations = [Generation.of(item) for item in words["generations"]]
        #: Numbers are never used again: the scoreboard says by them who was let go.
        self.last_number: int = words["last_number"]
        self.notifier = Notifier(words["environment"])
        # Ignored signals stay ignored over an exec; nohup asks for that.
        self.terminal = Terminal(words.get("terminal", signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN))
        self.status = 0
        self.drain_until: float | None = None
        self.stop_deadline: float | None = None
        self.next_start: float | None = None
        self.failures = 0
        self.ever_healthy: bool = words["ever_healthy"]
        #: A reload was asked for, while one runs or before it can: one more is enough, however often it was asked.
        self.reload_wanted: bool = words["reload_wanted"]
        #: When SIGHUP came to this process itself.
        self._hung_up_at = -SAME_SIGNAL
        #: With `--reload`: what is looked at here while no generation serves.
        self.changes = Changes(words["watched"]) if words["watched"] is not None else None
        self._last_said = ""
        if self.changes is not None:
            self.changes.begin(words.get("began"))

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
            self._look_for_changes()
            self._begin()
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
        deadlines = [
            self.drain_until,
            self.stop_deadline,
            self.next_start,
            self.notifier.next,
            self.next_image.deadline,
        ]
        deadlines += [self._boot_deadline(generation) for generation in self.generations]
        deadlines += [self._retire_deadline(generation) for generation in self.generations]
        if self.changes is not None and self._nobody_watches():
            deadlines.append(self.changes.next)
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
                self.stop(signal.Signals(number).name)
            elif number == signal.SIGHUP:
                self._hung_up_at = time.monotonic()
                if self.terminal.was_closed:
                    self.stop("SIGHUP, the terminal was closed")
                else:
                    self.reload()
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
        if not self.board.draining and self.place.drain_delay:
            # Not ready any more, and closing after each answer, but accepting: a load balancer notices late.
            self.board.drain()
            say("INFO", f"{reason}: draining for {self.place.drain_delay:g} s")
            self.notifier.stopping()
            self.drain_until = time.monotonic() + self.place.drain_delay
            self.next_start = None
            self.reload_wanted = False
            return
        first = self.stop_deadline is None
        if first:
            self.drain_until = None
            if not self.place.brief:
                say("INFO", f"{reason}: stopping")
            self.notifier.stopping()
            self.board.stop()
            self.stop_deadline = time.monotonic() + self.place.graceful_timeout + PATIENCE
            self.next_start = None
            self.reload_wanted = False
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

    # -- reload --------------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """New code, same PID: a new generation beside the old, which stays until the new one is ready."""
        if self.board.draining:
            say("INFO", "SIGHUP: the server stops already")
        elif not self.reload_wanted:
            self.reload_wanted = True
            if (booting := self._booting()) is not None:
                say("INFO", f"SIGHUP: once gen={booting.number} has started")

    def upgrade(self) -> None:
        """This process itself anew, with the interpreter and the django-prefork that are there now; then a reload."""
        if self.stop_deadline is not None or self.next_image.pid is not None or not self.ever_healthy:
            say("INFO", "SIGUSR2: not now")
        else:
            self.next_image.probe(self._words())

    def _take_over(self) -> None:
        """By the next image of this process, which has been tried."""
        say("INFO", f"SIGUSR2: {self.next_image.executable} takes over")
        # A generation that boots would not find us again: it is ended, and the reload behind this starts it anew.
        if (booting := self._booting()) is not None:
            say("INFO", f"{booting.name} is started anew after the upgrade")
            self._end(booting)
            while booting.pid is not None:
                booting.signal(signal.SIGKILL)
                os.waitpid(booting.pid, 0)
                booting.pid = None
                self.board.forget(booting.number)
            self._bury()
        self.reload_wanted = True
        self.next_image.become(self._words())

    def _words(self) -> dict[str, Any]:
        """For the next image of this process."""
        descriptors = [self.board.fd, *self.place.descriptors()]
        for generation in self.generations:
            descriptors.append(generation.control.fileno())
            if generation.life is not None:
                descriptors.append(generation.life)
        if self.changes is not None:
            descriptors.append(self.changes.fd)
        return {
            "command": self.command,
            "board": self.board.fd,
            "queues": self.place.queues,
            "pid_file": self.place.pid_file,
            "place": self.place.words,
            "generations": [generation.words() for generation in self.generations],
            "environment": self.notifier.environment,
            "last_number": self.last_number,
            "terminal": self.terminal.watched,
            "ever_healthy": self.ever_healthy,
            "reload_wanted": self.reload_wanted,
            "watched": None if self.changes is None else self.changes.fd,
            "descriptors": descriptors,
        }

    # -- generations ---------------------------------------------------------------------------------------------------

    def _booting(self) -> Generation | None:
        """The one that boots; only the newest ever does."""
        if self.generations and self.generations[-1].stage is Stage.BOOTING:
            return self.generations[-1]
        return None

    def _older(self, generation: Generation) -> list[Generation]:
        return [other for other in self.generations if other.number < generation.number]

    def _begin(self) -> None:
        """Start a generation, if one is wanted and none boots."""
        now = time.monotonic()
        if self.board.draining or self._booting() is not None:
            return
        if self.next_start is not None:
            if now < self.next_start:
                return
            self.next_start = None
        elif not self.reload_wanted:
            return
        self.reload_wanted = False
        number = self.last_number + 1
        if self.changes is not None:
            self.changes.begin()
        try:
            generation = Generation.start(
                number,
                self.command,
                self.board.fd,
                self.place.queues,
                self.place.listeners,
                None if self.changes is None else self.changes.fd,
                is_first=not self.ever_healthy,
            )
        except OSError as error:
            self._start_again(f"cannot start gen={number}: {error.strerror}", at_least=1.0)
            return
        self.board.began(number)
        self.generations.append(generation)
        self.last_number = number
        self.notifier.reloading()
        if not self.place.brief:
            say("INFO", f"{generation.name} started")

    def _start_again(self, why: str, at_least: float = 0.0) -> None:
        delay = max(at_least, BACKOFF[min(self.failures, len(BACKOFF) - 1)])
        self.failures += 1
        self.next_start = time.monotonic() + delay
        say("ERROR", f"{why}; a new generation starts {f'in {delay:g} s' if delay else 'now'}")

    def _start_again_unless_watched(self) -> None:
        """No Arbiter is left. The same code would fail again, and with `--reload` other code is about to come."""
        if self.changes is None or self._outlived():
            self._start_again("there is no other arbiter")

    def _outlived(self) -> bool:
        """Whether workers serve on whose Arbiter was lost."""
        return any(generation.pid is None and generation.life is not None for generation in self.generations)

    def _nobody_watches(self) -> bool:
        return self.stop_deadline is None and not any(
            generation.stage is Stage.SERVING and generation.pid is not None for generation in self.generations
        )

    def _look_for_changes(self) -> None:
        """While a generation boots, or none could; one that serves has a watcher of its own."""
        if self.changes is not None and self._nobody_watches():
            path = self.changes.look()
            if path is not None:
                booting = self._booting()
                self._changed(path, in_boot=booting is not None and booting.may_have_written(path))

    def _changed(self, path: str, *, in_boot: bool) -> None:
        """With `--reload`: end what has the old code at once. Who asks in between waits for the new."""
        if self.changes is None or self.board.draining:
            return
        pause: float | None = 0.0
        if in_boot:
            known = path in self.changes.own
            pause = self.changes.judge(path)
            if pause is None:
                if not known:
                    say("WARNING", f"{inheritance.short(path)} changes with every start: that is no reason for another")
                return
        elif self.next_start is not None and self._nobody_watches():
            pause = self.changes.pause  # somebody still saves
        else:
            self.changes.settle(path)
        if (booting := self._booting()) is not None:
            self._end(booting)
        for generation in self.generations:
            if generation.life is not None:
                self.board.retire(generation.number)
                generation.retire()
        say("INFO", f"{inheritance.short(path)} changed: reloading")
        self.reload_wanted = True
        self.next_start = time.monotonic() + pause if pause else None
        self.failures = 0

    def _listen(self) -> None:
        for generation in list(self.generations):
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
            # One of its workers is ready: one of the others' may go. Capacity stays what it was.
            for older in self._older(generation):
                older.say("yield")
        elif word == "ready" and generation.stage is Stage.BOOTING:
            self._ready(generation)
        elif word == "failed" and generation.stage is Stage.BOOTING:
            self._fail(generation, rest)
        elif word == "stacks":  # of a worker that is not its own
            for other in self.generations:
                if other is not generation:
                    other.say(f"stacks:{rest}")
        elif word == "changed" and generation.stage in (Stage.BOOTING, Stage.SERVING):
            when, _, path = rest.partition(" ")
            # What a worker has imported late, and what was written before, may be the code's own doing.
            self._changed(path, in_boot=when == "late" or (when == "boot" and generation.may_have_written(path)))
        elif word == "steer":
            self._steer(rest)
        elif word == "reload":
            if time.monotonic() - self._hung_up_at >= SAME_SIGNAL:
                self.reload()
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
            self.reload()
        elif what == "stop":
            self.stop(who)
        elif what == "drain":
            self.board.drain()
            self.notifier.stopping()
        elif what.startswith("scale:"):
            for generation in self.generations:
                generation.say(what)

    def _ready(self, generation: Generation) -> None:
        generation.stage = Stage.SERVING
        self.ever_healthy = True
        self.failures = 0
        self.place.take_over(generation)
        for older in self._older(generation):
            if older.life is not None:
                if not self.place.brief:
                    say("INFO", f"gen={older.number} retires: gen={generation.number} is ready")
                self.board.retire(older.number)
                older.retire()
        self.notifier.ready(generation.number)

    def _fail(self, generation: Generation, why: str) -> None:
        """The new code does not boot: end it, give the old generation its strength back, say why, and nothing else."""
        generation.listen()
        said = generation.said.decode("utf-8", "replace").rstrip()
        generation.said = b""
        if self.changes is not None and not any(older.life is not None for older in self._older(generation)):
            text = f"gen={generation.number} {why}: waiting for a change"
            self.changes.add(said)
            self.changes.fail()
            # Once: a folder may have changed, and the mistake not.
            said, self._last_said = "" if said == self._last_said else said, said
        else:
            text = f"reload failed, gen={generation.number} {why}: the old code serves on"
        say("ERROR", f"{text}\n{said}" if said else text)
        self._end(generation)
        self.notifier.failed()

    def _end(self, generation: Generation) -> None:
        """It boots, and is not wanted any more."""
        generation.stage = Stage.FAILED
        self.place.turn_down(generation)
        if not generation.has_booted:
            generation.signal(signal.SIGTERM)
        self.board.fail(generation.number)
        generation.retire()
        for older in self._older(generation):
            older.say("restore")

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
                if self.next_image.worked(status) and self.stop_deadline is None:
                    self._take_over()
                continue
            for generation in self.generations:
                if generation.pid == pid:
                    self._arbiter_ended(generation, status)
                    break
            else:
                self.workers.ended(pid, status)
        self._bury()

    def _bury(self) -> None:
        for generation in list(self.generations):
            if generation.pid is None and generation.life is None and not self.workers.of(generation):
                self.board.bury(generation.number)
                generation.close()
                self.generations.remove(generation)

    def _arbiter_ended(self, generation: Generation, status: int) -> None:
        for message in generation.messages():  # its last words
            self._heard(generation, message)
        generation.listen()
        name, ended = generation.name, how(status)
        generation.pid = None
        self.board.forget(generation.number)
        if self.stop_deadline is not None or generation.life is None:
            generation.retire()
        elif not self.ever_healthy and self.changes is None:
            # Nothing ever served: whoever started us must hear of it, and try again when it is mended.
            say("ERROR", f"the arbiter {name} {ended} before it was ready")
            self.board.stop()
            generation.retire()
            self.status = status if status > 0 else 1
            self.stop_deadline = time.monotonic() + PATIENCE
        elif generation.stage is Stage.BOOTING and self.reload_wanted and status == -signal.SIGHUP:
            # It went to the whole process group, and we have heard it, too.
            say("INFO", f"{name} {ended} and is started anew")
            self._end(generation)
        elif generation.stage is Stage.BOOTING:
            self._fail(generation, ended)
            if not any(older.pid is not None and older.stage is Stage.SERVING for older in self.generations):
                self._start_again_unless_watched()
        elif status == 0:
            generation.retire()
            self.stop(f"the arbiter {name} left")
        else:
            if (booting := self._booting()) is not None:
                say("ERROR", f"the arbiter {name} {ended}: its workers serve on until gen={booting.number} is ready")
            else:
                self._start_again(f"the arbiter {name} {ended}: its workers serve on")

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def _boot_deadline(self, generation: Generation) -> float | None:
        """Only for a later generation: the first start may migrate, compile, wait for a database."""
        if generation.stage is not Stage.BOOTING or generation.pid is None or generation.number == 1:
            return None
        # Behind the Arbiter's own limit for a worker, which names the worker.
        return generation.progress + self.place.boot_timeout + PATIENCE

    def _retire_deadline(self, generation: Generation) -> float | None:
        if generation.retired_at is None or self.stop_deadline is not None:
            return None
        if generation.stage is Stage.FAILED and not generation.has_booted:
            return generation.retired_at + PATIENCE
        limit = self.place.retire_timeout
        return generation.retired_at + limit + PATIENCE if limit else None

    def _end_what_stays(self) -> None:
        now = time.monotonic()
        if self.drain_until is not None and now >= self.drain_until:
            self.stop("drained")
        self.next_image.end_what_stays(now)
        for generation in self.generations:
            boot = self._boot_deadline(generation)
            if boot is not None and now >= boot:
                self._fail(generation, f"was not ready after {self.place.boot_timeout:g} s")
                if not any(older.pid is not None for older in self._older(generation)):
                    self._start_again_unless_watched()
            retire = self._retire_deadline(generation)
            if retire is not None and now >= retire:
                generation.retired_at = now  # again only after as long
                self.workers.kill(generation)
                generation.signal(signal.SIGKILL)
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
