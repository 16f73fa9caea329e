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
from django_prefork.arbiter.children import Children
from django_prefork.arbiter.chronicle import Chronicle
from django_prefork.arbiter.control import Control
from django_prefork.arbiter.crew import Crew
from django_prefork.arbiter.desk import Desk, Talk
from django_prefork.arbiter.listeners import SERVE, STATUS, Listener
from django_prefork.arbiter.nursery import Nursery
from django_prefork.arbiter.pages import Pages, PageTalk
from django_prefork.arbiter.reloading import Reloading
from django_prefork.arbiter.stacks import Stacks
from django_prefork.arbiter.superior import Superior
from django_prefork.arbiter.watch import NAP, Watch
from django_prefork.config import Config
from django_prefork.log import AccessLog
from django_prefork.scoreboard import Scoreboard
from django_prefork.scoreboard import Stage as EraStage
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
        self.children = Children()
        self.watch = Watch(config, board, self.children)
        self.stacks = Stacks(board, self.children)
        self.steering = Control(board, self.listeners, self.stacks, self.superior.tell)
        self.chronicle = Chronicle(board, generation, self.children)
        audit = audit or Audit()
        audit.ours = self.desk.descriptors
        nursery = Nursery(
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
        self.crew = Crew(
            config,
            board=board,
            generation=generation,
            queues=self.queues,
            children=self.children,
            nursery=nursery,
            superior=self.superior,
            stacks=self.stacks,
            chronicle=self.chronicle,
            access_log=access_log,
            forget=self._forget_ours,
            one_at_a_time=generation > 1 and reloading is None,
        )
        self.status = 0
        #: Set when it stops or retires: when what is left is killed, and why it leaves.
        self.deadline: float | None = None
        self.leaving = ""
        self._stopping = False
        #: When it last came back from waiting, or looked at the clock since.
        self._woke = time.monotonic()
        self.reloading = None if reloading is None else reloading(self)
        #: What the Supervisor may say, word by word.
        self._orders: dict[bytes, Callable[[], None]] = {
            b"stop": self.order_stop,
            b"quick": self.order_quick,
            b"yield": self.crew.give_way,
            b"restore": self.crew.restore,
            b"renew": self.order_renew,
            b"more": self.crew.more,
            b"fewer": self.crew.fewer,
            b"none": self.crew.none,
            b"reopen": self.reopen,
        }

    # -- life ----------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Until the last worker has left; the exit status."""
        self._receive_signals()
        status.attach(self.board, self.listeners)
        living = {era.number for era in self.board.eras()}
        multiprocess.be_arbiter(self.generation, living, self.board.supervisor)
        while not (self.leaving and not self.children):
            if not self.leaving:
                if self.reloading is not None:
                    self.reloading.manage()
                self.crew.manage()
            planned = self._plan()
            self._wait(planned)
            self.crew.listen()
            self.crew.reap()
            if self.crew.gave_up and not self.leaving:
                self.status = 1
                self._leave("no worker could be started", 0.0)
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
        stage = EraStage.LEAVING if self.leaving else EraStage.READY if self.crew.ready else EraStage.BOOTING
        self.chronicle.tell(stage, self.crew.size)
        if self.deadline is not None:
            if time.monotonic() >= self.deadline:
                # Whoever saved a file wants the old code gone, streams and all: that is nothing to report.
                wanted = self.reloading is not None and not self._stopping
                self.watch.kill_all(self.leaving, logging.INFO if wanted else logging.ERROR)
                self.deadline = time.monotonic() + NAP
            return min(again, self.deadline)
        next_start = self.crew.next_start
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
        return self.generation == 1 or self.crew.ready or len(self.board.eras()) < 2

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
        self.crew.dismiss("stop" if self._stopping else "reload", why)

    def _obey(self) -> None:
        """What the Supervisor says; some of it with a number."""
        for word in self.superior.words():
            name, _, number = word.partition(b":")
            handler = self._orders.get(word)
            if handler is not None:
                handler()
            elif name == b"stacks":  # of a worker that is another generation's, or ours
                self.stacks.ask(int(number), time.monotonic())
            elif name == b"scale":
                self.crew.scale(int(number))

    def order_stop(self) -> None:
        self.stop("the server stops")

    def order_quick(self) -> None:
        self.stop("the server stops")
        self.deadline = time.monotonic()
        logger.warning("stopping at once")

    def order_renew(self) -> None:
        """For tests (`test/server.py`): workers that know what was loaded, and nothing that came since."""
        self.crew.renew("a test begins", tell=True)

    def reopen(self) -> None:
        """Log files, here and in the workers, after they were renamed."""
        if self.access_log is not None:
            self.access_log.reopen()
        for child in self.children:
            child.kill(signal.SIGUSR1)
        logger.info("SIGUSR1: log files reopened")

    def _look_for_changes(self) -> None:
        if self.reloading is None or self.leaving:
            return
        handled, others = self.reloading.look()
        for words in others:
            self.superior.tell(f"changed {words}")
        if handled:
            logger.info("%s changed: workers are forked anew", ", ".join(map(inheritance.short, handled)))
            self.reloading.begin_edition(handled)
            self.crew.renew("a file has changed")

    # -- in a child ----------------------------------------------------------------------------------------------------

    def _forget_ours(self) -> None:
        """In a worker: a copy of these would keep the Arbiter's end, or a visitor's, from being noticed."""
        for fd in (self._wakeup, self._wakeup_write):
            os.close(fd)
        self.superior.forget()
        self.desk.close()
        if self.reloading is not None:
            self.reloading.forget()

    def close_all(self) -> None:
        """In one that is no worker: what is none of its business."""
        self._forget_ours()
        os.close(self.superior.life)
        for child in self.children:
            child.close()
        for listener in self.listeners:
            listener.close()
        for fd in (fd for queue in self.queues for fd in queue):
            os.close(fd)


def _note(number: int, frame: object) -> None:
    """The wake-up descriptor has the signal already."""
