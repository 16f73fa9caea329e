"""What a gunicorn configuration file amounts to here: `runprefork --from-gunicorn FILE --print-config`.

One table for the command and for docs/from-gunicorn.md. gunicorn itself need not be installed.
"""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from django_prefork.access_format import FORMATS
from django_prefork.config import OPTIONS, ConfigError


class Row(NamedTuple):
    """Settings of gunicorn, and what they are here.

    `names`: a name that ends with * stands for all that begin so. `option`: ours, or "". `read` turns a value of theirs
    into one of ours, and may raise ValueError with a reason. `note` is for the docs, and printed where there is no
    option, or with `differs`.
    """

    names: str
    option: str
    note: str
    read: Callable[[Any], Any] = lambda value: value
    differs: bool = False

    def has(self, name: str) -> bool:
        return any(re.fullmatch(each.replace("*", ".*"), name) for each in self.names.split())


def _binds(value: Any) -> list[str]:
    binds = []
    for text in value.split(",") if isinstance(value, str) else value:
        text = text.strip()
        if text.startswith("fd://"):
            text = "fd:" + text[5:]
        elif text.startswith("unix:"):
            text = "unix:" + re.sub("^//", "", text[5:])
        elif not re.search(r":\d+$", text):
            text += ":8000"
        binds.append(text)
    return binds


def _limit(value: Any) -> Any:
    if value == 0:
        raise ValueError("nothing is unlimited here")
    return value


def _octal(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:03o}"


def _trusted(value: Any) -> list[str]:
    return [text.strip() for text in (value.split(",") if isinstance(value, str) else value) if text.strip()]


# What stands for an atom of theirs in a format of ours.
_ATOMS = {
    "h": "{peer}",
    "l": "-",
    "u": "-",
    "t": "[{time}]",
    "r": "{method} {target} {protocol}",
    "m": "{method}",
    "U": "{path}",
    "q": "{query}",
    "H": "{protocol}",
    "s": "{status}",
    "b": "{length}",
    "B": "{length}",
    "f": "{referer}",
    "a": "{user_agent}",
    "L": "{duration}",
    "M": "{duration_ms}",
    "p": "{pid}",
    "{referer}i": "{referer}",
    "{user-agent}i": "{user_agent}",
    "{host}i": "{host}",
    "{x-request-id}i": "{request_id}",
}


def _format(value: str) -> str:
    unknown: list[str] = []

    def atom(found: re.Match[str]) -> str:
        name = found[1].lower() if found[1].startswith("{") else found[1]
        if name not in _ATOMS:
            unknown.append(f"%({found[1]})s")
        return _ATOMS.get(name, "-")

    parts = re.split(r"(%\([^)]*\)s)", value)
    text = "".join(
        re.sub(r"%\(([^)]*)\)s", atom, part)
        if part.startswith("%(")
        else part.replace("%%", "%").replace("{", "{{").replace("}", "}}")
        for part in parts
    )
    if unknown:
        raise ValueError(f"there is nothing for {', '.join(unknown)}; fields are in docs/logging.md")
    return next((name for name, known in FORMATS.items() if known == text), text)


