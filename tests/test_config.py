from __future__ import annotations

import argparse
import dataclasses
import math
import pwd
import typing
from typing import Any

import pytest
from django.core.management import BaseCommand, call_command
from hypothesis import given
from hypothesis import strategies as st

from django_prefork import config as config_module
from django_prefork.config import (
    DEBUG_DEFAULT,
    OPTIONS,
    Bind,
    Config,
    ConfigError,
    Option,
    add_arguments,
    describe,
    options_table,
)
from django_prefork.config import resolve as resolve_everything

BY_NAME = {option.name: option for option in OPTIONS}


def resolve(
    options: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
    settings: Any = None,
) -> Config:
    return resolve_everything(options or {}, environ or {}, settings)


def parse(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return vars(parser.parse_args(words))


# The table.


def test_config_has_one_attribute_for_each_option_in_the_same_order() -> None:
    assert [field.name for field in dataclasses.fields(Config)] == [*BY_NAME, "sources"]
    assert len(BY_NAME) == len(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_every_option_explains_itself(option: Option) -> None:
    for sentence in (option.help, option.why):
        assert sentence.endswith(".") and sentence[0].isupper()
    if option.kind.unit:
        assert option.help.lower().startswith(option.kind.unit)
    if option.kind in (config_module.values.INTEGER, config_module.values.DURATION, config_module.values.SIZE):
        assert option.high is not None, "a typo in a number hurts"
    assert option.show_default(), "the default can be told in words"


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_default_has_the_attributes_type_and_is_accepted_by_its_own_option(option: Option) -> None:
    default = option.compute_default()
    hint = typing.get_type_hints(Config)[option.name]
    allowed = tuple(typing.get_origin(part) or part for part in (typing.get_args(hint) or (hint,)))
    if typing.get_origin(hint) is tuple:
        allowed = (tuple,)
    assert type(default) in allowed
    if default is not None:
        read = option.read(default, "test") if default != () else ()
        assert (read, type(read)) == (default, type(default))


def test_defaults_are_the_ones_the_design_names() -> None:
    config = Config.of()
    defaults = {name: getattr(config, name) for name in BY_NAME if name != "workers"}
    assert defaults == {
        "drain_delay": 0.0,
        "handoff_after": 0.005,
        "max_rss": 0,
        "max_rss_hard": 0,
        "max_worker_lifetime": 0.0,
        "warmup": (),
        "collect_between_requests": True,
        "bind": (Bind("tcp", "127.0.0.1", 8000),),
        "backlog": 2048,
        "timeout": 30.0,
        "queue_timeout": 0.0,
        "slow_request": 0.0,
        "timeout_grace": 5.0,
        "graceful_timeout": 8.0,
        "boot_timeout": 60.0,
        "keep_alive": 75.0,
        "header_timeout": 10.0,
        "body_timeout": 30.0,
        "send_timeout": 30.0,
        "max_requests": 0,
        "max_requests_jitter": 0,
        "limit_request_line": 8190,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        "limit_request_body": 1024**3,
        "spool_dir": None,
        "spool_limit": 4 * 1024**3,
        "send_buffer": 64 * 1024**2,
        "forwarded_allow_ips": (),
        "health_path": None,
        "status_bind": None,
        "control_socket": None,
        "server_timing": False,
        "access_log": None,
        "access_log_format": "combined",
        "pid_file": None,
        "umask": None,
        "user": None,
        "group": None,
        "proc_name": None,
        "reload": False,
    }


def test_while_debugging_some_defaults_are_others_and_say_so() -> None:
    config = resolve_everything({}, {}, None, debug=True)
    others = {name: getattr(config, name) for name, source in config.sources.items() if source == DEBUG_DEFAULT}
    assert others == {"workers": 4, "graceful_timeout": 1.0, "access_log": "-"}
    for option in OPTIONS:
        if option.debug is not None:
            assert option.read(option.debug, "test") == option.debug
            assert option.why_debug.startswith("With DEBUG")
    config = resolve_everything({"access_log": "off"}, {"WEB_CONCURRENCY": "2"}, {"GRACEFUL_TIMEOUT": 8}, debug=True)
    assert (config.workers, config.graceful_timeout, config.access_log) == (2, 8.0, None)


@pytest.mark.parametrize(("count", "workers"), [(1, 3), (2, 5), (400, 512)])
def test_workers_are_two_for_each_cpu_and_one_more_within_bounds(
    monkeypatch: pytest.MonkeyPatch, count: int, workers: int
) -> None:
    monkeypatch.setattr(config_module, "cpus", lambda: count)
    assert Config.of().workers == workers


# Who decides.


@pytest.mark.parametrize(
    ("flags", "environ", "settings", "workers", "source"),
    [
        (["--workers", "4"], {"PREFORK_WORKERS": "5"}, {"WORKERS": 6}, 4, "flag --workers"),
        ([], {"PREFORK_WORKERS": "5", "WEB_CONCURRENCY": "7"}, {"WORKERS": 6}, 5, "environment PREFORK_WORKERS"),
        ([], {"PREFORK_WORKERS": "", "WEB_CONCURRENCY": "07"}, {"WORKERS": 6}, 7, "environment WEB_CONCURRENCY"),
        ([], {"PREFORK_WORKERS": " ", "WEB_CONCURRENCY": ""}, {"WORKERS": 6}, 6, 'settings PREFORK["WORKERS"]'),
        ([], {}, {"WORKERS": None}, 11, "default"),
        ([], {}, {}, 11, "default"),
        ([], {}, None, 11, "default"),
    ],
)
def test_the_strongest_source_wins_and_is_named(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], environ: Any, settings: Any, workers: int, source: str
) -> None:
    monkeypatch.setattr(config_module, "cpus", lambda: 5)
    config = resolve(parse(*flags), environ, settings)
    assert (config.workers, config.sources["workers"]) == (workers, source)
    assert config.sources["timeout"] == "default"


def test_every_option_can_be_set_by_flag_environment_and_settings() -> None:
    examples = {
        "workers": ("3", 3),
        "bind": ("unix:/run/a.sock", (Bind("unix", path="/run/a.sock"),)),
        "spool_dir": ("/", "/"),
        "forwarded_allow_ips": ("10.0.0.1", ("10.0.0.1",)),
        "health_path": ("/up", "/up"),
        "status_bind": ("9000", Bind("tcp", host="127.0.0.1", port=9000)),
        "control_socket": ("/run/a.sock", "/run/a.sock"),
        "server_timing": ("on", True),
        "collect_between_requests": ("off", False),
        "warmup": ("/,shop.caches:fill", ("/", "shop.caches:fill")),
        "access_log": ("-", "-"),
        "access_log_format": ("json", "json"),
        "pid_file": ("a.pid", "a.pid"),
        "umask": ("027", 0o27),
        "user": ("12", 12),
        "group": ("13", 13),
        "proc_name": ("shop", "shop"),
        "reload": ("on", True),
    }
    for option in OPTIONS:
        written, value = examples.get(option.name, ("77", 77))
        for config in (
            resolve(parse(option.flag, *([] if option.kind is config_module.values.FLAG else [written]))),
            resolve(environ={option.environment: written}),
            resolve(settings={option.key: written}),
            Config.of(**{option.name: written}),
            Config.of(**{option.name: value}),
        ):
            assert getattr(config, option.name) == value
            assert config.sources[option.name] != "default"
            assert {name for name, source in config.sources.items() if source != "default"} == {option.name}


@pytest.mark.parametrize(
    ("words", "environ", "settings", "binds", "source"),
    [
        ([], {}, {}, "127.0.0.1:8000", "default"),
        ([], {"PORT": "5000"}, {}, "0.0.0.0:5000", "environment PORT"),
        ([], {"PORT": "5000"}, {"BIND": ["[::1]:80"]}, "[::1]:80", 'settings PREFORK["BIND"]'),
        ([], {"PORT": "5000", "PREFORK_BIND": ":1,unix:/a"}, {}, "0.0.0.0:1 unix:/a", "environment PREFORK_BIND"),
        (["8001"], {"PORT": "5000"}, {}, "127.0.0.1:8001", "argument addrport"),
        (["--bind", "fd:3", "--bind", ":2"], {"PORT": "x"}, {}, "fd:3 0.0.0.0:2", "flag --bind"),
        (["8001", "--bind", "fd:3"], {}, {}, "127.0.0.1:8001 fd:3", "argument addrport and flag --bind"),
        (["8001", "--bind", "fd:3"], {"PREFORK_BIND": ":1"}, {}, "127.0.0.1:8001 fd:3", None),
    ],
)
def test_addresses_come_from_the_strongest_source(
    words: list[str], environ: Any, settings: Any, binds: str, source: str | None
) -> None:
    config = resolve(parse(*words), environ, settings)
    assert " ".join(map(str, config.bind)) == binds
    assert source in (None, config.sources["bind"])


def test_forwarded_allow_ips_without_prefix_loses_against_our_own() -> None:
    both = {"FORWARDED_ALLOW_IPS": "10.0.0.1", "PREFORK_FORWARDED_ALLOW_IPS": "none"}
    assert resolve(environ=both).forwarded_allow_ips == ()
    alone = resolve(environ={"FORWARDED_ALLOW_IPS": "10.0.0.1, *"}, settings={"FORWARDED_ALLOW_IPS": "10.0.0.2"})
    assert alone.forwarded_allow_ips == ("10.0.0.1", "*")
    assert alone.sources["forwarded_allow_ips"] == "environment FORWARDED_ALLOW_IPS"


def test_call_command_may_pass_python_objects() -> None:
    class Command(BaseCommand):
        def add_arguments(self, parser: argparse.ArgumentParser) -> None:
            add_arguments(parser)

        def handle(self, *args: Any, **options: Any) -> str:
            config = resolve_everything(options, {}, None)
            return f"{config.workers} {config.keep_alive} {' '.join(map(str, config.bind))}"

    assert call_command(Command(), workers=3, keep_alive=0.5, bind=["127.0.0.1:0"]) == "3 0.5 127.0.0.1:0"
    assert call_command(Command(), "8001", "--workers=4", bind=("fd:5",)) == "4 75.0 127.0.0.1:8001 fd:5"
    assert call_command(Command(), bind="fd:5").endswith("fd:5")


def test_flags_say_nothing_unless_given() -> None:
    assert set(parse().values()) == {None}
    assert set(parse()) == {*BY_NAME, "addrport"}


def test_help_can_be_printed_and_tells_every_default_and_reason() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    shown = " ".join(parser.format_help().split())
    for option in OPTIONS:
        assert option.flag in shown
        # argparse breaks lines at hyphens, too.
        assert option.why.replace(" ", "") in shown.replace(" ", "")
        assert f"Default: {option.show_default()}." in shown


# What is refused.

NOBODY = "no-such-user-anywhere"


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("workers", "three", "a whole number from 1 to 512"),
        ("workers", "0", "a whole number from 1 to 512"),
        ("workers", 513, "a whole number from 1 to 512"),
        ("workers", -1, "a whole number from 1 to 512"),
        ("workers", "1_0", "a whole number"),
        ("workers", "٣", "a whole number"),
        ("workers", True, "a whole number"),
        ("workers", 2.0, "a whole number"),
        ("workers", "9" * 5000, "a whole number"),
        ("backlog", [1], "a whole number"),
        ("timeout", "-1", "from 0 s to 86400 s"),
        ("timeout", "2d", "from 0 s to 86400 s"),
        ("timeout", "5 minutes", "ms, s, m, h or d"),
        ("timeout", True, "ms, s, m, h or d"),
        ("timeout", math.nan, "ms, s, m, h or d"),
        ("timeout", math.inf, "ms, s, m, h or d"),
        ("timeout", 10**400, "from 0 s to 86400 s"),
        ("header_timeout", "0", "from 0.1 s to 3600 s"),
        ("limit_request_line", "1M", "from 64 bytes to 64 KiB"),
        ("limit_request_body", "1.5", "K, M, G or T"),
        ("limit_request_body", 1e6, "K, M, G or T"),
        ("limit_request_body", "-1", "K, M, G or T"),
        ("limit_request_body", "5 apples", "K, M, G or T"),
        ("spool_dir", "/no/such/folder", "there is no such folder"),
        ("spool_dir", "", "a folder"),
        ("bind", [], "HOST:PORT"),
        ("bind", "8000,localhost:8000,127.0.0.1:8000", "127.0.0.1:8000 is there twice"),
        ("bind", ["unix:/a", "unix:/a"], "unix:/a is there twice"),
        ("bind", "65536", "ports end at 65535"),
        ("bind", "localhost", "HOST:PORT"),
        ("bind", "::1:8000", "needs brackets"),
        ("bind", "[::1", "HOST:PORT"),
        ("bind", "[127.0.0.1]:80", "127.0.0.1"),
        ("bind", "127.0.0.256:80", "256"),
        ("bind", "http://localhost:80", "HOST:PORT"),
        ("bind", "unix:relative.sock", "must begin with /"),
        ("bind", "unix:/" + "x" * 107, "has at most"),
        ("bind", "fd:2", "standard streams"),
        ("bind", "fd:three", "fd:NUMBER"),
        ("bind", True, "HOST:PORT"),
        ("bind", {"8000"}, "HOST:PORT"),
        ("forwarded_allow_ips", "10.0.0.5/8", "its network is 10.0.0.0/8"),
        ("forwarded_allow_ips", "10.0.0.0/33", "10.0.0.0/33"),
        ("forwarded_allow_ips", ["proxy.example"], "proxy.example"),
        ("forwarded_allow_ips", 7, "addresses"),
        ("health_path", "up", "begins with /"),
        ("status_bind", "fd:5", "makes this socket itself"),
        ("status_bind", "x y", "HOST:PORT"),
        ("control_socket", "a.sock", "begins with /"),
        ("collect_between_requests", "perhaps", "on or off"),
        ("collect_between_requests", 2, "on or off"),
        ("warmup", "blog/", "'blog/' is neither"),
        ("warmup", "/a b", "'/a b' has what a request line cannot hold"),
        ("warmup", "/\u00fc", "must be percent-encoded"),
        ("warmup", "/a#b", "'/a#b' is neither"),
        ("warmup", ["/", "fill"], "'fill' is neither"),
        ("health_path", "/up?x=1", "no query"),
        ("health_path", "/a b", "begins with /"),
        ("access_log", "a\nb", "the path of a file"),
        ("access_log", True, "the path of a file"),
        ("access_log_format", "combind", "the nearest is combined"),
        ("access_log_format", "{methd} {path}", "no field {methd}, the nearest is {method}"),
        ("access_log_format", "{status:>3}", "nothing behind its name"),
        ("access_log_format", "{status!r}", "nothing behind its name"),
        ("access_log_format", "{status", "expected '}'"),
        ("access_log_format", "{}", "no field {}"),
        ("access_log_format", "{method}\n{path}", "with {fields}"),
        ("umask", "028", "octal"),
        ("umask", "1000", "octal"),
        ("umask", 0o1000, "octal"),
        ("umask", -1, "octal"),
        ("umask", False, "octal"),
        ("user", NOBODY, "knows no such user"),
        ("user", 2**32 - 1, "the name or number of a user"),
        ("group", NOBODY, "knows no such group"),
        ("proc_name", "a\x1b[31m", "without control characters"),
    ],
)
def test_a_bad_value_is_one_sentence_with_option_source_and_remedy(name: str, value: Any, complaint: str) -> None:
    option = BY_NAME[name]
    with pytest.raises(ConfigError) as error:
        resolve(settings={option.key: value})
    text = str(error.value)
    assert text.startswith(f'settings PREFORK["{option.key}"] says ')
    assert f"but {name} takes {option.kind.takes}" in text
    assert complaint in text.partition(" says ")[2]
    assert "\n" not in text and text.endswith(".")


