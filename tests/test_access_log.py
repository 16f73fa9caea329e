from __future__ import annotations

import fcntl
import json
import logging
import logging.config
import math
import os
import re
import select
import stat
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_prefork import access_format, log
from django_prefork.access_format import FIELDS, record_fields
from django_prefork.config import Config, ConfigError, resolve
from django_prefork.log import AccessLog, setup
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


ENVIRON = {
    "HTTP_REFERER": "https://example.org/from",
    "HTTP_USER_AGENT": "Mozilla/5.0",
    "HTTP_HOST": "shop.example.org",
    "HTTP_X_REQUEST_ID": "abc-1",
    "prefork.queue_time": 0.25,
}


def asked(target: str = "/notices/17?page=2", **changes: Any) -> Any:
    """A request, as the log sees it; `environ` is what is in it besides the client's address."""
    environ = {"REMOTE_ADDR": changes.pop("peer", "192.0.2.7"), **changes.pop("environ", ENVIRON)}
    return SimpleNamespace(**{"method": "GET", "target": target, "http11": True, "fields": environ, **changes})


ANSWER: dict[str, Any] = {
    "request": asked(),
    "status": 200,
    "length": 5123,
    "duration": 0.0125,
    "slot": 3,
    "generation": 2,
}


@pytest.fixture
def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """A function that logs one answer in a format, at a fixed time in Berlin, and returns the file's content."""
    monkeypatch.setattr(log.time, "time", lambda: 1_000_000_000.25)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    access_format._second.end = 0.0
    access_format._iso_time.cache_clear()

    def answer(form: str, **changes: Any) -> str:
        path = tmp_path / "access.log"
        path.unlink(missing_ok=True)
        access_log = AccessLog.from_config(Config.of(access_log=path, access_log_format=form))
        assert access_log
        answer = {name: changes.pop(name) for name in ANSWER.keys() & changes.keys()}
        access_log.log(**{**ANSWER, "request": asked(**changes), **answer})
        access_log.close()
        return path.read_bytes().decode()

    yield answer
    monkeypatch.undo()
    time.tzset()
    access_format._second.end = 0.0
    access_format._iso_time.cache_clear()


COMMON = '192.0.2.7 - - [09/Sep/2001:03:46:40 +0200] "GET /notices/17?page=2 HTTP/1.1" 200 5123'


@pytest.mark.parametrize(
    ("form", "changes", "line"),
    [
        ("common", {}, COMMON),
        ("combined", {}, f'{COMMON} "https://example.org/from" "Mozilla/5.0"'),
        ("combined", {"environ": {}}, f'{COMMON} "-" "-"'),
        ("combined", {"environ": {"HTTP_REFERER": ""}}, f'{COMMON} "-" "-"'),
        (
            "combined",
            {"method": "", "target": "", "http11": False, "peer": "", "environ": {}, "status": 400, "length": 0},
            '- - - [09/Sep/2001:03:46:40 +0200] "- - HTTP/1.0" 400 0 "-" "-"',
        ),
        ("{path} {query} {target}", {}, "/notices/17 page=2 /notices/17?page=2"),
        ("{path} {query}", {"target": "/x"}, "/x -"),
        ("{path} {query}", {"target": "/x??y?z"}, "/x ?y?z"),
        ("{duration} {duration_ms}", {}, "0.012500 12.500"),
        ("{queue_time} {queue_time_ms}", {}, "0.250000 250.000"),
        ("{queue_time}", {"environ": {}}, "0.000000"),
        ("{host} {request_id}", {}, "shop.example.org abc-1"),
        ("{request_id}", {"environ": {"HTTP_X_REQUEST_ID": 17}}, "17"),
        ("{slot}/{generation}/{pid}", {}, "3/2/PID"),
        ("100 % {{x}} {status}%s", {}, "100 % {x} 200%s"),
        ("{target}", {"target": "/%s %d {method}"}, "/%s %d {method}"),
        ("{time}", {}, "09/Sep/2001:03:46:40 +0200"),
    ],
)
def test_a_line_in_each_format(answered: Callable[..., str], form: str, changes: dict[str, Any], line: str) -> None:
    assert answered(form, **changes) == line.replace("PID", str(os.getpid())) + "\n"


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
        ("queue_time", 0.25),
        ("referer", "https://example.org/from"),
        ("user_agent", "Mozilla/5.0"),
        ("request_id", "abc-1"),
        ("pid", os.getpid()),
        ("slot", 3),
        ("generation", 2),
    ]
    assert datetime.fromisoformat(json.loads(text)["time"]).timestamp() == 1_000_000_000.25
    nothing = json.loads(answered("json", environ={}))
    assert (nothing["referer"], nothing["user_agent"], nothing["request_id"]) == (None, None, None)