# A table is read row by row.
# fmt: off
ROWS: tuple[Row, ...] = (
    Row("bind", "bind", "`fd://3` is written `fd:3`; without a port it is 8000 in both.", _binds),
    Row("backlog", "backlog", ""),
    Row("workers", "workers",
        "Without it: one there, two for each CPU and one more here. `WEB_CONCURRENCY` counts in both."),
    Row("threads", "",
        "A worker runs one request at a time: for as many at once, as many workers. They share the memory of what is"
        " loaded, so that they cost less than there."),
    Row("worker_class", "",
        "There is one kind of worker. Idle and slow connections hold none, which is what `gthread` and `gevent` are"
        " mostly taken for; requests that wait for something else do: take more workers. ASGI: stay there."),
    Row("worker_connections", "", "Connections that wait hold no worker, and are bounded by the limit of descriptors."),
    Row("max_requests", "max_requests", "The successor is ready before the worker leaves, and connections move to it."),
    Row("max_requests_jitter", "max_requests_jitter", ""),
    Row("timeout", "timeout",
        "There a sign of life of the worker, here a limit for each request, with an exception in the view first: with"
        " `gthread`, requests had none. A view may have a limit of its own.", differs=True),
    Row("graceful_timeout", "graceful_timeout",
        "At the server's stop only; a reload gives each request its full `timeout`.", differs=True),
    Row("keepalive", "keep_alive",
        "2 s there unless said otherwise, and none at all with `sync`; 75 s here. It must be longer than the proxy"
        " keeps its connections.", differs=True),
    Row("limit_request_line", "limit_request_line", "4094 there unless said otherwise, 8190 here.", _limit),
    Row("limit_request_fields", "limit_request_fields", "", _limit),
    Row("limit_request_field_size", "limit_request_field_size", "", _limit),
    Row("forwarded_allow_ips", "forwarded_allow_ips", "There this machine is trusted unasked, here nobody. Trust sets"
        " `REMOTE_ADDR` as well as the scheme.", _trusted, differs=True),
    Row("accesslog", "access_log", ""),
    Row("access_log_format", "access_log_format", "Fields have names: `{method} {path} {status}`.", _format),
    Row("pidfile", "pid_file", "The PID in it stays the same through every reload and upgrade."),
    Row("umask", "umask", "Nothing is changed unless it is set; there it is 0.", _octal),
    Row("user", "user", ""),
    Row("group", "group", ""),
    Row("initgroups", "", "Always so, where a user is given."),
    Row("proc_name default_proc_name", "proc_name", ""),
    Row("tmp_upload_dir", "spool_dir", "It is used: bodies and answers that outgrow memory go there."),
    Row("wsgi_app", "", "It serves `settings.WSGI_APPLICATION`."),
    Row("preload_app", "", "Always so; a reload loads new code nevertheless."),
    Row("reload reload_engine reload_extra_files", "", "For development: `runprefork --reload`, not a setting."),
    Row("check_config print_config spew", "",
        "`--check` loads everything and ends; `--print-config` shows who decided what."),
    Row("chdir pythonpath", "",
        "Start `manage.py` in that folder (`WorkingDirectory=`); `PYTHONPATH` is the environment's."),
    Row("daemon", "", "Stays in the foreground: systemd or the container keeps it."),
    Row("raw_env", "", "Set it where the server is started (`Environment=`, `ENV`)."),
    Row("worker_tmp_dir", "", "Not needed: signs of life are in shared memory, on no disk."),
    Row("sendfile", "", "Always so for `FileResponse`."),
    Row("reuse_port", "", "Not needed: all workers share the socket, and a reload keeps it."),
    Row("secure_scheme_headers", "", "`X-Forwarded-Proto` and `Forwarded` are understood, of trusted proxies."),
    Row("forwarder_headers header_map", "", "Header names with an underscore never reach the application."),
    Row("root_path", "", "Django's `FORCE_SCRIPT_NAME`."),
    Row("errorlog loglevel capture_output logger_class logconfig* syslog* disable_redirect_access_to_syslog"
        " enable_stdio_inheritance", "", "It logs to stderr, or where `LOGGING` says, loggers `django_prefork` and"
        " `django_prefork.access`."),
    Row("statsd_* dogstatsd_tags enable_backlog_metric", "",
        "It sends nothing: `STATUS_BIND` has `/metrics`, for Prometheus to ask."),
    Row("on_starting on_reload pre_fork pre_exec nworkers_changed worker_int ssl_context", "", "No hook for this."),
    Row("when_ready", "", "The Django signal `django_prefork.signals.server_ready`."),
    Row("post_fork", "", "The Django signal `django_prefork.signals.post_fork`."),
    Row("post_worker_init", "", "The Django signal `django_prefork.signals.worker_ready`."),
    Row("worker_abort", "", "Not needed: the exception, and then the log, say what was late and where it stood."),
    Row("worker_exit", "", "The Django signal `django_prefork.signals.worker_exiting`."),
    Row("child_exit", "", "The Django signal `django_prefork.signals.worker_died`."),
    Row("on_exit", "", "The Django signal `django_prefork.signals.server_stopping`."),
    Row("pre_request post_request", "", "Django's signals `request_started` and `request_finished`, or a middleware."),
    Row("keyfile certfile ssl_version cert_reqs ca_certs suppress_ragged_eofs do_handshake_on_connect ciphers",
        "", "TLS is the proxy's work."),
    Row("http_protocols http2_* protocol uwsgi_allow_ips proxy_protocol proxy_allow_ips", "",
        "HTTP/1.1 and nothing else: the proxy has to speak that."),
    Row("permit_* strip_header_spaces casefold_http_method http_parser", "", "No option loosens HTTP."),
    Row("asgi_* websocket_max_message_size", "", "No ASGI, no WebSockets."),
    Row("dirty_* on_dirty_starting", "", "Long jobs belong into a task queue."),
    Row("control_socket*", "", "Signals do it."),
    Row("paste raw_paste_global_conf config", "", "Not for Django."),
)
# fmt: on

