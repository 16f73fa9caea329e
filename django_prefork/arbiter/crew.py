"""The workers of one generation: as many as there should be, what they say, and their end."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable

from django_prefork import multiprocess, signals
from django_prefork.arbiter import policy
from django_prefork.arbiter.children import Child, Children, Stage
from django_prefork.arbiter.chronicle import Chronicle
from django_prefork.arbiter.nursery import CannotFork, Nursery
from django_prefork.arbiter.stacks import Stacks
from django_prefork.arbiter.superior import Superior
from django_prefork.arbiter.throttle import Throttle
from django_prefork.config import Config
from django_prefork.layout import SLOTS
from django_prefork.log import AccessLog
from django_prefork.memory import OutOfMemory
from django_prefork.report import quoted
from django_prefork.scoreboard import Scoreboard, State
from django_prefork.worker import handoff
from django_prefork.worker.worker import LEAVE_SIGNAL

logger = logging.getLogger("django_prefork")

# Those that nobody has told to leave.
_STAYING = (Stage.BOOTING, Stage.SERVING, Stage.EXPIRING)


class Crew:
    """Forks what is missing and retires what is too much.

    `forget` closes in a worker what is the Arbiter's alone. `one_at_a_time` is how it is forked beside an older
    generation: there is memory for one more, not for twice as many.
    """

    def __init__(
        self,
        config: Config,
        *,
        board: Scoreboard,
        generation: int,
        queues: list[list[int]],
        children: Children,
        nursery: Nursery,
        superior: Superior,
        stacks: Stacks,
        chronicle: Chronicle,
        access_log: AccessLog | None,
        forget: Callable[[], None],
        one_at_a_time: bool,
    ) -> None:
        self._config = config
        self._board = board
        self._generation = generation
        self._queues = queues
        self._children = children
        self._nursery = nursery
        self._superior = superior
        self._stacks = stacks
        self._chronicle = chronicle
        self._access_log = access_log
        self._forget = forget
        self._one_at_a_time = one_at_a_time
        self._throttle = Throttle()
        self._out_of_memory = OutOfMemory()
        self._target = config.workers
        #: All of them have been ready at one time.
        self.ready = False
        #: None has ever been, and none will be.
        self.gave_up = False
        self._served = False
        self._winched = False
        #: Workers are forked anew for a test, and whoever runs it waits for them.
        self._renewing = False
        #: How many gave way to those of a newer generation that boots.
        self._yielded = 0
        self._last_traceback = ""

    # -- how many ------------------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many there are to be."""
        return 0 if self._winched else self._target

    def more(self) -> None:
        self._winched = False
        self._target = min(self._target + 1, SLOTS // 2)
        logger.info("SIGTTIN: %d workers", self._target)

    def fewer(self) -> None:
        self._target = max(1, self._target - 1)
        logger.info("SIGTTOU: %d workers", self._target)

    def scale(self, count: int) -> None:
        self._winched = False
        self._target = count
        logger.info("scaled: %d workers", count)

    def none(self) -> None:
        """Retire all; the sockets stay open, and connections wait in them."""
        self._winched = True
        logger.info("SIGWINCH: all workers retire until SIGTTIN or SIGHUP")

    def give_way(self) -> None:
        """A newer generation's worker is ready: one of ours may go."""
        self._yielded += 1

    def restore(self) -> None:
        """That generation has failed: all of ours are needed again."""
        self._yielded = 0

    def renew(self, why: str, *, tell: bool = False) -> None:
        """Others, that know what is loaded now, in the place of those there are. `tell`: when they are ready."""
        self._renewing = self._renewing or tell
        self._throttle.forgive()
        for child in self._children.at(*_STAYING):
            self._retire(child, "reload", why)

    # -- so many -------------------------------------------------------------------------------------------------------

    def manage(self) -> None:
        """Fork what is missing, retire what is too much."""
        if not self.ready and len(self._children.at(Stage.SERVING, Stage.EXPIRING)) >= self._target:
            self.ready = True
            self._superior.tell("ready")
            logger.info("arbiter gen=%d pid=%d ready: %d workers", self._generation, os.getpid(), self._target)
            signals.emit(signals.server_ready, workers=self._target)
        if self._renewing and len(self._children.at(Stage.SERVING)) >= self._target and not self._unheard():
            self._renewing = False
            self._superior.tell("renewed")
        # Not before it is ready: what waits for that would wait for ever.
        target = 0 if self._winched and self.ready else max(0, self._target - self._yielded)
        expiring = self._children.at(Stage.EXPIRING)
        if expiring and len(self._children.at(Stage.SERVING, Stage.EXPIRING)) > target:
            # Its successor is ready. One at a time: the others serve on until theirs is.
            self._retire(expiring.pop(0), "expired", "expired")
        wanted = target + (1 if expiring and target else 0)
        staying = self._children.at(*_STAYING)
        for child in policy.surplus(staying, wanted):
            if self._yielded:
                self._retire(child, "reload", "gives way to the new generation")
            else:
                self._retire(child, "scale", "too many workers")
        for _ in range(wanted - len(staying)):
            if self._one_at_a_time and not self.ready and self._children.at(Stage.BOOTING):
                break
            if time.monotonic() < self._throttle.next_start or not self._spawn():
                break

    def _unheard(self) -> bool:
        """Whether one that was told to leave is at rest, as if nobody had told it: it would take what comes next."""
        return any(self._board.read(child.slot).state is State.IDLE for child in self._children.at(Stage.LEAVING))

    @property
    def next_start(self) -> float:
        """Before when none is forked (monotonic)."""
        return self._throttle.next_start

    def _spawn(self) -> bool:
        """Fork one worker; whether that worked."""
        try:
            child = self._nursery.fork(self._children, self._superior.life, self._forget)
        except CannotFork as error:
            logger.error("%s; the next worker starts in %.1f s", error, self._throttle.could_not_fork())
            return False
        self._out_of_memory.look()  # what was before its time is not its
        self._children.add(child)
        return True

    def _retire(self, child: Child, reason: str, why: str) -> None:
        """One, while the server goes on: it has as long as a request may take."""
        logger.info("%s retires: %s", child.name, why)
        if self._config.timeout:
            child.leave_deadline = time.monotonic() + self._config.timeout + self._config.timeout_grace
        self._tell_to_leave(child, reason, why)

    def dismiss(self, reason: str, why: str) -> None:
        """All of them; until when they may stay is the generation's affair."""
        for child in self._children.at(*_STAYING):
            self._tell_to_leave(child, reason, why)

    def _tell_to_leave(self, child: Child, reason: str, why: str) -> None:
        child.stage = Stage.LEAVING
        self._board.tell_leaving(child.slot)
        child.reason, child.why = reason, child.why or why
        child.kill(LEAVE_SIGNAL)

    # -- what they say, and their end ----------------------------------------------------------------------------------

    def listen(self) -> None:
        for child in self._children:
            for message in child.messages():
                self._heard(child, message)

    def _heard(self, child: Child, message: str) -> None:
        word, _, rest = message.partition(" ")
        if word == "ready" and child.stage is Stage.BOOTING:
            child.stage = Stage.SERVING
            self._served = True
            self._last_traceback = ""
            if not self.ready:
                self._superior.tell("worker")
        elif word == "expire" and child.stage is Stage.SERVING:
            child.stage = Stage.EXPIRING
            child.why = rest
            logger.info("%s asks for a successor: %s", child.name, rest)
        elif word == "stacks" and rest.isdecimal():
            if not self._stacks.ask(int(rest), time.monotonic()):
                self._superior.tell(f"stacks {rest}")
        elif word == "reload":
            logger.info("%s asks for a reload%s", child.name, rest and f": {rest}")
            self._superior.tell("reload")
        elif word == "failed":
            text = rest.replace("\v", "\n")
            if text != self._last_traceback:  # once, not at every try
                self._last_traceback = text
                logger.error("%s failed\n%s", child.name, text)

    def reap(self) -> None:
        """Bury the dead. Only known pids: what the project's code forked in this process is its own."""
        for pid in self._children.pids():
            try:
                found, code = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, code = pid, 0  # somebody else has waited for it
            if found:
                child = self._children.remove(pid)
                assert child is not None
                for message in child.messages():
                    self._heard(child, message)
                self._bury(child, os.waitstatus_to_exitcode(code))

    def _bury(self, child: Child, status: int) -> None:
        reading = self._board.read(child.slot)
        # While the slot is nobody else's.
        multiprocess.worker_ended(child.slot)
        if self._access_log is not None:
            self._access_log.rescue(child.slot)
        self._board.free(child.slot)
        child.close()
        released = self._board.stopping or self._board.released(self._generation)
        if status == 0 and released and child.stage in _STAYING:
            # The generation's pipe has ended, which it has seen before us.
            child.stage, child.reason = Stage.LEAVING, "stop" if self._board.stopping else "reload"
        expected = child.stage in (Stage.LEAVING, Stage.DOOMED)
        name = child.name
        expected_end = expected and status in (0, -signal.SIGKILL)
        text = _how(status)
        if expected_end:
            logger.info("%s gone", name)
        elif status == 0:
            text = "gone of its own accord"
            logger.info("%s gone of its own accord", name)
        else:
            served = f" while serving {quoted(reading.request)}" if reading.serves else ""
            ago = self._out_of_memory.look() if status == -signal.SIGKILL else None
            why = "" if ago is None else f"; the kernel has killed for lack of memory in the last {ago:.1f} s"
            text = f"{text}{served}{why}"
            logger.error("%s %s", name, text)
        self._chronicle.ended(child, status, expected_end, text)
        signals.emit(
            signals.worker_died,
            slot=child.slot,
            generation=self._generation,
            pid=child.pid,
            status=status,
            expected=expected,
        )
        if self._queues:
            # The kernel may have woken it for a connection that it never took: another must look.
            handoff.kick(self._queues[0][0])
        if not expected:
            self._back_off(child, status)

    def _back_off(self, child: Child, status: int) -> None:
        if self.gave_up or not self._throttle.blames(child, status):
            return
        failures = self._throttle.failures
        if not self.ready and failures >= policy.GIVE_UP:
            if self._generation > 1:
                # The old code serves: the Supervisor lets us go, and that one have its strength back.
                self._superior.tell(f"failed {failures} workers of it in a row did not start")
                self._throttle.pause()
                return
            if not self._served:
                # Nothing ever served: whoever started us must hear of it.
                logger.error("%d workers in a row failed to start: giving up", failures)
                self.gave_up = True
                return
        self._throttle.slow_down(status)


def _how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