EVIL = "".join(map(chr, range(0x100)))


@pytest.mark.parametrize("form", ["common", "combined", "json", *(f"{{{field}}}" for field in FIELDS)])
def test_no_control_character_of_a_client_reaches_the_log(answered: Callable[..., str], form: str) -> None:
    environ = dict.fromkeys(ENVIRON, EVIL)
    line = answered(form, method=EVIL, target=EVIL, peer=EVIL, environ=environ)
    assert line.endswith("\n")
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", line[:-1])
    if form == "json":
        assert json.loads(line)["user_agent"] == EVIL
        assert json.loads(line)["path"] == EVIL


@pytest.mark.parametrize("field", ["method", "target", "peer", "referer", "user_agent", "host", "request_id"])
def test_each_that_is_not_to_be_there_is_seen_for_itself(field: str) -> None:
    line = access_format.line_maker(f'"{{{field}}}"')
    for character in EVIL:
        text = f"a{character}b"
        values = {"method": text, "peer": text, "environ": dict.fromkeys(ENVIRON, text)}
        said = line(asked(text, **values), 200, 5123, 0.0125, 3, 2, 1_000_000_000.25)
        assert said == f'"{access_format.escape(text)}"\n'.encode()


# Not `st.text`, which makes no surrogates, whatever its alphabet.
TEXTS = st.lists(st.characters() | st.sampled_from('"\\\n\x7f\x85é\ud800 ab'), max_size=8).map("".join)
#: In a template: what is text by itself, and what stands for a field.
PIECES = st.lists(TEXTS.map(lambda text: text.replace("{", "{{").replace("}", "}}")) | st.sampled_from(list(FIELDS)))


@given(pieces=PIECES, texts=st.lists(TEXTS, min_size=7, max_size=7))
@settings(max_examples=300, deadline=None)
def test_whatever_is_in_it_a_line_is_as_if_each_field_were_looked_at_for_itself(
    pieces: list[str], texts: list[str]
) -> None:
    method, target, peer, *values = texts
    environ = dict(zip(("HTTP_REFERER", "HTTP_USER_AGENT", "HTTP_HOST", "HTTP_X_REQUEST_ID"), values, strict=True))
    request = asked(target, method=method, peer=peer, environ=environ)
    template = "".join(f"{{{piece}}}" if piece in FIELDS else piece for piece in pieces)
    answer = (request, 200, 5123, 0.0125, 3, 2, 1_000_000_000.25)
    shown = record_fields(*answer)
    shown |= {"status": 200, "duration": "0.012500", "duration_ms": "12.500", "queue_time": "0.000000"}
    shown |= {"queue_time_ms": "0.000", "time": access_format._second.at(1_000_000_000.25)}
    line = access_format.line_maker("{status}" + template)(*answer)
    assert line == ("{status}" + template + "\n").format(**shown).encode("utf-8", "backslashreplace")


