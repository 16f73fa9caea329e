"""`runprefork --from-gunicorn FILE --print-config`."""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_prefork import from_gunicorn
from django_prefork.config import OPTIONS, resolve

FILE = """
import multiprocessing
bind = ["0.0.0.0:8000", "unix:/run/app.sock"]
workers = 3
threads = 4
worker_class = "gthread"
timeout = 120
accesslog = "-"
access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
preload_app = True
umask = 0o007
limit_request_line = 0
limit_request_fields = 99999
chdir = None
helper = 3

def post_fork(server, worker):
    pass
"""


def translated(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gunicorn.conf.py"
    path.write_text(text)
    output = io.StringIO()
    call_command("runprefork", from_gunicorn=str(path), print_config=True, stdout=output)
    return output.getvalue()


def test_a_file_becomes_a_setting_that_holds(tmp_path: Path) -> None:
    text = translated(tmp_path, FILE)
    (statement,) = ast.parse(text).body
    assert isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PREFORK"
    setting = ast.literal_eval(statement.value)
    assert setting == {
        "BIND": ["0.0.0.0:8000", "unix:/run/app.sock"],
        "WORKERS": 12,
        "TIMEOUT": 120,
        "ACCESS_LOG": "-",
        "ACCESS_LOG_FORMAT": "combined",
        "UMASK": "007",
    }
    assert resolve({}, {}, setting).umask == 0o007


def test_what_is_different_or_missing_is_named(tmp_path: Path) -> None:
    text = translated(tmp_path, FILE)
    different, _, rest = text.partition("# Without a counterpart")
    missing, _, silent = rest.partition("# What the file does not say")
    assert "WORKERS is workers x threads, 3 x 4" in different
    assert "timeout: There a sign of life" in different
    for name in ("worker_class = 'gthread'", "preload_app = True", "post_fork:", "limit_request_line = 0"):
        assert f"#   {name}" in missing
    assert "limit_request_fields = 99999 says '99999'" in missing or "limit_request_fields takes" in missing
    assert "helper" not in text and "chdir" not in text
    assert "keepalive: 2 s there, KEEP_ALIVE 75 s here" in silent
    assert "timeout: 30" not in silent.replace("graceful_timeout: 30", "")


def test_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    assert "PREFORK = {}" in translated(tmp_path, "")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"bind": "127.0.0.1"}, {"BIND": ["127.0.0.1:8000"]}),
        ({"bind": ":9000"}, {"BIND": [":9000"]}),
        ({"bind": "unix:///run/a.sock, [::1]:80"}, {"BIND": ["unix:/run/a.sock", "[::1]:80"]}),
        ({"bind": "fd://3"}, {"BIND": ["fd:3"]}),
        ({"keepalive": 0}, {"KEEP_ALIVE": 0}),
        ({"forwarded_allow_ips": "10.0.0.1, 10.0.0.2"}, {"FORWARDED_ALLOW_IPS": ["10.0.0.1", "10.0.0.2"]}),
        ({"forwarded_allow_ips": "*"}, {"FORWARDED_ALLOW_IPS": ["*"]}),
        ({"umask": 18}, {"UMASK": "022"}),
        ({"threads": 2}, {"WORKERS": 2}),
        ({"access_log_format": "%(m)s %(U)s {x} 100%%"}, {"ACCESS_LOG_FORMAT": "{method} {path} {{x}} 100%"}),
        ({"access_log_format": "%({X-Request-Id}i)s"}, {"ACCESS_LOG_FORMAT": "{request_id}"}),
    ],
)
def test_values_are_written_as_they_are_here(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    result, _, missing = from_gunicorn.convert(theirs)
    assert result == ours
    resolve({}, {}, result)
    assert all(line.startswith("threads") for line in missing)


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        ({"access_log_format": "%({x-foo}o)s"}, r"nothing for %\(\{x-foo\}o\)s"),
        ({"bind": 8000}, "bind"),
        ({"workers": "many"}, "workers"),
        ({"limit_request_field_size": 0}, "nothing is unlimited"),
    ],
)
def test_values_that_have_no_counterpart_say_so(theirs: dict[str, Any], why: str) -> None:
    result, _, (missing,) = from_gunicorn.convert(theirs)
    assert not result
    assert re.search(why, missing)


@pytest.mark.parametrize("text", ["bind =", "1 / 0", "raise SystemExit(3)", "import no_such_module"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(CommandError, match=r"gunicorn.conf.py cannot be read \("):
        translated(tmp_path, text)


def test_a_file_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(CommandError, match=r"/no/such.py cannot be read \(No such file"):
        call_command("runprefork", from_gunicorn="/no/such.py", print_config=True)


def test_it_is_for_reading_only(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="add --print-config"):
        call_command("runprefork", from_gunicorn="gunicorn.conf.py")


def test_every_row_leads_to_an_option_and_no_name_is_there_twice() -> None:
    assert {row.option for row in from_gunicorn.ROWS} - {""} <= {option.name for option in OPTIONS}
    names = [name for row in from_gunicorn.ROWS for name in row.names.split()]
    assert len(names) == len(set(names))
    for name in names:
        assert sum(row.has(name.replace("*", "x")) for row in from_gunicorn.ROWS) == 1, name
