from __future__ import annotations

import logging
import logging.config
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import deepcopy
from typing import Any

import pytest
from django.test import override_settings
from django.utils.log import DEFAULT_LOGGING, AdminEmailHandler

from django_prefork import log
from django_prefork.config import Config
from django_prefork.log import LineFormatter, StderrHandler, escape, setup
from tests.logs import Kept, bare_loggers, both_ends, fill

CONFIG = Config.of(workers=1)


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    with bare_loggers() as root:
        yield root


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    with both_ends() as ends:
        yield ends


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


# Lifecycle lines.


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError("the collector is down")


def test_a_handler_that_raises_ends_nobody_and_the_line_is_on_stderr(
    capfd: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    root_logger.addHandler(Raising())
    for _ in range(2):
        setup(CONFIG, color=False)
        logging.getLogger("django_prefork").warning("slow")
    lines = [line.partition("] [")[2].partition("] ")[2] for line in capfd.readouterr().err.splitlines()]
    failed = "[ERROR] a handler of LOGGING failed at the line before: RuntimeError('the collector is down')"
    assert lines == ["[WARNING] slow", failed] * 2


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
def test_a_handler_of_the_projects_is_left_alone(root_logger: logging.Logger, at_root: bool) -> None:
    kept = Kept()
    (root_logger if at_root else logging.getLogger("django_prefork")).addHandler(kept)
    setup(CONFIG)
    assert not ours("django_prefork")
    logging.getLogger("django_prefork").error("x")
    assert len(kept.records) == 1


def test_a_root_handler_behind_propagate_false_is_not_reached(root_logger: logging.Logger) -> None:
    root_logger.addHandler(Kept())
    logging.getLogger("django_prefork").propagate = False
    setup(CONFIG)
    assert len(ours("django_prefork")) == 1


def test_setup_twice_never_makes_two_handlers_and_follows_what_changed(
    capfd: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    setup(CONFIG, 2, color=False)
    setup(CONFIG, 1, color=False)
    assert (len(ours("django_prefork")), len(ours("django"))) == (1, 1)
    logging.getLogger("django_prefork").debug("unseen")
    logging.getLogger("django_prefork").info("once")
    assert capfd.readouterr().err.count("\n") == 1
    root_logger.addHandler(kept := Kept())
    setup(CONFIG)
    assert not ours("django_prefork") and not ours("django")
    logging.getLogger("django_prefork").warning("to the project")
    assert [record.msg for record in kept.records] == ["to the project"]


def test_a_root_handler_that_comes_later_does_not_double_the_lines(root_logger: logging.Logger) -> None:
    setup(CONFIG)
    root_logger.addHandler(kept := Kept())
    logging.getLogger("django_prefork").error("x")
    assert not kept.records


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


def test_the_formatter_writes_one_line_for_one_message() -> None:
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b",), "levelname": "INFO", "levelno": logging.INFO})
    assert LineFormatter().format(record).endswith(f"[{os.getpid()}] [INFO] a b")


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
    root_logger: logging.Logger, settings: dict[str, Any], handler: Callable[[], logging.Handler] | None, attached: bool
) -> None:
    django_defaults()
    with override_settings(**settings):
        if handler:
            root_logger.addHandler(handler())
        setup(CONFIG)
    assert len(ours("django")) == attached


def test_a_filter_that_fails_is_no_reason_not_to_start(root_logger: logging.Logger) -> None:
    handler = Kept()
    handler.addFilter(OnlyBrave())
    root_logger.addHandler(handler)
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
