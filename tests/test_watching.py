"""`--reload` without processes: what the Supervisor sees of files, what the watcher does, what inotify tells."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import autoreload

from django_prefork.arbiter.inotify import Folders
from django_prefork.arbiter.watcher import StatReloader, Watcher, note_failure, write_names
from django_prefork.scoreboard import anonymous_file
from django_prefork.supervisor.changes import PAUSES, Changes
from django_prefork.worker.news import send_change


@pytest.fixture
def names() -> Iterator[int]:
    fd = anonymous_file("names")
    yield fd
    os.close(fd)


def due(changes: Changes) -> str | None:
    changes.next = 0.0
    return changes.look()


def rewrite(path: Path, text: str = "", ago: float = 0.0) -> None:
    path.write_text(text)
    os.utime(path, (time.time() - ago, time.time() - ago))


def test_the_supervisor_sees_what_changes_after_a_generation_was_started(names: int, tmp_path: Path) -> None:
    code, other = tmp_path / "code.py", tmp_path / "other.py"
    for path in (code, other):
        rewrite(path, ago=100)
    write_names(names, [code, other, tmp_path / "gone.py"])
    changes = Changes(names)
    changes.begin()
    assert due(changes) is None
    rewrite(code, ago=50)
    assert due(changes) == str(code)
    assert due(changes) is None, "once"
    rewrite(code, ago=100)  # times may run backwards: a copy of an old version is new code
    assert due(changes) == str(code)
    (tmp_path / "gone.py").touch()
    assert due(changes) == str(tmp_path / "gone.py")
    other.unlink()
    assert due(changes) == str(other)
    changes.next = time.monotonic() + 60
    rewrite(code)
    assert changes.look() is None, "not yet time to look"


def test_after_a_failure_its_traceback_and_new_files_count(names: int, tmp_path: Path) -> None:
    broken, late = tmp_path / "broken.py", tmp_path / "late.py"
    rewrite(broken, ago=100)
    changes = Changes(names)
    changes.begin()
    changes.add(f'Traceback\n  File "{broken}", line 3\n  File "<frozen importlib>", line 1\n  File "x.py", line 2')
    changes.fail()
    assert due(changes) is None
    late.touch()
    assert due(changes) == f"{tmp_path}/"
    rewrite(broken)
    assert due(changes) == str(broken)


def test_a_file_that_was_named_late_counts_if_it_is_newer_than_the_boot(names: int, tmp_path: Path) -> None:
    changes = Changes(names)
    changes.begin()
    fresh = tmp_path / "fresh.py"
    rewrite(fresh, ago=-1)
    write_names(names, [fresh])
    assert due(changes) == str(fresh)


def test_what_is_saved_while_a_first_start_fails_is_not_missed(names: int, tmp_path: Path) -> None:
    code, other = tmp_path / "code.py", tmp_path / "other.py"
    rewrite(code, ago=5)
    rewrite(other, ago=100)
    write_names(names, [code, other])
    changes = Changes(names)
    changes.begin(since=time.time() - 10)
    assert due(changes) is None, "while it boots, its own watcher tells"
    changes.fail()
    assert due(changes) == str(code)
    assert due(changes) is None
    changes.begin()
    changes.fail()
    assert due(changes) is None


def test_only_a_file_that_changes_in_each_boot_is_the_boots_own(names: int) -> None:
    changes = Changes(names)
    assert [changes.judge("a") for _ in PAUSES] == list(PAUSES), "somebody may be saving it again and again"
    assert changes.judge("b") == 0.0
    assert changes.judge("a") is None and changes.own == {"a"}
    # What is known of a file is known for good, until it changes while nothing boots.
    changes.settle("b")
    assert changes.judge("a") is None and changes.judge("b") == 0.0
    changes.settle("a")
    assert changes.judge("a") == 0.0


def test_a_failure_names_all_that_was_loaded_and_what_it_speaks_of(names: int, tmp_path: Path) -> None:
    write_names(names, [tmp_path / "before.py"])
    try:
        compile("def (", str(tmp_path / "broken.py"), "exec")
    except SyntaxError as error:
        note_failure(names, error)
    said = os.pread(names, 1 << 20, 0).decode().split("\0")
    assert {str(tmp_path / "before.py"), str(tmp_path / "broken.py"), f"{tmp_path}/", __file__} <= set(said)


def test_a_module_that_is_missing_may_appear_wherever_python_looks_for_it(names: int) -> None:
    try:
        import no_such_package.settings  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        note_failure(names, ImportError("settings do not import"))
        said = os.pread(names, 1 << 20, 0).decode()
        assert "no_such_package" not in said
        note_failure(names, error)
    said = os.pread(names, 1 << 20, 0).decode().split("\0")
    for folder in filter(os.path.isabs, sys.path):
        assert {f"{folder}/no_such_package.py", f"{folder}/no_such_package/__init__.py"} <= set(said)


class Reports(list[tuple[str, str]]):
    def __call__(self, path: str, when: str) -> None:
        self.append((Path(path).name, when))


def test_the_watcher_reports_changes_and_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoreload, "iter_all_python_module_files", frozenset)
    old, swap = tmp_path / "old.html", tmp_path / ".old.html.swp"
    old.touch()
    began = old.stat().st_ctime + 0.001
    reports = Reports()
    reloader = StatReloader(began, lambda seconds, fd: None, reports)
    known: list[Any] = []
    reloader.on_new_files = known.extend
    reloader.watch_dir(tmp_path, "**/*")
    reloader.look()
    assert reports == [] and known == [old]
    rewrite(old, ago=3)
    # As from another minute: the clock of the kernel is coarser than ours.
    monkeypatch.setattr(reloader, "_began", 0.0)
    (tmp_path / "new.html").touch()
    swap.touch()
    reloader.look()
    assert sorted(reports) == [("new.html", "now"), ("old.html", "now")]
    reloader.look()
    assert len(reports) == 2
    # A module that a worker has imported since: it may have been written by the boot.
    module = tmp_path.parent / "late.py"
    module.touch()
    reloader.extra_files = {module}
    reloader.look()
    assert reports[2:] == [("late.py", "late")]


@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
def test_inotify_tells_of_what_matters(tmp_path: Path) -> None:
    anything = tmp_path / "templates"
    anything.mkdir()
    folders = Folders()
    folders.watch({str(tmp_path): frozenset({"code.py"}), str(anything): None})
    assert folders.complete

    def heard() -> bool:
        assert select.select([folders.fd], [], [], 10)[0]
        return folders.read()

    (tmp_path / "db.sqlite3").touch()
    assert not heard()
    (tmp_path / "code.py").touch()
    assert heard()
    (anything / "page.html").touch()
    assert heard()
    folders.watch({str(tmp_path / "not there"): None})
    assert not folders.complete
    os.close(folders.fd)


def test_watchman_is_used_where_it_is(names: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with what `WatchmanReloader` has, since the service is not everywhere."""
    told = tmp_path / "told.py"

    class Reloader(autoreload.BaseReloader):
        def watched_files(self, include_globs: bool = True) -> Iterator[Path]:
            yield told

        def tick(self) -> Iterator[None]:
            self.notify_file_changed(told)
            self.stop()
            yield

    told.touch()
    monkeypatch.setattr(autoreload, "get_reloader", Reloader)
    # It would end its process, which is ours, as soon as it finds the pipes closed.
    started: list[Any] = []
    monkeypatch.setattr(threading.Thread, "start", lambda thread: started.append(thread))
    changes, write = os.pipe()
    modules, modules_write = os.pipe()
    tie, tie_write = os.pipe()
    began = told.stat().st_ctime - 1
    Watcher(write, modules, tie, names, began).run()
    assert os.read(changes, 4096) == f"boot {told}\0now {told}\0".encode()
    assert str(told) in os.pread(names, 4096, 0).decode()
    assert len(started) == 1, "somebody listens to the workers meanwhile"
    for fd in (changes, write, modules, modules_write, tie, tie_write):
        os.close(fd)


def test_receivers_decide_whether_a_change_is_dealt_with() -> None:
    answers: list[Any] = []

    def receiver(file_path: Path, **_: Any) -> Any:
        answer = answers.pop()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    autoreload.file_changed.connect(receiver)
    try:
        for answer, handled in ((True, True), (None, False), (SystemExit(3), False), (ValueError(), False)):
            answers.append(answer)
            assert send_change("/x/y.py", None) is handled
    finally:
        autoreload.file_changed.disconnect(receiver)
