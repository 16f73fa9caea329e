from __future__ import annotations

import fcntl
import json
import logging
import logging.config
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.utils.log import DEFAULT_LOGGING, AdminEmailHandler

from django_prefork import access_format, log
from django_prefork.access_format import FIELDS, record_fields
from django_prefork.config import Config, ConfigError
from django_prefork.log import AccessLog, LineFormatter, StderrHandler, escape, setup

CONFIG = Config.of(workers=1)
NAMES = ("django_prefork", "django_prefork.access", "django_prefork.worker", "django", "django.request")


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """A root logger without handlers above ours and Django's: to the real one pytest adds its own at any time.

    Whatever a test makes of any logger is undone.
    """
    root = logging.RootLogger(logging.WARNING)
    bare = [logging.getLogger(name) for name in NAMES]
    everyone = [each for each in logging.root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    before = [(each, {**vars(each), "handlers": each.handlers[:]}) for each in everyone]
    for each in bare:
        each.handlers, each.propagate, each.disabled = [], True, False
        each.setLevel(logging.NOTSET)
        if each.parent is logging.root:
            each.parent = root
    yield root
    for each, attributes in before:
        vars(each).update(attributes)
        each.setLevel(each.level)  # forgets what it had worked out about levels


class Kept(logging.Handler):
    """A handler of the project's that keeps what it gets."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def ours(name: str) -> list[StderrHandler]:
    return [handler for handler in logging.getLogger(name).handlers if isinstance(handler, StderrHandler)]


@contextmanager
def stderr_to(fd: int) -> Iterator[None]:
    before, sys.stderr = sys.stderr, os.fdopen(os.dup(fd), "w")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = before


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


# Lifecycle lines.


def test_lifecycle_lines_go_to_stderr_where_the_project_has_no_handler(capfd: pytest.CaptureFixture[str]) -> None:
    setup(CONFIG, color=False)
    logging.getLogger("django_prefork").info("worker=%d gen=1 pid=77 ready", 2)
    logging.getLogger("django_prefork.worker").warning("slow")
    logging.getLogger("django_prefork").debug("unseen")
    lines = capfd.readouterr().err.splitlines()
    head = rf"\[\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{{4}}\] \[{os.getpid()}\]"
    assert re.fullmatch(head + r" \[INFO\] worker=2 gen=1 pid=77 ready", lines[0])
    assert re.fullmatch(head + r" \[WARNING\] slow", lines[1])
    assert len(lines) == 2


@pytest.mark.parametrize(("verbosity", "seen"), [(0, "WE"), (1, "IWE"), (2, "DIWE"), (3, "DIWE")])
def test_verbosity_chooses_what_is_seen(capfd: pytest.CaptureFixture[str], verbosity: int, seen: str) -> None:
    setup(CONFIG, verbosity, color=False)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("django_prefork").log(level, "x")
    assert "".join(re.findall(r"\[([DIWE])[A-Z]+\]", capfd.readouterr().err)) == seen


@pytest.mark.parametrize("at_root", [False, True])
def test_a_handler_of_the_projects_is_left_alone(root: logging.Logger, at_root: bool) -> None:
    kept = Kept()
    (root if at_root else logging.getLogger("django_prefork")).addHandler(kept)
    setup(CONFIG)
    assert not ours("django_prefork")
    logging.getLogger("django_prefork").error("x")
    assert len(kept.records) == 1


def test_a_root_handler_behind_propagate_false_is_not_reached(root: logging.Logger) -> None:
    root.addHandler(Kept())
    logging.getLogger("django_prefork").propagate = False
    setup(CONFIG)
    assert len(ours("django_prefork")) == 1


def test_setup_twice_never_makes_two_handlers_and_follows_what_changed(
    capfd: pytest.CaptureFixture[str], root: logging.Logger
) -> None:
    setup(CONFIG, 2, color=False)
    setup(CONFIG, 1, color=False)
    assert (len(ours("django_prefork")), len(ours("django"))) == (1, 1)
    logging.getLogger("django_prefork").debug("unseen")
    logging.getLogger("django_prefork").info("once")
    assert capfd.readouterr().err.count("\n") == 1
    root.addHandler(kept := Kept())
    setup(CONFIG)
    assert not ours("django_prefork") and not ours("django")
    logging.getLogger("django_prefork").warning("to the project")
    assert [record.msg for record in kept.records] == ["to the project"]


def test_loggers_that_logging_config_disabled_speak_again(capfd: pytest.CaptureFixture[str]) -> None:
    logging.config.dictConfig({"version": 1})
    assert logging.getLogger("django_prefork.worker").disabled
    setup(CONFIG, color=False)
    logging.getLogger("django_prefork.worker").info("ready")
    logging.getLogger("django.request").error("boom")
    shown = capfd.readouterr().err
    assert "ready" in shown and "boom" in shown


def test_answers_do_not_come_among_the_lifecycle_lines(capfd: pytest.CaptureFixture[str]) -> None:
    setup(CONFIG)
    logging.getLogger("django_prefork.access").addHandler(kept := Kept())
    logging.getLogger("django_prefork.access").info("GET /")
    assert len(kept.records) == 1
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("environ", "color", "is_colored"),
    [({}, None, True), ({"NO_COLOR": "1"}, None, False), ({"NO_COLOR": "1"}, True, True), ({}, False, False)],
)
def test_color_is_for_terminals_unless_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], color: bool | None, is_colored: bool
) -> None:
    for name in ("NO_COLOR", "DJANGO_COLORS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm", **environ}.items():
        monkeypatch.setenv(name, value)
    ours_end, terminal = os.openpty()
    try:
        with stderr_to(terminal):
            setup(CONFIG, color=color)
            logging.getLogger("django_prefork").error("x")
        assert (b"\x1b[" in os.read(ours_end, 1000)) is is_colored
    finally:
        os.close(ours_end)
        os.close(terminal)


# The errors of views.


def django_defaults(**changes: Any) -> None:
    logging.config.dictConfig({**deepcopy(DEFAULT_LOGGING), **changes})


def raise_in_a_view() -> None:
    try:
        raise KeyError("the view's own")
    except KeyError:
        logging.getLogger("django.request").error(
            "Internal Server Error: %s", "/x", exc_info=True, extra={"status_code": 500, "request": None}
        )


class OnlyBrave(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        raise AttributeError("brave")


class OwnMail(AdminEmailHandler):
    def send_mail(self, *args: Any, **kwargs: Any) -> None:
        """Somewhere else."""


def test_a_views_traceback_is_seen_on_stderr_when_debug_is_off(capfd: pytest.CaptureFixture[str]) -> None:
    django_defaults()
    with override_settings(DEBUG=False, ADMINS=[]):
        raise_in_a_view()
        assert capfd.readouterr().err == "", "or Django has become kinder, and this has nothing left to do"
        setup(CONFIG)
        setup(CONFIG)
        raise_in_a_view()
    shown = capfd.readouterr().err
    assert shown.count("Traceback") == 1
    assert "[ERROR] Internal Server Error: /x\n" in shown
    assert shown.endswith('KeyError: "the view\'s own"\n')


def test_warnings_of_django_stay_where_they_were(capfd: pytest.CaptureFixture[str]) -> None:
    django_defaults()
    with override_settings(DEBUG=False, ADMINS=[]):
        setup(CONFIG)
        logging.getLogger("django.request").warning("Not Found: /x")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "handler", "attached"),
    [
        ({"DEBUG": True, "ADMINS": []}, None, False),
        ({"DEBUG": False, "ADMINS": [("A", "a@example.org")]}, None, False),
        ({"DEBUG": False, "ADMINS": []}, None, True),
        ({"DEBUG": False, "ADMINS": []}, logging.NullHandler, True),
        ({"DEBUG": False, "ADMINS": []}, OwnMail, False),
        ({"DEBUG": False, "ADMINS": []}, Kept, False),
        ({"DEBUG": False, "ADMINS": []}, lambda: Kept(logging.CRITICAL), True),
    ],
)
def test_only_a_handler_that_shows_errors_counts(
    root: logging.Logger, settings: dict[str, Any], handler: Callable[[], logging.Handler] | None, attached: bool
) -> None:
    django_defaults()
    with override_settings(**settings):
        if handler:
            root.addHandler(handler())
        setup(CONFIG)
    assert len(ours("django")) == attached


def test_a_filter_that_fails_is_no_reason_not_to_start(root: logging.Logger) -> None:
    handler = Kept()
    handler.addFilter(OnlyBrave())
    root.addHandler(handler)
    setup(CONFIG)
    assert len(ours("django")) == 1


def test_errors_that_do_not_propagate_are_caught_where_they_are() -> None:
    django_defaults()
    logging.getLogger("django.request").propagate = False
    with override_settings(DEBUG=False, ADMINS=[]):
        setup(CONFIG)
    assert (len(ours("django")), len(ours("django.request"))) == (0, 1)


def test_a_level_above_error_is_the_projects_will() -> None:
    logging.getLogger("django.request").setLevel(logging.CRITICAL)
    setup(CONFIG)
    assert not ours("django")


# Writing to standard error.


def test_a_record_with_its_traceback_is_one_write(monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]) -> None:
    writes = []
    monkeypatch.setattr(log.os, "write", lambda fd, data: writes.append((fd, data)) or len(data))
    with stderr_to(pipe[1]):
        setup(CONFIG)
        fd = sys.stderr.fileno()
        raise_in_a_view()
    assert [where for where, _ in writes] == [fd]
    assert writes[0][1].count(b"\n") > 3 and writes[0][1].endswith(b"\n")


def test_stderr_without_a_descriptor_is_written_to_as_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    setup(CONFIG, color=False)
    logging.getLogger("django_prefork").info("ready")
    assert capsys.readouterr().err.endswith("[INFO] ready\n")


def test_text_that_cannot_be_encoded_is_written_all_the_same(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    setup(CONFIG, color=False)
    logging.getLogger("django_prefork").info("a\udcffb ü")
    assert capfdbinary.readouterr().err.endswith("[INFO] a\\udcffb ü\n".encode())


def test_arguments_that_do_not_fit_show_the_message_and_do_not_raise(capfd: pytest.CaptureFixture[str]) -> None:
    setup(CONFIG)
    logging.getLogger("django_prefork").info("%d workers", "three")
    shown = capfd.readouterr().err
    assert "'%d workers'" in shown and shown.count("\n") == 1


def closed(pipe: tuple[int, int]) -> AbstractContextManager[None]:
    @contextmanager
    def broken() -> Iterator[None]:
        with stderr_to(pipe[1]):
            os.close(pipe[0])
            yield

    return broken()


def missing(pipe: tuple[int, int]) -> AbstractContextManager[None]:
    @contextmanager
    def none() -> Iterator[None]:
        before, sys.stderr = sys.stderr, None
        yield
        sys.stderr = before

    return none()


def shut(pipe: tuple[int, int]) -> AbstractContextManager[None]:
    @contextmanager
    def closed_stream() -> Iterator[None]:
        with stderr_to(pipe[1]):
            sys.stderr.close()
            yield

    return closed_stream()


def full_disk(pipe: tuple[int, int]) -> AbstractContextManager[None]:
    @contextmanager
    def full() -> Iterator[None]:
        fd = os.open("/dev/full", os.O_WRONLY)
        with stderr_to(fd):
            os.close(fd)
            yield

    return full()


@pytest.mark.parametrize("broken", [closed, missing, shut, full_disk], ids=lambda broken: broken.__name__)
def test_a_broken_stderr_harms_nobody(
    broken: Callable[[tuple[int, int]], AbstractContextManager[None]], pipe: tuple[int, int]
) -> None:
    if broken is full_disk and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with broken(pipe):
        setup(CONFIG)
        logging.getLogger("django_prefork").error("nobody hears")


def fill(fd: int) -> None:
    """Fill a pipe and leave it blocking, as a standard stream is."""
    os.set_blocking(fd, False)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
    try:
        while True:
            os.write(fd, b"." * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(fd, True)


def test_a_full_pipe_costs_a_moment_once_and_is_used_again_when_read(pipe: tuple[int, int]) -> None:
    fill(pipe[1])
    with stderr_to(pipe[1]):
        setup(CONFIG, color=False)
        began = time.monotonic()
        for _ in range(50):
            logging.getLogger("django_prefork").error("dropped")
        assert time.monotonic() - began < 2, "100 ms for the first, nothing for the others"
        while len(os.read(pipe[0], 1 << 20)) == 1 << 20:
            pass
        logging.getLogger("django_prefork").error("written")
    assert b"] written\n" in os.read(pipe[0], 4096)


def test_a_worker_without_stderr_makes_no_noise() -> None:
    """In a real process: its own exit would complain about anything left in a broken stream."""
    program = """
import logging, os, sys
from django.conf import settings
settings.configure(DEBUG=False)
import django; django.setup()
from django_prefork import log
from django_prefork.config import Config
os.close(2)
log.setup(Config.of())
logging.getLogger("django_prefork").error("x")
logging.getLogger("django.request").error("y", exc_info=ValueError("z"))
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


# Escaping.


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/plain?a=b&c='d'", "/plain?a=b&c='d'"),
        ("", ""),
        ("ü 漢 €", "ü 漢 €"),
        ("\xa0\xad", "\xa0\xad"),
        ("a\r\nb\tc\0", r"a\x0d\x0ab\x09c\x00"),
        ("\x1b[31m\x7f", r"\x1b[31m\x7f"),
        ("\x80\x85\x9b\x9f", r"\x80\x85\x9b\x9f"),
        ('"quoted" \\', r"\x22quoted\x22 \x5c"),
    ],
)
def test_escape(text: str, escaped: str) -> None:
    assert escape(text) == escaped