def test_the_time_moves_on(answered: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "03:46:40 " in answered("{time}")
    monkeypatch.setattr(log.time, "time", lambda: 1_000_000_001.0)
    assert "03:46:41 " in answered("{time}")


def test_each_record_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a"))
    assert access_log
    writes = []
    monkeypatch.setattr(log.os, "write", lambda fd, data: writes.append(bytes(data)) or len(data))
    access_log.log(**ANSWER)
    access_log.log(**ANSWER)
    access_log.close()
    assert len(writes) == 2 and all(data.count(b"\n") == 1 for data in writes)


# Lines that wait.


@pytest.fixture
def gathering(tmp_path: Path) -> Iterator[AccessLog]:
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a", access_log_format="{target}"))
    assert access_log
    access_log.prepare(3)
    assert access_log.gather(3)
    yield access_log
    access_log.close()


def test_lines_wait_for_each_other_and_are_written_together(
    gathering: AccessLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        gathering.log(**{**ANSWER, "request": asked(f"/{number}")})
    assert (tmp_path / "a").read_text() == ""
    writes = []
    monkeypatch.setattr(log.os, "write", lambda fd, data: writes.append(bytes(data)) or len(data))
    gathering.flush()
    gathering.flush()
    assert writes == [b"/0\n/1\n/2\n"]


TARGETS = ["/" + "x" * (number * 37 % 900) for number in range(600)]


def test_no_more_of_them_than_a_file_is_written_at_once(gathering: AccessLog, tmp_path: Path, sizes: list[int]) -> None:
    for target in TARGETS:
        gathering.log(**{**ANSWER, "request": asked(target)})
    gathering.flush()
    assert (tmp_path / "a").read_text().splitlines() == TARGETS
    assert max(sizes) <= 65536 and len(sizes) == math.ceil(sum(map(len, TARGETS)) / 65536)


def test_no_more_of_them_than_a_pipe_takes_whole(tmp_path: Path, sizes: list[int]) -> None:
    os.mkfifo(tmp_path / "a")
    reader = os.open(tmp_path / "a", os.O_RDONLY | os.O_NONBLOCK)
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a", access_log_format="{target}"))
    assert access_log
    access_log.prepare(3)
    assert access_log.gather(3)
    text = b""
    for target in TARGETS:
        access_log.log(**{**ANSWER, "request": asked(target)})
        text += read_what_is_there(reader)
    access_log.flush()
    access_log.close()
    text += read_what_is_there(reader)
    os.close(reader)
    assert text.decode().splitlines() == TARGETS
    assert max(sizes) <= select.PIPE_BUF and len(sizes) < len(TARGETS) / 2


def read_what_is_there(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of what is written."""
    found = []
    write = os.write

    def written(fd: int, data: bytes) -> int:
        found.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(log.os, "write", written)
    return found


def test_a_line_that_is_too_long_to_wait_keeps_its_place(gathering: AccessLog, tmp_path: Path) -> None:
    targets = ["/before", "/" + "x" * 65536, "/behind"]
    for target in targets:
        gathering.log(**{**ANSWER, "request": asked(target)})
    gathering.flush()
    assert (tmp_path / "a").read_text().splitlines() == targets


def test_while_much_is_served_in_each_turn_they_wait_for_those_of_the_next_but_not_for_long(
    gathering: AccessLog, tmp_path: Path
) -> None:
    assert not gathering.hold(100.0, 16)  # there is nothing to wait with
    gathering.log(**ANSWER)
    assert not gathering.hold(100.0, 16)  # the first after a rest
    assert (tmp_path / "a").read_text().count("\n") == 1
    for now in (100.001, 100.049):
        gathering.log(**ANSWER)
        assert gathering.hold(now, 4)
        assert (tmp_path / "a").read_text().count("\n") == 1
    gathering.log(**ANSWER)
    assert not gathering.hold(100.051, 4)
    assert (tmp_path / "a").read_text().count("\n") == 4


@pytest.mark.parametrize("served", [0, 1, 3])
def test_they_wait_no_longer_than_there_is_much_to_serve(gathering: AccessLog, tmp_path: Path, served: int) -> None:
    for lines in (1, 2):
        gathering.log(**ANSWER)
        assert not gathering.hold(100.0, served)
        assert (tmp_path / "a").read_text().count("\n") == lines


def test_the_second_is_looked_up_once_and_whichever_way_the_clock_goes(
    answered: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []
    at = access_format._Second.at
    monkeypatch.setattr(
        access_format._Second, "at", lambda self, moment: (looked_up.append(moment), at(self, moment))[1]
    )
    for moment, second in (
        (1_000_000_000.999, 40),
        (1_000_000_000.0, 40),
        (1_000_000_001.0, 41),
        (999_999_999.999, 39),
        (1_000_000_000.0, 40),
    ):
        monkeypatch.setattr(log.time, "time", lambda moment=moment: moment)
        assert f":03:46:{second} +0200" in answered("{time}")
    assert looked_up == [1_000_000_000.999, 1_000_000_001.0, 999_999_999.999, 1_000_000_000.0]


def test_they_go_to_the_file_they_were_made_for(gathering: AccessLog, tmp_path: Path) -> None:
    gathering.log(**ANSWER)
    (tmp_path / "a").rename(tmp_path / "a.1")
    gathering.reopen()
    gathering.log(**ANSWER)
    gathering.flush()
    assert (tmp_path / "a").read_text() == (tmp_path / "a.1").read_text() == "/notices/17?page=2\n"


def test_what_dead_workers_have_not_written_is_written_once(tmp_path: Path) -> None:
    access_log = AccessLog.from_config(Config.of(access_log=tmp_path / "a", access_log_format="{target}"))
    assert access_log
    for number in (1, 2):
        access_log.prepare(7)
        pid = os.fork()
        if not pid:
            access_log.gather(7)
            access_log.log(**{**ANSWER, "request": asked(f"/written/{number}")})
            access_log.flush()
            access_log.log(**{**ANSWER, "request": asked(f"/left/{number}")})
            os._exit(0)
        os.waitpid(pid, 0)
        for slot in (6, 7, 7, 8):
            access_log.rescue(slot)
    access_log.close()
    assert (tmp_path / "a").read_text() == "/written/1\n/left/1\n/written/2\n/left/2\n"


def test_it_is_said_how_many_are_dropped(gathering: AccessLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log.os, "write", full)
    logging.getLogger("django_prefork").addHandler(kept := Kept())
    for _ in range(3):
        gathering.log(**ANSWER)
    gathering.flush()
    assert [record.getMessage() for record in kept.records] == ["access log: 3 lines dropped: No space left on device"]


def test_where_only_handlers_get_them_none_waits() -> None:
    log.access.addHandler(Kept())
    access_log = AccessLog.from_config(Config.of())
    assert access_log
    access_log.prepare(0)
    assert not access_log.gather(0)


def test_none_waits_where_each_is_to_be_written_at_once(tmp_path: Path) -> None:
    access_log = AccessLog.from_config(
        Config.of(access_log=tmp_path / "a", access_log_format="{target}"), gathers=False
    )
    assert access_log
    access_log.prepare(0)
    assert not access_log.gather(0)
    access_log.log(**ANSWER)
    assert (tmp_path / "a").read_text() == "/notices/17?page=2\n"
    access_log.close()


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
    access_log.log(**{**ANSWER, "request": asked("/old")})
    path.rename(tmp_path / "access.log.1")
    before = len(os.listdir("/dev/fd"))
    access_log.reopen()
    access_log.log(**{**ANSWER, "request": asked("/new")})
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


def test_a_root_logger_for_everything_is_not_meant_for_answers(root_logger: logging.Logger) -> None:
    root_logger.addHandler(Kept())
    root_logger.setLevel(logging.DEBUG)
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
        access_log.log(**{**ANSWER, "request": asked('/a"b?\n', environ={})})
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
        "method": "GET",
        "target": "/notices/17?page=2",
        "protocol": "HTTP/1.1",
        "length": 5123,
        "duration": 0.0125,
        "peer": "192.0.2.7",
        "path": "/notices/17",
        "query": "page=2",
        "referer": "https://example.org/from",
        "user_agent": "Mozilla/5.0",
        "host": "shop.example.org",
        "request_id": "abc-1",
        "queue_time": 0.25,
        "status_code": 200,
        "slot": 3,
        "generation": 2,
        "pid": os.getpid(),
    }
    assert {name: record.__dict__[name] for name in expected} == expected
    assert record_fields(**ANSWER, moment=0.0) == expected


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


# What DEBUG shows unasked.

CONSOLE = (
    '[09/Sep/2001 03:46:40] "GET /notices/17?page=2 HTTP/1.1" 200 5123 12.5 ms slot 3\n'  # as runserver's, and more
)


def while_debugging(**options: Any) -> Config:
    return resolve(options, {}, None, debug=True)


def test_while_debugging_each_answer_is_a_line_for_people(
    answered: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert answered("console") == CONSOLE
    access_log = AccessLog.from_config(while_debugging())
    assert access_log
    access_log.log(**ANSWER)
    assert capfd.readouterr().out == CONSOLE
    assert AccessLog.from_config(while_debugging(access_log="off")) is None
    asked = AccessLog.from_config(while_debugging(access_log_format="{status}"))
    assert asked
    asked.log(**ANSWER)
    assert capfd.readouterr().out == "200\n"


@pytest.mark.parametrize(
    ("status", "code"), [(101, "1"), (200, ""), (304, "36"), (302, "32"), (404, "33"), (403, "31"), (500, "35")]
)
def test_on_a_terminal_it_has_the_colours_of_runserver(
    capfd: pytest.CaptureFixture[str], status: int, code: str
) -> None:
    access_log = AccessLog.from_config(while_debugging(), color=True)
    assert access_log
    access_log.log(**{**ANSWER, "status": status})
    line = capfd.readouterr().out
    assert re.match(rf"\x1b\[(\d;)?{code}.*m\[.*\x1b\[0m\n$", line), line


def test_while_debugging_a_log_of_the_projects_own_is_enough(
    root_logger: logging.Logger, capfd: pytest.CaptureFixture[str]
) -> None:
    kept = Kept()
    log.access.addHandler(kept)
    access_log = AccessLog.from_config(while_debugging(), color=True)
    assert access_log
    access_log.log(**ANSWER)
    assert len(kept.records) == 1 and "\x1b" not in kept.records[0].getMessage()
    assert capfd.readouterr().out == ""


def test_while_debugging_routine_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    setup(CONFIG, 1, False, brief=True)
    log.logger.info("worker=%d gen=1 pid=7 ready", 2)
    log.logger.info("arbiter gen=%d leaves: retired", 1)
    log.logger.info("arbiter gen=1 pid=7 ready: 4 workers")
    log.logger.error("worker=2 gen=1 pid=7 failed")
    said = capfd.readouterr().err.splitlines()
    assert [line.partition("] [")[2].partition("] ")[2] for line in said] == [
        "[INFO] arbiter gen=1 pid=7 ready: 4 workers",
        "[ERROR] worker=2 gen=1 pid=7 failed",
    ]
