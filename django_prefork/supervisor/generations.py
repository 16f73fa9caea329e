"""Which generations there are, when the next one starts, and how it takes the place of those before it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

from django_prefork import inheritance
from django_prefork.scoreboard import Scoreboard
from django_prefork.supervisor.changes import Changes
from django_prefork.supervisor.generation import PATIENCE, Generation, Stage
from django_prefork.supervisor.notify import Notifier
from django_prefork.supervisor.place import Place
from django_prefork.supervisor.system import how, say
from django_prefork.supervisor.workers import Workers

# A new Arbiter after one that was lost comes at once; one that keeps failing, ever more slowly (seconds).
BACKOFF = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)


class Generations:
    """In the order they were started; the last one is the newest. `words` is what the Supervisor inherits of them.

    `changes`, with `--reload`, is what is looked at here while no generation serves.
    """

    def __init__(
        self,
        words: dict[str, Any],
        *,
        board: Scoreboard,
        place: Place,
        workers: Workers,
        notifier: Notifier,
        changes: Changes | None,
    ) -> None:
        self._all = [Generation.of(item) for item in words["generations"]]
        self._command: dict[str, Any] = words["command"]
        self._board = board
        self._place = place
        self._workers = workers
        self._notifier = notifier
        self._changes = changes
        #: Whether one has ever been ready.
        self.ever_healthy: bool = words["ever_healthy"]
        #: A reload was asked for, while one runs or before it can: one more is enough, however often it was asked.
        self.reload_wanted: bool = words["reload_wanted"]
        #: Numbers are never used again: the scoreboard says by them who was let go.
        self._last_number: int = words["last_number"]
        self._next_start: float | None = None
        self._failures = 0
        self._last_said = ""

    def __iter__(self) -> Iterator[Generation]:
        return iter(list(self._all))

    def __len__(self) -> int:
        return len(self._all)

    def words(self) -> dict[str, Any]:
        """For the next image of this process."""
        return {
            "generations": [generation.words() for generation in self._all],
            "last_number": self._last_number,
            "ever_healthy": self.ever_healthy,
            "reload_wanted": self.reload_wanted,
        }

    def descriptors(self) -> list[int]:
        """What that needs of them."""
        found = []
        for generation in self._all:
            found.append(generation.control.fileno())
            if generation.life is not None:
                found.append(generation.life)
        return found

    def _booting(self) -> Generation | None:
        """The one that boots; only the newest ever does."""
        if self._all and self._all[-1].stage is Stage.BOOTING:
            return self._all[-1]
        return None

    def _older(self, generation: Generation) -> list[Generation]:
        return [other for other in self._all if other.number < generation.number]

    # -- the next one --------------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """New code, same PID: a new generation beside the old, which stays until the new one is ready."""
        if self._board.draining:
            say("INFO", "SIGHUP: the server stops already")
        elif not self.reload_wanted:
            self.reload_wanted = True
            if (booting := self._booting()) is not None:
                say("INFO", f"SIGHUP: once gen={booting.number} has started")

    def want_no_more(self) -> None:
        """The server stops."""
        self._next_start = None
        self.reload_wanted = False

    def begin(self) -> None:
        """Start a generation, if one is wanted and none boots."""
        now = time.monotonic()
        if self._board.draining or self._booting() is not None:
            return
        if self._next_start is not None:
            if now < self._next_start:
                return
            self._next_start = None
        elif not self.reload_wanted:
            return
        self.reload_wanted = False
        number = self._last_number + 1
        if self._changes is not None:
            self._changes.begin()
        try:
            generation = Generation.start(
                number,
                self._command,
                self._board.fd,
                self._place.queues,
                self._place.listeners,
                None if self._changes is None else self._changes.fd,
                is_first=not self.ever_healthy,
            )
        except OSError as error:
            self._start_again(f"cannot start gen={number}: {error.strerror}", at_least=1.0)
            return
        self._board.began(number)
        self._all.append(generation)
        self._last_number = number
        self._notifier.reloading()
        if not self._place.brief:
            say("INFO", f"{generation.name} started")

    def _start_again(self, why: str, at_least: float = 0.0) -> None:
        delay = max(at_least, BACKOFF[min(self._failures, len(BACKOFF) - 1)])
        self._failures += 1
        self._next_start = time.monotonic() + delay
        say("ERROR", f"{why}; a new generation starts {f'in {delay:g} s' if delay else 'now'}")

    def _start_again_unless_watched(self) -> None:
        """No Arbiter is left. The same code would fail again, and with `--reload` other code is about to come."""
        if self._changes is None or self._outlived():
            self._start_again("there is no other arbiter")

    def _outlived(self) -> bool:
        """Whether workers serve on whose Arbiter was lost."""
        return any(generation.pid is None and generation.life is not None for generation in self._all)

    # -- what becomes of it --------------------------------------------------------------------------------------------

    def worker_ready(self, generation: Generation) -> None:
        """One of its workers is: one of the others' may go. Capacity stays what it was."""
        for older in self._older(generation):
            older.say("yield")

    def ready(self, generation: Generation) -> None:
        """All of its workers are: those before it retire."""
        generation.stage = Stage.SERVING
        self.ever_healthy = True
        self._failures = 0
        self._last_said = ""  # who makes the same mistake once more is told once more
        self._place.take_over(generation)
        for older in self._older(generation):
            if older.life is not None:
                if not self._place.brief:
                    say("INFO", f"gen={older.number} retires: gen={generation.number} is ready")
                self._board.retire(older.number)
                older.retire()
        self._notifier.ready(generation.number)

    def fail(self, generation: Generation, why: str) -> None:
        """The new code does not boot: end it, give the old generation its strength back, say why, and nothing else."""
        generation.listen()
        said = generation.said.decode("utf-8", "replace").rstrip()
        generation.said = b""
        if self._changes is not None and not any(older.life is not None for older in self._older(generation)):
            text = f"gen={generation.number} {why}: waiting for a change"
            self._changes.add(said)
            self._changes.fail()
            # Once: a folder may have changed, and the mistake not.
            said, self._last_said = "" if said == self._last_said else said, said
        else:
            text = f"reload failed, gen={generation.number} {why}: the old code serves on"
        say("ERROR", f"{text}\n{said}" if said else text)
        self._end(generation)
        self._notifier.failed()

    def _end(self, generation: Generation) -> None:
        """It boots, and is not wanted any more."""
        generation.stage = Stage.FAILED
        self._place.turn_down(generation)
        if not generation.has_booted:
            generation.signal(signal.SIGTERM)
        self._board.fail(generation.number)
        generation.retire()
        for older in self._older(generation):
            older.say("restore")

    def prepare_upgrade(self) -> None:
        """The next image of this process begins with a reload; it would not find one that boots now."""
        if (booting := self._booting()) is not None:
            say("INFO", f"{booting.name} is started anew after the upgrade")
            self._end(booting)
            while booting.pid is not None:
                booting.signal(signal.SIGKILL)
                os.waitpid(booting.pid, 0)
                booting.pid = None
                self._board.forget(booting.number)
            self.bury()
        self.reload_wanted = True

    def lost(self, generation: Generation, name: str, status: int) -> None:
        """Its Arbiter has ended, which nobody wanted: whoever serves serves on until there is another."""
        ended = how(status)
        if generation.stage is Stage.BOOTING and self.reload_wanted and status == -signal.SIGHUP:
            # It went to the whole process group, and we have heard it, too.
            say("INFO", f"{name} {ended} and is started anew")
            self._end(generation)
        elif generation.stage is Stage.BOOTING:
            self.fail(generation, ended)
            if not any(older.pid is not None and older.stage is Stage.SERVING for older in self._all):
                self._start_again_unless_watched()
        elif (booting := self._booting()) is not None:
            say("ERROR", f"the arbiter {name} {ended}: its workers serve on until gen={booting.number} is ready")
        else:
            self._start_again(f"the arbiter {name} {ended}: its workers serve on")

    def bury(self) -> None:
        """Forget those of which nobody is left."""
        for generation in self:
            if generation.pid is None and generation.life is None and not self._workers.of(generation):
                self._board.bury(generation.number)
                generation.close()
                self._all.remove(generation)

    # -- with `--reload` -----------------------------------------------------------------------------------------------

    def look_for_changes(self) -> None:
        """While a generation boots, or none could; one that serves has a watcher of its own."""
        if self._changes is not None and self._nobody_watches():
            path = self._changes.look()
            if path is not None:
                booting = self._booting()
                self.changed(path, in_boot=booting is not None and booting.may_have_written(path))

    def _nobody_watches(self) -> bool:
        return not self._board.stopping and not any(
            generation.stage is Stage.SERVING and generation.pid is not None for generation in self._all
        )

    def changed(self, path: str, *, in_boot: bool) -> None:
        """End what has the old code at once. Who asks in between waits for the new."""
        if self._changes is None or self._board.draining:
            return
        pause: float | None = 0.0
        if in_boot:
            known = path in self._changes.own
            pause = self._changes.judge(path)
            if pause is None:
                if not known:
                    say("WARNING", f"{inheritance.short(path)} changes with every start: that is no reason for another")
                return
        elif self._next_start is not None and self._nobody_watches():
            pause = self._changes.pause  # somebody still saves
        else:
            self._changes.settle(path)
        if (booting := self._booting()) is not None:
            self._end(booting)
        for generation in self._all:
            if generation.life is not None:
                self._board.retire(generation.number)
                generation.retire()
        say("INFO", f"{inheritance.short(path)} changed: reloading")
        self.reload_wanted = True
        self._next_start = time.monotonic() + pause if pause else None
        self._failures = 0

    # -- deadlines -----------------------------------------------------------------------------------------------------

    def deadlines(self) -> list[float | None]:
        found = [self._next_start]
        found += [self._boot_deadline(generation) for generation in self._all]
        found += [self._retire_deadline(generation) for generation in self._all]
        if self._changes is not None and self._nobody_watches():
            found.append(self._changes.next)
        return found

    def _boot_deadline(self, generation: Generation) -> float | None:
        """Only for a later generation: the first start may migrate, compile, wait for a database."""
        if generation.stage is not Stage.BOOTING or generation.pid is None or generation.number == 1:
            return None
        # Behind the Arbiter's own limit for a worker, which names the worker.
        return generation.progress + self._place.boot_timeout + PATIENCE

    def _retire_deadline(self, generation: Generation) -> float | None:
        if generation.retired_at is None or self._board.stopping:
            return None
        if generation.stage is Stage.FAILED and not generation.has_booted:
            return generation.retired_at + PATIENCE
        limit = self._place.retire_timeout
        return generation.retired_at + limit + PATIENCE if limit else None

    def end_what_stays(self, now: float) -> None:
        for generation in self._all:
            boot = self._boot_deadline(generation)
            if boot is not None and now >= boot:
                self.fail(generation, f"was not ready after {self._place.boot_timeout:g} s")
                if not any(older.pid is not None for older in self._older(generation)):
                    self._start_again_unless_watched()
            retire = self._retire_deadline(generation)
            if retire is not None and now >= retire:
                generation.retired_at = now  # again only after as long
                self._workers.kill(generation)
                generation.signal(signal.SIGKILL)