def test_no_control_character_survives_escape() -> None:
    everything = "".join(map(chr, range(0x2000)))
    assert not re.search(r'[\x00-\x1f\x7f-\x9f"]', escape(everything))


# The access log.

ENVIRON = {
    "HTTP_REFERER": "https://example.org/from",
    "HTTP_USER_AGENT": "Mozilla/5.0",
    "HTTP_HOST": "shop.example.org",
    "HTTP_X_REQUEST_ID": "abc-1",
}
ANSWER: dict[str, Any] = {
    "method": "GET",
    "target": "/notices/17?page=2",
    "protocol": "HTTP/1.1",
    "status": 200,
    "length": 5123,
    "duration": 0.0125,
    "peer": "192.0.2.7",
    "environ": ENVIRON,
    "slot": 3,
    "generation": 2,
}


@pytest.fixture
def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that logs one answer in a format, at a fixed time in Berlin, and returns the file's content."""
    monkeypatch.setattr(log.time, "time", lambda: 1_000_000_000.25)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    access_format.apache_time.cache_clear()
    access_format._iso_time.cache_clear()

    def answer(form: str, **changes: Any) -> str:
        path = tmp_path / "access.log"
        path.unlink(missing_ok=True)
        access_log = AccessLog.from_config(Config.of(access_log=path, access_log_format=form))
        assert access_log
        access_log.log(**{**ANSWER, **changes})
        access_log.close()
        return path.read_bytes().decode()

    yield answer
    monkeypatch.undo()
    time.tzset()
    access_format.apache_time.cache_clear()
    access_format._iso_time.cache_clear()


