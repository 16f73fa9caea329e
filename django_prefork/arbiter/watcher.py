"""A process of its own, forked from the Arbiter, that watches the files of what is loaded (`--reload`).

Never a thread of the Arbiter: a process with threads must not fork. It is built on `django.utils.autoreload`: Watchman
where that is installed and runs, else the modification times that `StatReloader` looks at, helped by inotify.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

from django.utils import autoreload

from django_prefork.arbiter.inotify import Folders

logger = logging.getLogger("django_prefork")

# How often to look (seconds): where the kernel gives a hint, and where it does not. In between nothing costs anything.
HINTED, UNHINTED = 1.0, 0.1
# Of the time at most this part is spent on looking.
SHARE = 0.1
# Editors write, rename and set modes: what belongs together comes within this time (seconds).
TOGETHER = 0.01


class StatReloader(autoreload.StatReloader):
    """Looks as soon as there is a hint, knows files that are new, and does not mind times that run backwards.

    `wait` sleeps for so many seconds, or until one of the descriptors is readable. `began` is when the process whose
    code this is did, in seconds since 1970: what is newer, it may have missed.
    """

    def __init__(self, began: float, wait: Callable[[float, int], None], report: Callable[[str, str], None]) -> None:
        super().__init__()
        self._began = began
        self._wait = wait
        self._report = report
        self._folders = Folders()
        self._seen: dict[Path, tuple[float, int]] = {}
        self._directories: set[Path] = set()
        self._first = True
        self.on_new_files: Callable[[Iterable[Path]], None] = lambda files: None

    def tick(self) -> Iterator[None]:
        while True:
            began = time.monotonic()
            self.look()
            took = time.monotonic() - began
            hinted = self._folders.complete
            pause = max(took / SHARE, UNHINTED)
            if hinted:
                self._wait_for_hint(HINTED)
                # What happens all the time must not be looked at all the time.
                self._wait(max(TOGETHER, began + min(pause, HINTED) / 2 - time.monotonic()), -1)
                self._folders.read()
            else:
                self._wait(min(pause, HINTED), -1)
            yield

    def _wait_for_hint(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._wait(left, self._folders.fd)
            if self._folders.read():
                return

    def look(self) -> None:
        """Report what has changed since the last look, and what is new and was not there when all was loaded."""
        fresh, changed = False, []
        when = "boot" if self._first else "late"
        loaded = autoreload.iter_all_python_module_files() | self.extra_files
        for path in set(self.watched_files()):
            try:
                status = path.stat()
            except OSError:
                continue
            look = (status.st_mtime, status.st_ino)
            before = self._seen.get(path)
            if before == look:
                continue
            self._seen[path] = look
            if stat.S_ISDIR(status.st_mode):
                self._directories.add(path)
            if before is not None:
                changed.append((path, "now"))
                continue
            fresh = True
            if is_newer(path, status, self._began):
                changed.append((path, when if self._first or path in loaded else "now"))
        self._first = False
        if fresh:
            self._folders.watch(self._places())
            # Before the report: it may be the end of this process.
            self.on_new_files(self._seen.keys() - self._directories)
        for path, said in changed:
            self._report(str(path), said)

    def _places(self) -> dict[str, frozenset[str] | None]:
        """The folders to watch: where files are looked for, any name matters."""
        names: dict[str, set[str]] = {}
        for path in self._seen:
            names.setdefault(str(path.parent), set()).add(path.name)
        places: dict[str, frozenset[str] | None] = {folder: frozenset(found) for folder, found in names.items()}
        for root in self.directory_globs:
            if root.is_dir():
                places[str(root)] = None
                places.update((str(path), None) for path in root.rglob("*") if path.is_dir())
        return places


def is_newer(path: Path, status: os.stat_result, began: float) -> bool:
    """Whether a file has changed since `began` (seconds since 1970)."""
    # The change time cannot be set by copying or unpacking; a clock that was set back must not matter.
    newer = began < status.st_ctime <= time.time() + 1
    return newer and not path.name.startswith(".") and not stat.S_ISDIR(status.st_mode)


class Watcher:
    """`changes` is where changes are written to: when, a space, the path, a NUL.

    When is `now`; or, of a file that is newer than the process it was loaded by, `boot` at the first look, and `late`
    of a module that a worker has imported since.

    `modules` is where workers say which files they have imported since; `tie` ends when the Arbiter does. `watched`
    is the file for the Supervisor.
    """

    def __init__(self, changes: int, modules: int, tie: int, watched: int, began: float) -> None:
        self._changes = changes
        self._modules = modules
        self._tie = tie
        self._watched = watched
        self._began = began
        self._words = b""
        self._reloader = self._choose()

    def _choose(self) -> autoreload.BaseReloader:
        reloader = autoreload.get_reloader()
        if isinstance(reloader, autoreload.StatReloader):
            reloader = StatReloader(self._began, self._wait, self._say)
            reloader.on_new_files = lambda files: write_names(self._watched, files)
        else:
            reloader.notify_file_changed = lambda path: self._say(str(path), "now")  # type: ignore[method-assign]
        return reloader

    def run(self) -> None:
        """Until the Arbiter is gone."""
        reloader = self._reloader
        logger.debug("watching for changes with %s", type(reloader).__name__)
        autoreload.autoreload_started.send_robust(sender=reloader)
        if not isinstance(reloader, StatReloader):
            files = set(reloader.watched_files())
            write_names(self._watched, files)
            for path in files:
                try:
                    if is_newer(path, path.stat(), self._began):
                        self._say(str(path), "boot")
                except OSError:
                    pass
            # Watchman is waited for in its own way: somebody else has to listen meanwhile.
            threading.Thread(target=self._listen_for_ever, daemon=True).start()
        reloader.run_loop()

    def _listen_for_ever(self) -> None:
        while True:
            self._wait(3600.0, -1)
            self._reloader.processed_request.set()  # type: ignore[attr-defined]

    def _wait(self, seconds: float, hint: int) -> None:
        poll = select.poll()
        poll.register(self._tie, select.POLLIN)  # nothing is ever written: its end is the message
        poll.register(self._modules, select.POLLIN)
        if hint >= 0:
            poll.register(hint, select.POLLIN)
        for fd, _ in poll.poll(max(0.0, seconds) * 1000):
            if fd == self._tie:
                os._exit(0)
            if fd == self._modules:
                self._words += os.read(self._modules, 65536)
                *names, self._words = self._words.split(b"\0")
                # A new set: the old one may be walked through at this moment.
                self._reloader.extra_files = self._reloader.extra_files | {Path(os.fsdecode(name)) for name in names}

    def _say(self, path: str, when: str) -> None:
        try:
            os.write(self._changes, os.fsencode(f"{when} {path}") + b"\0")
        except OSError:
            os._exit(0)  # the Arbiter is gone


def watch(changes: int, modules: int, tie: int, watched: int, began: float) -> None:
    """Be the watcher, in a process that was forked for it. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        # It ends with the Arbiter, and not by what a terminal or a service manager sends to all processes.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) not in (None, signal.SIG_DFL, signal.SIG_IGN):
                signal.signal(number, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        Watcher(changes, modules, tie, watched, began).run()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def write_names(watched: int, files: Iterable[Path]) -> None:
    """Leave the names for the Supervisor: of the files, and of the folders that the project's own stand in."""
    names = {os.fspath(path) for path in files}
    libraries = tuple({os.path.realpath(path) for path in (sys.prefix, sys.base_prefix)})
    names |= {
        os.path.dirname(name) + "/"
        for name in names
        if name.endswith(".py") and not name.startswith(libraries) and "-packages" not in name
    }
    data = "".join(f"{name}\0" for name in sorted(names)).encode("utf-8", "surrogateescape")
    os.ftruncate(watched, 0)
    os.pwrite(watched, data, 0)


def note_failure(watched: int, error: BaseException | None) -> None:
    """Leave the names of what a process had loaded when it failed, and of what the error speaks of."""
    files = set(autoreload.iter_all_python_module_files())
    while error is not None:
        if isinstance(error, SyntaxError) and error.filename:
            files.add(Path(error.filename))
        if isinstance(error, ModuleNotFoundError) and error.name:
            files |= set(_places_of(error.name))
        files |= set(_frames(error.__traceback__))
        error = error.__cause__ or error.__context__
    # Beside what was named before: whoever mends it may do so anywhere.
    data = os.pread(watched, os.fstat(watched).st_size, 0)
    files |= {Path(os.fsdecode(name)) for name in data.split(b"\0") if name and not name.endswith(b"/")}
    write_names(watched, {path for path in files if path.is_absolute()})


def _frames(trace: TracebackType | None) -> Iterator[Path]:
    for frame, _ in traceback.walk_tb(trace):
        yield Path(frame.f_code.co_filename)


def _places_of(module: str) -> Iterator[Path]:
    """Where Python looks for a module: one that is missing may appear."""
    for folder in sys.path:
        path = Path(folder, *module.split("."))
        yield from (path.with_name(f"{path.name}.py"), path / "__init__.py")