@pytest.mark.parametrize(
    ("options", "environ", "begins"),
    [
        (["--workers", "x"], {}, "flag --workers says 'x', but workers takes"),
        (["--workers", ""], {}, "flag --workers says '', but workers takes"),
        (["x"], {}, "argument addrport says 'x', but bind takes"),
        (["1", "--bind", "x"], {}, "argument addrport and flag --bind says '1, x', but bind takes"),
        ([], {"WEB_CONCURRENCY": "x"}, "environment WEB_CONCURRENCY says 'x', but workers takes"),
        ([], {"PORT": "x"}, "environment PORT says '0.0.0.0:x', but bind takes"),
        ([], {"PORT": "80,81"}, "environment PORT says '0.0.0.0:80,81', but bind takes"),
    ],
)
def test_an_error_says_where_the_value_came_from(options: list[str], environ: Any, begins: str) -> None:
    with pytest.raises(ConfigError, match="takes") as error:
        resolve(parse(*options), environ)
    assert str(error.value).startswith(begins)


@pytest.mark.parametrize(
    ("settings", "environ", "message"),
    [
        ({"WORKER": 1}, {}, 'settings PREFORK["WORKER"] is no option, the nearest is "WORKERS" (keys are upper case).'),
        ({"workers": 1}, {}, 'settings PREFORK["workers"] is no option, the nearest is "WORKERS"'),
        ({"keep-alive": None}, {}, 'settings PREFORK["keep-alive"] is no option, the nearest is "KEEP_ALIVE"'),
        ({7: 1}, {}, 'settings PREFORK["7"] is no option'),
        ([("WORKERS", 1)], {}, 'settings PREFORK is a list, but must be a dict such as {"WORKERS": 3}.'),
        (False, {}, "settings PREFORK is a bool"),
        ({}, {"PREFORK_WORKER": "1"}, "environment PREFORK_WORKER is no option, the nearest is PREFORK_WORKERS:"),
        ({}, {"PREFORK_timeout": "1"}, "environment PREFORK_timeout is no option"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(settings: Any, environ: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(environ=environ, settings=settings)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_other_environment_variables_are_nobodys_business() -> None:
    environ = {"PREFORK_INTERNAL_FD": "7", "PREFORK_NOTHING": " ", "MY_PREFORK_X": "1", "PREFORK": "1"}
    assert set(resolve(environ=environ).sources.values()) == {"default"}


def test_config_of_refuses_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match="worker is no option, the nearest is workers"):
        Config.of(worker=1)
    with pytest.raises(ConfigError, match=r"Config\.of\(workers=\.\.\.\) says 0, but workers takes"):
        Config.of(workers=0)


@given(
    st.sampled_from(OPTIONS),
    st.one_of(
        st.text(max_size=20),
        st.from_regex(r"[0-9.]{1,6} ?[A-Za-z:/\[\]{}]{0,4}[0-9]{0,3}", fullmatch=True),
        st.integers(),
        st.floats(),
        st.booleans(),
        st.binary(max_size=3),
        st.lists(st.one_of(st.text(max_size=8), st.integers()), max_size=3),
    ),
)
def test_anything_is_either_a_value_that_reads_as_itself_or_a_config_error(option: Option, value: Any) -> None:
    try:
        read = option.read(value, "test")
    except ConfigError as error:
        assert str(error).endswith(".")
        return
    assert option.show(read)
    assert option.read(read, "test") == read or read == ()


# What is shown.


def test_describe_shows_every_value_with_unit_and_source_in_columns() -> None:
    config = resolve(
        parse("--timeout", "0", "--umask", "0", "--user", "0"),
        {"PORT": "5000", "PREFORK_KEEP_ALIVE": "500ms"},
        {"SEND_BUFFER": "1.5M", "WORKERS": 3},
    )
    rows = [line.split("  ") for line in describe(config).splitlines()]
    table = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert list(table) == list(BY_NAME)
    for name, cells in {
        "workers": ["3", 'settings PREFORK["WORKERS"]'],
        "bind": ["0.0.0.0:5000", "environment PORT"],
        "timeout": ["0 (off)", "flag --timeout"],
        "keep_alive": ["0.5 s", "environment PREFORK_KEEP_ALIVE"],
        "send_buffer": ["1536 KiB", 'settings PREFORK["SEND_BUFFER"]'],
        "limit_request_line": ["8190 bytes", "default"],
        "limit_request_body": ["1 GiB", "default"],
        "forwarded_allow_ips": ["nobody", "default"],
        "umask": ["0000", "flag --umask"],
        "user": [f"{pwd.getpwuid(0).pw_name} (0)", "flag --user"],
        "spool_dir": ["the system's temporary folder", "default"],
    }.items():
        assert table[name] == cells
    starts = {
        line.index(config.sources[name]) for name, line in zip(BY_NAME, describe(config).splitlines(), strict=True)
    }
    assert len(starts) == 1


def test_the_markdown_table_has_a_row_of_five_cells_for_each_option() -> None:
    lines = options_table().splitlines()
    assert len(lines) == len(OPTIONS) + 2
    for option, line in zip(OPTIONS, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert cells[:2] == [f"`{option.key}`", f"`{option.flag}`"]
        assert cells[2].startswith(f"`{option.environment}`") and option.also in cells[2]
        assert cells[3] == option.show_default()
        assert option.help in cells[4] and option.why in cells[4]
        assert len(cells) == 5