COMMON = '192.0.2.7 - - [09/Sep/2001:03:46:40 +0200] "GET /notices/17?page=2 HTTP/1.1" 200 5123'


@pytest.mark.parametrize(
    ("form", "changes", "line"),
    [
        ("common", {}, COMMON),
        ("combined", {}, f'{COMMON} "https://example.org/from" "Mozilla/5.0"'),
        ("combined", {"environ": None}, f'{COMMON} "-" "-"'),
        ("combined", {"environ": {"HTTP_REFERER": ""}}, f'{COMMON} "-" "-"'),
        (
            "combined",
            {"method": "", "target": "", "protocol": "", "peer": "", "environ": None, "status": 400, "length": 0},
            '- - - [09/Sep/2001:03:46:40 +0200] "- - -" 400 0 "-" "-"',
        ),
        ("{path} {query} {target}", {}, "/notices/17 page=2 /notices/17?page=2"),
        ("{path} {query}", {"target": "/x"}, "/x -"),
        ("{path} {query}", {"target": "/x??y?z"}, "/x ?y?z"),
        ("{duration} {duration_ms}", {}, "0.012500 12.500"),
        ("{host} {request_id}", {}, "shop.example.org abc-1"),
        ("{request_id}", {"environ": {"HTTP_X_REQUEST_ID": 17}}, "17"),
        ("{slot}/{generation}/{pid}", {}, f"3/2/{os.getpid()}"),
        ("100 % {{x}} {status}%s", {}, "100 % {x} 200%s"),
        ("{target}", {"target": "/%s %d {method}"}, "/%s %d {method}"),
        ("{time}", {}, "09/Sep/2001:03:46:40 +0200"),
    ],
)
def test_a_line_in_each_format(answered: Callable[..., str], form: str, changes: dict[str, Any], line: str) -> None:
    assert answered(form, **changes) == line + "\n"


