"""The Arbiter: one thread, one loop over signals, timers and children. It looks after workers and touches no client."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import time
from array import array
from collections.abc import Callable
from typing import Any, ClassVar

from django_prefork import inheritance, multiprocess, signals, status
from django_prefork.arbiter import policy
from django_prefork.arbiter.audit import Audit
from django_prefork.arbiter.children import Child, Children, Stage
from django_prefork.arbiter.chronicle import Chronicle
from django_prefork.arbiter.control import Control
from django_prefork.arbiter.desk import Desk, Talk
from django_prefork.arbiter.listeners import SERVE, STATUS, Listener
from django_prefork.arbiter.nursery import CannotFork, Nursery
from django_prefork.arbiter.pages import Pages, PageTalk
from django_prefork.arbiter.reloading import Reloading
from django_prefork.arbiter.stacks import Stacks
from django_prefork.arbiter.superior import Superior
from django_prefork.arbiter.throttle import Throttle
from django_prefork.arbiter.watch import NAP, Watch
from django_prefork.config import Config
from django_prefork.layout import SLOTS
from django_prefork.log import AccessLog
from django_prefork.memory import OutOfMemory
from django_prefork.report import quoted
from django_prefork.scoreboard import Scoreboard
from django_prefork.scoreboard import Stage as EraStage
from django_prefork.worker import handoff
from django_prefork.worker.worker import LEAVE_SIGNAL

logger = logging.getLogger("django_prefork")

# By name: on Linux SIGCLD hides SIGCHLD in any table built from dir(signal).
_HANDLED = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGCHLD,
)


class Arbiter:
    """Looks after the workers of one generation.

    `life` is the read end of the generation's pipe, `control` a stream socket to the Supervisor, `queues` what the
    workers hand connections over by, `ranges` what they copy ahead (`worker/prefault.py`).
    """

    def __init__(
        self,
        application: Callable[..., Any],
        config: Config,
        *,
        listeners: list[Listener],
        board: Scoreboard,
        generation: int,
        life: int,
        control: int,
        access_log: AccessLog | None = None,
        queues: list[list[int]] | None = None,
        audit: Audit | None = None,
        ranges: array[int] | None = None,
        reloading: Callable[[Arbiter], Reloading] | None = None,
    ) -> None:
        self.config = config
        #: For clients; those for people are at the desk.
        self.listeners = [listener for listener in listeners if listener.role == SERVE]
        self.pages = Pages(board, self.listeners)
        self.desk = Desk([listener for listener in listeners if listener.role != SERVE], self._greet)
        self.board = board
        self.generation = generation
        self.superior = Superior(life, control)
        self.access_log = access_log
        self.queues = queues or []
        self.target = config.workers
        self.children = Children()
        self.watch = Watch(config, board, self.children)
        self.stacks = Stacks(board, self.children)
        self.steering = Control(board, self.listeners, self.stacks, self.superior.tell)
        self.chronicle = Chronicle(board, generation, self.children)
        audit = audit or Audit()
        audit.ours = self.desk.descriptors
        self.nursery = Nursery(
            application,
            config,
            listeners=self.listeners,
            board=board,
            generation=generation,
            access_log=access_log,
            queues=self.queues,
            audit=audit,
            ranges=ranges,
        )
        self.ready = False
        self._served = False
        self.status = 0
        #: Set when it stops or retires: when what is left is killed, and why it leaves.
        self.deadline: float | None = None
        self.leaving = ""
        self._stopping = False
        self._winched = False
        #: Workers are forked anew for a test, and whoever runs it waits for them.
        self._renewing = False
        #: How many workers gave way to those of a newer generation that boots.
        self._yielded = 0
        #: When it last came back from waiting, or looked at the clock since.
        self._woke = time.monotonic()
        self._out_of_memory = OutOfMemory()
        self._throttle = Throttle()
        self._last_traceback = ""
        self.reloading = None if reloading is None else reloading(self)

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the last worker has left; the exit status."""
        self._receive_signals()
        status.attach(self.board, self.listeners)
        living = {era.number for era in self.board.eras()}
        multiprocess.be_arbiter(self.generation, living, self.board.supervisor)
        while not (self.leaving and not self.children):
            if self.reloading is not None and not self.leaving:
                self.reloading.manage()
            self.manage()
            planned = self._plan()
            self._wait(planned)
            self._listen()
            self.reap()
        for listener in self.listeners:
            listener.close()
        self.desk.close()
        logger.info("arbiter gen=%d leaves: %s", self.generation, self.leaving)
        return self.status

    def _receive_signals(self) -> None:
        self._wakeup, self._wakeup_write = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_write, False)
        signal.set_wakeup_fd(self._wakeup_write, warn_on_full_buffer=False)
        for number in _HANDLED:
            signal.signal(number, _note)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _credit(self, lost: float) -> None:
        if lost:
            self.watch.credit(lost)
            if self.deadline is not None:
                self.deadline += lost

    def _plan(self) -> float:
        """End what is over its time; return when to look again (monotonic)."""
        # It may have been stopped at any line, and whoever is judged now stood still as well.
        now = time.monotonic()
        self._credit(policy.lost_time(self._woke, now))
        self._woke = now
        again = min(self.watch.murder(), self.stacks.look(now), self.chronicle.look(now), self.desk.look(now))
        stage = EraStage.LEAVING if self.leaving else EraStage.READY if self.ready else EraStage.BOOTING
        self.chronicle.tell(stage, 0 if self._winched else self.target)
        if self.deadline is not None:
            if time.monotonic() >= self.deadline:
                # Whoever saved a file wants the old code gone, streams and all: that is nothing to report.
                wanted = self.reloading is not None and not self._stopping
                self.watch.kill_all(self.leaving, logging.INFO if wanted else logging.ERROR)
                self.deadline = time.monotonic() + NAP
            return min(again, self.deadline)
        next_start = self._throttle.next_start
        return min(again, next_start) if next_start > time.monotonic() else again

    def _wait(self, planned: float) -> None:
        """Sleep until `planned` (monotonic), or something happens."""
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        for fd in self.superior.descriptors():
            poll.register(fd, select.POLLIN)
        if self.reloading is not None:
            poll.register(self.reloading.fd, select.POLLIN)
        for child in self.children:
            poll.register(child.pipe, select.POLLIN)
        for fd, mask in self.desk.interests(self._woke, takes=self._takes_visitors()):
            poll.register(fd, mask)
        self._credit(policy.lost_time(self._woke, time.monotonic()))
        began = time.monotonic()
        ready = poll.poll(max(0.0, planned - began) * 1000 + 1)
        self._woke = time.monotonic()
        if policy.lost_time(planned, self._woke):
            # Since when it stood still nobody knows; at most since it went to sleep, and that is given.
            self._credit(self._woke - began)
        self._handle_signals()
        self._obey()
        if self.superior.has_ended():
            self.life_ended()
        self.desk.serve(ready)
        self._look_for_changes()

    def _takes_visitors(self) -> bool:
        """During a reload there are two Arbiters at one desk; the new one's turn is when it is ready."""
        return self.generation == 1 or self.ready or len(self.board.eras()) < 2

    def _greet(self, listener: Listener, sock: socket.socket) -> Talk | None:
        return PageTalk(self.pages) if listener.role == STATUS else self.steering.greet(sock)

    # -- signals -------------------------------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        try:
            numbers = os.read(self._wakeup, 1024)
        except BlockingIOError:
            return
        for number in numbers:
            handler = self._handlers.get(number)
            if handler is not None:
                handler(self)

    # Whoever signals this process means the server: the Supervisor hears it, and says what to do to all generations in
    # order. What a terminal sends to all processes of its group (INT, QUIT, WINCH, TTIN, TTOU) it has heard itself.

    def handle_term(self) -> None:
        if self.superior.life < 0:
            self.stop("SIGTERM")
        else:
            self.superior.tell("stop SIGTERM")

    def handle_hup(self) -> None:
        self.superior.tell("reload")

    def handle_usr2(self) -> None:
        self.superior.tell("upgrade")

    def handle_usr1(self) -> None:
        self.reopen()

    _handlers: ClassVar[dict[int, Callable[[Arbiter], None]]] = {
        signal.SIGTERM: handle_term,
        signal.SIGHUP: handle_hup,
        signal.SIGUSR2: handle_usr2,
        signal.SIGUSR1: handle_usr1,
        # SIGCHLD has woken the loop.
    }

    def life_ended(self) -> None:
        """The generation's pipe was closed: a retirement, or the Supervisor is gone."""
        if self._stopping:
            return
        if self.board.stopping:
            self.stop("the server stops")
        elif self.board.released(self.generation):
            self._leave("retired", policy.retirement(self.config) or None)
        else:
            logger.error("the supervisor is gone: stopping")
            self.stop("the supervisor is gone")
            # All workers may be busy, and the port is wanted by whoever starts the server again.
            for listener in self.listeners:
                listener.shut_down()

    def stop(self, why: str) -> None:
        """Gracefully: what runs has graceful_timeout."""
        if self._stopping:
            return
        self._stopping = True
        if not self.leaving:
            self._leave(why, self.config.graceful_timeout)
        else:  # it was about to retire: now there is less time
            self.deadline = time.monotonic() + self.config.graceful_timeout
            for child in self.children:
                child.kill(LEAVE_SIGNAL)

    def _leave(self, why: str, seconds: float | None) -> None:
        self.leaving = why
        if not self._stopping:
            self.desk.close()  # another generation answers
        self.deadline = None if seconds is None else time.monotonic() + seconds
        if self.reloading is not None:
            self.reloading.end()
        signals.emit(signals.server_stopping, reason=why)
        for child in self.children:
            self._tell_to_leave(child, "stop" if self._stopping else "reload", None)

    def _obey(self) -> None:
        """What the Supervisor says, word by word."""
        for word in self.superior.words():
            name, _, number = word.partition(b":")
            handler = self._orders.get(word)
            if handler is not None:
                handler(self)
            elif name == b"stacks":  # of a worker that is another generation's, or ours
                self.stacks.ask(int(number), time.monotonic())
            elif name == b"scale":
                self.scale(int(number))

    def order_stop(self) -> None:
        self.stop("the server stops")

    def order_quick(self) -> None:
        self.stop("the server stops")
        self.deadline = time.monotonic()
        logger.warning("stopping at once")

    def order_yield(self) -> None:
        """A newer generation's worker is ready: one of ours may go."""
        self._yielded += 1

    def order_restore(self) -> None:
        """That generation has failed: all of ours are needed again."""
        self._yielded = 0
        #: When it last came back from waiting, or looked at the clock since.
        self._woke = time.monotonic()

    def order_renew(self) -> None:
        """For tests (`test/server.py`): workers that know what was loaded, and nothing that came since."""
        self._renewing = True
        self._throttle.forgive()
        for child in self.children:
            self._tell_to_leave(child, "reload", "a test begins")

    def order_more(self) -> None:
        self._winched = False
        self.target = min(self.target + 1, SLOTS // 2)
        logger.info("SIGTTIN: %d workers", self.target)

    def order_fewer(self) -> None:
        self.target = max(1, self.target - 1)
        logger.info("SIGTTOU: %d workers", self.target)

    def scale(self, count: int) -> None:
        self._winched = False
        self.target = count
        logger.info("scaled: %d workers", count)

    def order_none(self) -> None:
        """Retire all workers; the sockets stay open, and connections wait in them."""
        self._winched = True
        logger.info("SIGWINCH: all workers retire until SIGTTIN or SIGHUP")

    def reopen(self) -> None:
        """Log files, here and in the workers, after they were renamed."""
        if self.access_log is not None:
            self.access_log.reopen()
        for child in self.children:
            child.kill(signal.SIGUSR1)
        logger.info("SIGUSR1: log files reopened")

    _orders: ClassVar[dict[bytes, Callable[[Arbiter], None]]] = {
        b"stop": order_stop,
        b"quick": order_quick,
        b"yield": order_yield,
        b"restore": order_restore,
        b"renew": order_renew,
        b"more": order_more,
        b"fewer": order_fewer,
        b"none": order_none,
        b"reopen": reopen,
    }

    def _look_for_changes(self) -> None:
        if self.reloading is None or self.leaving:
            return
        handled, others = self.reloading.look()
        for words in others:
            self.superior.tell(f"changed {words}")
        if handled:
            logger.info("%s changed: workers are forked anew", ", ".join(map(inheritance.short, handled)))
            self.reloading.begin_edition(handled)
            self._throttle.forgive()
            for child in self.children:
                self._tell_to_leave(child, "reload", "a file has changed")

    def close_all(self) -> None:
        """In a child that is no worker: what is none of its business."""
        self._forget_ours()
        os.close(self.superior.life)
        for child in self.children:
            child.close()
        for listener in self.listeners:
            listener.close()
        for fd in (fd for queue in self.queues for fd in queue):
            os.close(fd)

    # -- workers: as many as there should be ---------------------------------------------------------------------------

    def manage(self) -> None:
        """Fork what is missing, retire what is too much."""
        if self.leaving:
            return
        if not self.ready and len(self.children.at(Stage.SERVING, Stage.EXPIRING)) >= self.target:
            self.ready = True
            self.superior.tell("ready")
            logger.info("arbiter gen=%d pid=%d ready: %d workers", self.generation, os.getpid(), self.target)
            signals.emit(signals.server_ready, workers=self.target)
        if self._renewing and len(self.children.at(Stage.SERVING)) >= self.target:
            self._renewing = False
            self.superior.tell("renewed")
        # Not before it is ready: what waits for that would wait for ever.
        target = 0 if self._winched and self.ready else max(0, self.target - self._yielded)
        expiring = self.children.at(Stage.EXPIRING)
        if expiring and len(self.children.at(Stage.SERVING, Stage.EXPIRING)) > target:
            # Its successor is ready. One at a time: the others serve on until theirs is.
            self._tell_to_leave(expiring.pop(0), "expired", "expired")
        wanted = target + (1 if expiring and target else 0)
        staying = self.children.at(Stage.BOOTING, Stage.SERVING, Stage.EXPIRING)
        for child in policy.surplus(staying, wanted):
            if self._yielded:
                self._tell_to_leave(child, "reload", "gives way to the new generation")
            else:
                self._tell_to_leave(child, "scale", "too many workers")
        for _ in range(wanted - len(staying)):
            beside = self.generation > 1 and self.reloading is None
            if beside and not self.ready and self.children.at(Stage.BOOTING):
                break  # beside an older generation, one at a time: there is memory for one more, not for twice as many
            if time.monotonic() < self._throttle.next_start or not self.spawn():
                break

    def spawn(self) -> bool:
        """Fork one worker; whether that worked."""
        try:
            child = self.nursery.fork(self.children, self.superior.life, self._forget_ours)
        except CannotFork as error:
            logger.error("%s; the next worker starts in %.1f s", error, self._throttle.could_not_fork())
            return False
        self._out_of_memory.look()  # what was before its time is not its
        self.children.add(child)
        return True

    def _forget_ours(self) -> None:
        """In a worker: a copy of these would keep the Arbiter's end, or a visitor's, from being noticed."""
        for fd in (self._wakeup, self._wakeup_write):
            os.close(fd)
        self.superior.forget()
        self.desk.close()
        if self.reloading is not None:
            self.reloading.forget()

    def _tell_to_leave(self, child: Child, reason: str, why: str | None) -> None:
        if child.stage in (Stage.LEAVING, Stage.DOOMED):
            return
        child.stage = Stage.LEAVING
        self.board.tell_leaving(child.slot)
        child.reason, child.why = reason, child.why or why or self.leaving
        if why is not None:
            logger.info("%s retires: %s", child.name, why)
            if self.config.timeout:
                child.leave_deadline = time.monotonic() + self.config.timeout + self.config.timeout_grace
        child.kill(LEAVE_SIGNAL)

    # -- workers: what they say, and their end -------------------------------------------------------------------------

    def _listen(self) -> None:
        for child in self.children:
            for message in child.messages():
                self._heard(child, message)

    def _heard(self, child: Child, message: str) -> None:
        word, _, rest = message.partition(" ")
        if word == "ready" and child.stage is Stage.BOOTING:
            child.stage = Stage.SERVING
            self._served = True
            self._last_traceback = ""
            if not self.ready:
                self.superior.tell("worker")
        elif word == "expire" and child.stage is Stage.SERVING:
            child.stage = Stage.EXPIRING
            child.why = rest
            logger.info("%s asks for a successor: %s", child.name, rest)
        elif word == "stacks" and rest.isdecimal():
            if not self.stacks.ask(int(rest), time.monotonic()):
                self.superior.tell(f"stacks {rest}")
        elif word == "reload":
            logger.info("%s asks for a reload%s", child.name, rest and f": {rest}")
            self.superior.tell("reload")
        elif word == "failed":
            text = rest.replace("\v", "\n")
            if text != self._last_traceback:  # once, not at every try
                self._last_traceback = text
                logger.error("%s failed\n%s", child.name, text)

    def reap(self) -> None:
        """Bury the dead. Only known pids: what the project's code forked in this process is its own."""
        for pid in self.children.pids():
            try:
                found, code = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                found, code = pid, 0  # somebody else has waited for it
            if found:
                child = self.children.remove(pid)
                assert child is not None
                for message in child.messages():
                    self._heard(child, message)
                self._bury(child, os.waitstatus_to_exitcode(code))

    def _bury(self, child: Child, status: int) -> None:
        reading = self.board.read(child.slot)
        multiprocess.worker_ended(child.slot)  # while the slot is nobody else's
        self.board.free(child.slot)
        child.close()
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
        self.chronicle.ended(child, status, expected_end, text)
        signals.emit(
            signals.worker_died,
            slot=child.slot,
            generation=self.generation,
            pid=child.pid,
            status=status,
            expected=expected,
        )
        if self.queues:
            # The kernel may have woken it for a connection that it never took: another must look.
            handoff.kick(self.queues[0][0])
        if not expected:
            self._back_off(child, status)

    def _back_off(self, child: Child, status: int) -> None:
        if not self._throttle.blames(child, status):
            return
        failures = self._throttle.failures
        if not self.ready and failures >= policy.GIVE_UP:
            if self.generation > 1:
                # The old code serves: the Supervisor lets us go, and that one have its strength back.
                self.superior.tell(f"failed {failures} workers of it in a row did not start")
                self._throttle.pause()
                return
            if not self._served:
                # Nothing ever served: whoever started us must hear of it.
                logger.error("%d workers in a row failed to start: giving up", failures)
                self.status = 1
                self._leave("no worker could be started", 0.0)
                return
        self._throttle.slow_down(status)


def _note(number: int, frame: object) -> None:
    """The wake-up descriptor has the signal already."""


def _how(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
