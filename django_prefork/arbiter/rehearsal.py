"""Before the first fork: a child serves the warm-up's paths, to find out which pages a worker's requests will write to.

A fork copies no memory. The kernel copies a page when it is first written to, and even reading writes: references are
counted in the objects themselves. For a first request these are thousands of faults, which are most of what it takes.
So a child that lives for a moment asks once more, and looks which pages it had to have for itself. Each worker has
these copied before it serves (`worker/prefault.py`): it would need them anyway, and forks of one process have all
things at the same addresses.

Not in the workers themselves: nothing of the project runs there unasked, and a database that hangs keeps none of them
from serving.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import select
import signal
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from typing import NoReturn

from django_prefork import multiprocess, process
from django_prefork.arbiter import fork_safety
from django_prefork.arbiter.launch import Place
from django_prefork.scoreboard import anonymous_file
from django_prefork.worker import prefault

logger = logging.getLogger("django_prefork")

# What it may take (seconds): the warm-up has just asked the same, and the server is not ready meanwhile.
PATIENCE = 5.0
# After SIGKILL the kernel may still have to wait for a disk (seconds).
_DEATH = 1.0
# Why it ended, if that is nothing to tell.
_LEAVES = "is of no use: the generation leaves"

# <linux/prctl.h>
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

# Words of /proc/self/pagemap: Documentation/admin-guide/mm/pagemap.rst of Linux.
_PRESENT, _OF_A_FILE, _EXCLUSIVE = 1 << 63, 1 << 61, 1 << 56
_LOOK = _PRESENT | _OF_A_FILE | _EXCLUSIVE
_COPIED = _PRESENT | _EXCLUSIVE
_WORD = 8
# So many words are read at once.
_CHUNK = 65536


def rehearse(ask: Callable[[], None], place: Place, title: str) -> array[int]:
    """What `prefault.prefault` takes; empty if that cannot be found out, which is nothing that would matter.

    `ask` is what the child does; `title` is its name in `ps`.
    """
    ranges: array[int] = array("Q")
    if sys.platform != "linux" or not prefault.available():
        logger.debug("no rehearsal: this system copies no pages ahead")
        return ranges
    try:
        file = anonymous_file("prefork-pages")
        try:
            wrong = _wait(_fork(file, ask, place, title), place)
            if not wrong:
                ranges.frombytes(os.pread(file, os.fstat(file).st_size, 0))
        finally:
            os.close(file)
    except OSError as error:
        wrong = f"is not possible ({error.strerror})"
    if wrong and wrong != _LEAVES:
        logger.warning("the rehearsal of warmup %s: the first requests of each worker will be slower", wrong)
    elif ranges:
        count = sum(ranges[1::2]) // mmap.PAGESIZE
        logger.debug("rehearsal: %d pages in %d places are copied ahead", count, len(ranges) // 2)
    return ranges


def _fork(file: int, ask: Callable[[], None], place: Place, title: str) -> int:
    """Its pid. Raises OSError."""
    for stream in (sys.stdout, sys.stderr):
        process.Quietly(stream).flush()  # or what waits in there would be the child's to say, too
    parent = os.getpid()
    # No signal may find the child with our handlers: it would tell that the server was stopped.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = fork_safety.fork()
        if pid == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                # An Arbiter that is stopped, or killed, does not come to end us.
                ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() == parent:
                    _be_rehearsal(file, ask, place, title)
            except BaseException:
                logger.debug("the rehearsal failed", exc_info=True)
            finally:
                os._exit(1)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def _wait(pid: int, place: Place) -> str:
    """Until it has ended, or has been ended. What went wrong; empty if nothing did."""
    try:
        # Not by its pid alone: code of the project's may wait for any child there is.
        child = os.pidfd_open(pid)
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    try:
        wrong = _watch(child, place)
        if wrong:
            signal.pidfd_send_signal(child, signal.SIGKILL)
            _poll(_DEATH, child)
    finally:
        os.close(child)
    multiprocess.child_ended(pid)
    try:
        found, code = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return wrong or "was waited for by somebody else"
    status = os.waitstatus_to_exitcode(code) if found else 0
    if not wrong and status:
        wrong = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
    return wrong


def _watch(child: int, place: Place) -> str:
    """Why it is to be ended; empty if it has done so itself."""
    deadline = time.monotonic() + PATIENCE
    fds = {child, place.life, place.control}
    while ready := _poll(deadline - time.monotonic(), *fds):
        if child in ready:
            return ""
        if place.life in ready or place.board.stopping:
            return _LEAVES
        fds -= ready  # what else the Supervisor says, the Arbiter hears when it is one
    return f"took longer than {PATIENCE:g} s"


def _poll(seconds: float, *fds: int) -> set[int]:
    """Those that are readable within that time."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)}


# -- in the child --------------------------------------------------------------------------------------------------


def _be_rehearsal(file: int, ask: Callable[[], None], place: Place, title: str) -> NoReturn:
    place.leave()
    process.set_title(title)
    process.go_first()
    try:
        pagemap = _open_pagemap()
    except OSError as error:
        logger.debug("no rehearsal: /proc/self/pagemap cannot be read: %s", error.strerror)
        os._exit(0)
    # What is mapped later a worker does not have.
    places = list(_writable())
    ask()
    ranges = _copied(pagemap, places)
    os.write(file, ranges.tobytes())
    fork_safety.clean()
    os._exit(0)


def _open_pagemap() -> int:
    """Raises OSError."""
    path, flags = "/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags)
    except PermissionError:
        # After --user the kernel keeps a process's files from its new user, since there may be something of root's
        # in its memory; also from the process itself. For this one look, and not while the project's code runs.
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
        try:
            return os.open(path, flags)
        finally:
            prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _writable() -> Iterator[tuple[int, int]]:
    """Begin and end of each private mapping that can be written to."""
    with open("/proc/self/maps") as file:
        for line in file:
            addresses, rights, _ = line.split(maxsplit=2)
            if rights[1] == "w" and rights[3] == "p":
                begin, _, end = addresses.partition("-")
                yield int(begin, 16), int(end, 16)


def _copied(pagemap: int, places: list[tuple[int, int]]) -> array[int]:
    """Of `places`, what is this process's alone: it was shared, or not there, when it was forked."""
    size = mmap.PAGESIZE
    found: list[int] = []
    expected = 0  # the next page, if the range goes on
    for begin, end in places:
        for start in range(begin, end, _CHUNK * size):
            count = min(_CHUNK, (end - start) // size)
            words = array("Q", os.pread(pagemap, count * _WORD, start // size * _WORD))
            for number, word in enumerate(words):
                if word & _LOOK == _COPIED:
                    address = start + number * size
                    if address == expected:
                        found[-1] += size
                    else:
                        found += address, size
                    expected = address + size
    return array("Q", found)