def test_json_is_one_object_per_line_with_the_documented_keys(answered: Callable[..., str]) -> None:
    text = answered("json")
    assert text.count("\n") == 1
    assert list(json.loads(text).items()) == [
        ("time", "2001-09-09T03:46:40.250+02:00"),
        ("peer", "192.0.2.7"),
        ("method", "GET"),
        ("path", "/notices/17?page=2"),
        ("protocol", "HTTP/1.1"),
        ("status", 200),
        ("length", 5123),
        ("duration", 0.0125),
        ("referer", "https://example.org/from"),
        ("user_agent", "Mozilla/5.0"),
        ("request_id", "abc-1"),
        ("pid", os.getpid()),
        ("slot", 3),
        ("generation", 2),
    ]
    assert datetime.fromisoformat(json.loads(text)["time"]).timestamp() == 1_000_000_000.25
    nothing = json.loads(answered("json", environ=None))
    assert (nothing["referer"], nothing["user_agent"], nothing["request_id"]) == (None, None, None)


EVIL = "".join(map(chr, range(0x100)))


@pytest.mark.parametrize("form", ["common", "combined", "json", *(f"{{{field}}}" for field in FIELDS)])
def test_no_control_character_of_a_client_reaches_the_log(answered: Callable[..., str], form: str) -> None:
    environ = dict.fromkeys(ENVIRON, EVIL)
    line = answered(form, method=EVIL, target=EVIL, protocol=EVIL, peer=EVIL, environ=environ)
    assert line.endswith("\n")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line[:-1])
    if form == "json":
        assert json.loads(line)["user_agent"] == EVIL
        assert json.loads(line)["path"] == EVIL