# (theirs, what it is there unless said otherwise, ours): where both keep silent, and do not do the same.
_DEFAULTS = (
    ("workers", "1", "workers"),
    ("keepalive", "2 s", "keep_alive"),
    ("graceful_timeout", "30 s", "graceful_timeout"),
    ("forwarded_allow_ips", "127.0.0.1,::1", "forwarded_allow_ips"),
    ("limit_request_line", "4094", "limit_request_line"),
)


def read(path: str) -> dict[str, Any]:
    """The settings in the file; it is executed, as gunicorn does it. Raises ConfigError."""
    try:
        namespace = runpy.run_path(path, run_name="__config__")
    except (Exception, SystemExit) as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ConfigError(f"{path} cannot be read ({why}); name a gunicorn configuration file, in Python.") from None
    return {name: value for name, value in namespace.items() if any(row.has(name) for row in ROWS)}


def translate(theirs: Mapping[str, Any], source: str) -> str:
    """The PREFORK setting as Python, and comments on what is different or missing."""
    result, different, missing = convert(theirs)
    lines = [f"# In your settings, from {source}:"]
    if result:
        lines += [
            "PREFORK = {",
            *(f"    {json.dumps(key)}: {json.dumps(value)}," for key, value in result.items()),
            "}",
        ]
    else:
        lines.append("PREFORK = {}")
    silent = [
        f"{name}: {there} there, {option.key} {option.show_default()} here"
        for name, there, ours in _DEFAULTS
        for option in OPTIONS
        if option.name == ours and option.key not in result and name not in theirs
    ]
    for title, remarks in (
        ("Not quite the same here:", different),
        ("Without a counterpart, or not needed:", missing),
        ("What the file does not say, and what then is not the same:", silent),
    ):
        if remarks:
            lines += ["", f"# {title}", *(f"#   {remark}" for remark in remarks)]
    return "\n".join(lines)


def convert(theirs: Mapping[str, Any]) -> tuple[dict[str, Any], list[str], list[str]]:
    """PREFORK, remarks on what is different, and on what has no counterpart."""
    result: dict[str, Any] = {}
    different: list[str] = []
    missing: list[str] = []
    options = {option.name: option for option in OPTIONS}
    for name, row in _rows_of(theirs):
        value = theirs[name]
        if value is None:
            continue
        if not row.option:
            said = "" if callable(value) else f" = {value!r}"
            missing.append(f"{name}{said}: {row.note.replace('`', '')}")
            continue
        option = options[row.option]
        try:
            ours = row.read(value)
            option.read(ours, f"{name} = {value!r}")
        except ConfigError as error:
            missing.append(str(error))
        except (ValueError, TypeError, AttributeError) as error:
            missing.append(f"{name} = {value!r}: {error}")
        else:
            result[option.key] = ours
            if row.differs:
                different.append(f"{name}: {row.note.replace('`', '')}")
    threads = theirs.get("threads", 1)
    if isinstance(threads, int) and threads > 1:
        workers = result.get("WORKERS", 1)
        result["WORKERS"] = workers * threads
        different.append(f"WORKERS is workers x threads, {workers} x {threads}: one request at a time in each")
    return result, different, missing


def _rows_of(theirs: Mapping[str, Any]) -> Iterator[tuple[str, Row]]:
    for row in ROWS:
        for name in theirs:
            if row.has(name):
                yield name, row


def table() -> str:
    """ROWS as a Markdown table, for the docs."""
    keys = {option.name: option.key for option in OPTIONS}
    lines = ["| gunicorn | here | |", "|---|---|---|"]
    for row in ROWS:
        names = ", ".join(f"`{name}`" for name in row.names.split())
        lines.append(f"| {names} | {f'`{keys[row.option]}`' if row.option else '-'} | {row.note} |")
    return "\n".join(lines) + "\n"