def test_the_time_moves_on(answered: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "03:46:40 " in answered("{time}")
    monkeypatch.setattr(log.time, "time", lambda: 1_000_000_001.0)
    assert "03:46:41 " in answered("{time}")


def test_each_record_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a"))
    assert access_log
    writes = []
    monkeypatch.setattr(log.os, "write", lambda fd, data: writes.append(data) or len(data))
    access_log.log(**ANSWER)
    access_log.log(**ANSWER)
    access_log.close()
    assert len(writes) == 2 and all(data.count(b"\n") == 1 for data in writes)


def test_the_file_is_appended_to_private_and_not_inherited(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    mask = os.umask(0)
    try:
        access_log = AccessLog.from_config(Config.of(access_log=path, access_log_format="{status}"))
    finally:
        os.umask(mask)
    assert access_log
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not os.get_inheritable(access_log._fd)
    assert fcntl.fcntl(access_log._fd, fcntl.F_GETFL) & os.O_APPEND
    path.write_text("before\n")
    access_log.log(**ANSWER)
    access_log.close()
    access_log.close()
    assert path.read_text() == "before\n200\n"


def test_a_dash_is_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    access_log = AccessLog.from_config(Config.of(access_log="-", access_log_format="common"))
    assert access_log
    access_log.log(**ANSWER)
    access_log.reopen()
    access_log.close()
    access_log.log(**ANSWER)
    assert capfd.readouterr().out.count('"GET /notices/17?page=2 HTTP/1.1" 200 5123\n') == 2


def test_a_file_that_cannot_be_opened_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "access.log"
    with pytest.raises(ConfigError) as error:
        AccessLog.from_config(Config.of(access_log=path))
    assert str(error.value) == (
        f"Config.of(access_log=...) says {str(path)!r}, but access_log cannot be written there (No such file or"
        " directory): choose a folder that exists and may be written to, or - for standard output."
    )


def test_a_fifo_without_a_reader_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError):
        AccessLog.from_config(Config.of(access_log=tmp_path / "fifo"))


# Rotation.


def test_reopen_goes_on_in_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    access_log = AccessLog.from_config(Config.of(access_log=path, access_log_format="{target}"))
    assert access_log
    access_log.log(**{**ANSWER, "target": "/old"})
    path.rename(tmp_path / "access.log.1")
    before = len(os.listdir("/dev/fd"))
    access_log.reopen()
    access_log.log(**{**ANSWER, "target": "/new"})
    assert len(os.listdir("/dev/fd")) == before
    assert not os.get_inheritable(access_log._fd)
    access_log.close()
    access_log.reopen()
    assert len(os.listdir("/dev/fd")) == before - 1
    assert ((tmp_path / "access.log.1").read_text(), path.read_text()) == ("/old\n", "/new\n")


def test_reopen_finds_its_file_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    access_log = AccessLog.from_config(Config.of(access_log="access.log", access_log_format="{status}"))
    assert access_log
    monkeypatch.chdir("/")
    (tmp_path / "access.log").unlink()
    access_log.reopen()
    access_log.log(**ANSWER)
    access_log.close()
    assert (tmp_path / "access.log").read_text() == "200\n"


def test_reopen_in_a_folder_that_vanished_warns_once_and_keeps_the_old_file(tmp_path: Path) -> None:
    logging.getLogger("django_prefork").addHandler(kept := Kept())
    folder = tmp_path / "logs"
    folder.mkdir()
    access_log = AccessLog.from_config(Config.of(access_log=folder / "access.log", access_log_format="{target}"))
    assert access_log
    folder.rename(tmp_path / "elsewhere")
    access_log.reopen()
    access_log.log(**ANSWER)
    access_log.close()
    assert (tmp_path / "elsewhere" / "access.log").read_text() == "/notices/17?page=2\n"
    (record,) = kept.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"access log: cannot reopen {folder}/access.log")


# Trouble.


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_drops_lines_and_warns_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("django_prefork").addHandler(kept := Kept())
    now = 1000.0
    monkeypatch.setattr(log.time, "monotonic", lambda: now)
    access_log = AccessLog.from_config(Config.of(access_log="/dev/full"))
    assert access_log
    for _ in range(5):
        access_log.log(**ANSWER)
    now = 1059.9
    access_log.log(**ANSWER)
    assert [record.getMessage() for record in kept.records] == ["access log: line dropped: No space left on device"]
    now = 1060.0
    access_log.log(**ANSWER)
    access_log.close()
    assert len(kept.records) == 2


def test_standard_output_that_is_missing_or_closed_drops_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("django_prefork").addHandler(kept := Kept())
    monkeypatch.setattr(sys, "stdout", None)
    access_log = AccessLog.from_config(Config.of(access_log="-"))
    assert access_log
    access_log.log(**ANSWER)
    assert len(kept.records) == 1


def test_nobody_waits_long_for_a_reader_that_sleeps(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    logging.getLogger("django_prefork").addHandler(kept := Kept())
    fill(pipe[1])
    with os.fdopen(os.dup(pipe[1]), "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        access_log = AccessLog.from_config(Config.of(access_log="-", access_log_format="{target}"))
        assert access_log
        began = time.monotonic()
        for _ in range(50):
            access_log.log(**ANSWER)
        assert time.monotonic() - began < 2, "100 ms for the first, nothing for the others"
        assert [record.getMessage() for record in kept.records] == ["access log: line dropped: nobody reads it"]
        while len(os.read(pipe[0], 1 << 20)) == 1 << 20:
            pass
        access_log.log(**ANSWER)
    assert os.read(pipe[0], 4096) == b"/notices/17?page=2\n"


# Through the project's LOGGING.


def test_without_option_and_logging_there_is_no_access_log() -> None:
    setup(CONFIG)
    assert AccessLog.from_config(CONFIG) is None


def test_a_root_logger_for_everything_is_not_meant_for_answers(root: logging.Logger) -> None:
    root.addHandler(Kept())
    root.setLevel(logging.DEBUG)
    setup(CONFIG)
    assert AccessLog.from_config(CONFIG) is None


@pytest.mark.parametrize(
    ("loggers", "wanted"),
    [
        ({"django_prefork.access": {"handlers": ["kept"]}}, True),
        ({"django_prefork.access": {"handlers": ["kept"], "level": "INFO"}}, True),
        ({"django_prefork.access": {"handlers": ["kept"], "level": "WARNING"}}, False),
        ({"django_prefork.access": {"level": "INFO"}, "django_prefork": {"handlers": ["kept"]}}, True),
        ({"django_prefork.access": {"level": "INFO"}}, False),
        ({"django_prefork": {"handlers": ["kept"], "level": "INFO"}}, False),
    ],
)
def test_records_go_to_handlers_that_the_project_gave_the_logger(loggers: dict[str, Any], wanted: bool) -> None:
    logging.config.dictConfig({"version": 1, "handlers": {"kept": {"()": Kept}}, "loggers": loggers})
    setup(CONFIG)
    access_log = AccessLog.from_config(CONFIG)
    assert (access_log is not None) is wanted
    if access_log:
        access_log.log(**{**ANSWER, "target": '/a"b?\n', "environ": None})
        name = "django_prefork.access" if "handlers" in loggers["django_prefork.access"] else "django_prefork"
        ((record,),) = [handler.records for handler in logging.getLogger(name).handlers]
        assert (record.name, record.levelno) == ("django_prefork.access", logging.INFO)
        assert '"GET /a\\x22b?\\x0a HTTP/1.1" 200 5123' in record.getMessage()


def test_records_carry_their_fields_and_go_to_the_file_too(tmp_path: Path) -> None:
    logging.getLogger("django_prefork.access").addHandler(kept := Kept())
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a", access_log_format="{status}"))
    assert access_log
    access_log.log(**ANSWER)
    access_log.close()
    (record,) = kept.records
    assert (tmp_path / "a").read_text() == "200\n"
    assert record.getMessage() == "200"
    expected = {
        **{name: ANSWER[name] for name in ("method", "target", "protocol", "length", "duration", "peer")},
        "path": "/notices/17",
        "query": "page=2",
        "referer": "https://example.org/from",
        "user_agent": "Mozilla/5.0",
        "host": "shop.example.org",
        "request_id": "abc-1",
        "status_code": 200,
        "slot": 3,
        "generation": 2,
        "pid": os.getpid(),
    }
    assert {name: record.__dict__[name] for name in expected} == expected
    assert record_fields(access_format.Answer(**ANSWER, time=0.0)) == expected


def test_a_handler_that_raises_does_not_end_the_request() -> None:
    class Raises(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("its own trouble")

    logging.getLogger("django_prefork").addHandler(kept := Kept())
    logging.getLogger("django_prefork.access").addHandler(Raises())
    logging.getLogger("django_prefork.access").propagate = False
    access_log = AccessLog.from_config(CONFIG)
    assert access_log
    access_log.log(**ANSWER)
    access_log.log(**ANSWER)
    (record,) = kept.records
    assert "its own trouble" in record.getMessage()


def test_the_formatter_writes_one_line_for_one_message() -> None:
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b",), "levelname": "INFO", "levelno": logging.INFO})
    assert LineFormatter().format(record).endswith(f"[{os.getpid()}] [INFO] a b")
