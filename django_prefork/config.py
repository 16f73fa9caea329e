"""Every option once: name, default, type, unit, environment variable, flag, settings key, help, bounds.

From the table `OPTIONS` derive the command's flags, the environment's names, the keys of `settings.PREFORK`,
`--print-config`, the table in the docs, and what is refused. Strongest first: flag, environment, settings, default.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django_prefork import values
from django_prefork.cpus import cpus
from django_prefork.values import Bind, Kind, nearest

__all__ = [
    "DEBUG_DEFAULT",
    "INTERNAL_PREFIX",
    "OPTIONS",
    "Bind",
    "Config",
    "ConfigError",
    "Option",
    "add_arguments",
    "describe",
    "in_use",
    "options_table",
    "resolve",
    "use",
]

# Environment variables that begin like this are the processes' own, by which they pass things on to each other.
INTERNAL_PREFIX = "PREFORK_INTERNAL_"

# Who decided, where the default is another one because settings.DEBUG is on.
DEBUG_DEFAULT = "default with DEBUG"


class ConfigError(ValueError):
    """A mistake in the configuration: one sentence that says where it stands, what is wrong and what would be right."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `low` and `high` bound numbers, both inclusive and in the kind's unit. `also` is an environment variable known from
    other servers; it is weaker than the option's own. `none` and `zero` say what None (or no items) and 0 mean.
    `debug` is the default where settings.DEBUG is on, if it is another one there, and `why_debug` says why.
    """

    name: str
    section: str
    kind: Kind
    default: Any  # a value, or a function that computes it
    low: float = 0
    high: float | None = None
    also: str = ""
    none: str = ""
    zero: str = ""
    default_text: str = ""
    help: str = ""
    why: str = ""
    debug: Any = None
    why_debug: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def key(self) -> str:
        return self.name.upper()

    @property
    def environment(self) -> str:
        return "PREFORK_" + self.key

    @property
    def bounds(self) -> str:
        """As "0 s to 60 s"; empty for what is no number."""
        return "" if self.high is None else f"{self.kind.show(self.low)} to {self.kind.show(self.high)}"

    @property
    def meaning(self) -> str:
        """The help, with what 0 means."""
        return f"{self.help} 0: {self.zero}." if self.zero else self.help

    def read(self, value: object, source: str) -> Any:
        """The option's value for what `source` says. Raises ConfigError."""
        problem = ""
        try:
            result = self.kind.read(value)
        except ValueError as error:
            problem = f": {error}" if error.args else ""
        else:
            if self.high is None or self.low <= result <= self.high:
                return result
        said = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        takes = f"{self.kind.takes} from {self.bounds}" if self.bounds else self.kind.takes
        raise ConfigError(f"{source} says {said!r}, but {self.name} takes {takes}{problem}.")

    def show(self, value: Any) -> str:
        """The value for people, with its unit."""
        if value is None or value == ():
            return self.none
        if value == 0 and self.zero:
            return f"0 ({self.zero})"
        return self.kind.show(value)

    def compute_default(self, debug: bool = False) -> Any:
        if debug and self.debug is not None:
            return self.debug
        return self.default() if callable(self.default) else self.default

    def show_default(self) -> str:
        """The default for people; the same on every machine."""
        text = self.default_text or self.show(self.default)
        return text if self.debug is None else f"{text}; with DEBUG {self.show(self.debug)}"

    @property
    def reason(self) -> str:
        """Why the defaults are what they are."""
        return f"{self.why} {self.why_debug}".rstrip()


def default_workers() -> int:
    """2 x CPUs + 1, at most 512."""
    return min(2 * cpus() + 1, 512)


MINUTE, HOUR, DAY = 60, 3600, 86400
KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40
LOCAL = (Bind("tcp", host="127.0.0.1", port=8000),)

# A table is read row by row.
# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("workers", "Processes", values.INTEGER, default_workers, 1, 512, also="WEB_CONCURRENCY",
        default_text="2 x CPUs + 1",
        help="Number of worker processes; each runs one request at a time.",
        why="Two for each CPU that the server may use, since one often waits for the database, and a spare one.",
        debug=4, why_debug="With DEBUG: one for the page, one for what it fetches, and two that a stream may hold."),
    Option("bind", "Sockets", values.BINDS, LOCAL, also="PORT",
        help="Address to listen at: HOST:PORT, unix:/path or fd:NUMBER; more than one may be given.",
        why="Only this machine reaches it unasked; with PORT set, as platforms do, the default is 0.0.0.0:$PORT."),
    Option("backlog", "Sockets", values.INTEGER, 2048, 1, 65535,
        help="Number of connections that wait in the kernel, for each address, until a worker accepts them.",
        why="A burst waits instead of being refused; most kernels cap it at 4096 (net.core.somaxconn)."),
    Option("timeout", "Time", values.DURATION, 30.0, 0, DAY, zero="off",
        help="Seconds the application may take for a response, and for each piece of a streamed one.",
        why="Most proxies give up after 30 to 60 seconds, and then nobody is left to read the answer."),
    Option("queue_timeout", "Time", values.DURATION, 0.0, 0, HOUR, zero="off",
        help="Seconds a request may wait for a worker; one that waited longer is answered 503 with Retry-After.",
        why="Only you know when your clients have given up; an answer that nobody waits for keeps others waiting."),
    Option("slow_request", "Time", values.DURATION, 0.0, 0, DAY, zero="off",
        help="Seconds after which a request that runs is logged with its stack, and again at 2, 4, 8 times as many.",
        why="What is slow is known to your project alone; a second or two is a start."),
    Option("timeout_grace", "Time", values.DURATION, 5.0, 0, HOUR,
        help="Seconds from the exception that ends a late request to the kill of its worker.",
        why="Enough to roll back, report and answer with an error page, too little to go on as before."),
    Option("graceful_timeout", "Time", values.DURATION, 8.0, 0, DAY,
        help="Seconds that requests in flight may still take when the server is told to stop.",
        why="Docker kills 10 seconds after its TERM; the last two are for leaving in order.",
        debug=1.0, why_debug="With DEBUG nobody wants to wait behind a Ctrl-C for a stream that never ends."),
    Option("drain_delay", "Time", values.DURATION, 0.0, 0, HOUR, zero="off",
        help="Seconds that a server which is told to stop goes on accepting, not ready and closing after each answer.",
        why="Only a load balancer that must notice first needs it; it comes before graceful_timeout."),
    Option("handoff_after", "Time", values.DURATION, 0.005, 0, HOUR, zero="off",
        help="Seconds that a request runs before its worker's other connections are handed to siblings.",
        why="Longer than most requests, so that they cost nothing, and shorter than anyone notices. Linux only."),
    Option("boot_timeout", "Time", values.DURATION, 60.0, 0.1, HOUR,
        help="Seconds a worker may take from its fork until it is ready.",
        why="The application is loaded before the fork, so that a minute is far more than an honest start needs."),
    Option("keep_alive", "Time", values.DURATION, 75.0, 0, DAY, zero="no keep-alive",
        help="Seconds an idle connection is kept for the client's next request.",
        why="Longer than the 60 seconds of most load balancers: they must be who closes, or requests get lost."),
    Option("header_timeout", "Time", values.DURATION, 10.0, 0.1, HOUR,
        help="Seconds a client has for a complete request head.",
        why="A head is a few packets; whoever needs longer is broken, or holds connections on purpose."),
    Option("body_timeout", "Time", values.DURATION, 30.0, 0.1, HOUR,
        help="Seconds a client may pause within a request's body.",
        why="A phone between two cells is back by then, a client that vanished never is."),
    Option("send_timeout", "Time", values.DURATION, 30.0, 0.1, HOUR,
        help="Seconds a client may take nothing of its response.",
        why="The same patience with a reader as with a sender."),
    Option("max_requests", "Processes", values.INTEGER, 0, 0, 10**9, zero="off",
        help="Number of requests after which a worker is replaced.",
        why="A sound application needs no replacing; set it where one leaks memory."),
    Option("max_requests_jitter", "Processes", values.INTEGER, 0, 0, 10**9,
        help="Largest number of requests, drawn by lot for each worker, that is added to max_requests.",
        why="It means nothing without max_requests; with it, a tenth of that keeps workers from leaving all at once."),
    Option("max_worker_lifetime", "Processes", values.DURATION, 0.0, 0, 365 * DAY, zero="off",
        help="Seconds after which a worker is replaced.",
        why="A sound application needs no replacing; up to a tenth is taken off by lot, or all would leave at once."),
    Option("max_rss", "Processes", values.SIZE, 0, 0, TIB, zero="off",
        help="Bytes of memory of its own, without shared pages, from which on a worker is replaced between requests.",
        why="What is too much depends on your application and your machine. Linux only."),
    Option("max_rss_hard", "Processes", values.SIZE, 0, 0, TIB, zero="off",
        help="Bytes of memory of its own from which on a worker is killed, with its request named.",
        why="Set it where one request may eat the machine; twice max_rss is a start. Linux only."),
    Option("collect_between_requests", "Processes", values.SWITCH, True,
        help="Whether Python's garbage collector waits until a request has been answered and no other one waits.",
        why="A pause that nobody notices is better than one in the middle of a request, which is Python's own way."),
    Option("warmup", "Processes", values.WARMUPS, (), none="nothing",
        help="What is done before the first fork: paths that are requested, and functions that are called.",
        why="Which pages all workers should have ready is yours to say; code, URLs and templates are loaded anyway."),
    Option("limit_request_line", "Limits", values.SIZE, 8190, 64, 64 * KIB,
        help="Bytes a request line may have.",
        why="Apache's number, so that what the web has learned to live with lives here, too."),
    Option("limit_request_fields", "Limits", values.INTEGER, 100, 1, 10_000,
        help="Number of header fields a request may have.",
        why="Apache's number; a browser behind two proxies sends about thirty."),
    Option("limit_request_field_size", "Limits", values.SIZE, 8190, 64, 64 * KIB,
        help="Bytes one header field may have.",
        why="Apache's number: room for two of the largest cookies that browsers keep."),
    Option("limit_request_body", "Limits", values.SIZE, GIB, 0, 1024 * TIB, zero="unlimited",
        help="Bytes a request's body may have.",
        why="No honest form reaches it, and one client cannot fill the disk; Django's own limits apply after it."),
    Option("spool_dir", "Limits", values.FOLDER, None, none="the system's temporary folder",
        help="Folder for bodies and responses that outgrow memory; the files have no name and leave nothing behind.",
        why="It is there everywhere; choose a disk where /tmp is memory."),
    Option("spool_limit", "Limits", values.SIZE, 4 * GIB, 0, 1024 * TIB,
        help="Bytes that all workers together may keep in spool_dir.",
        why="Four of the largest bodies at once, which most disks have free."),
    Option("send_buffer", "Limits", values.SIZE, 64 * MIB, 0, TIB,
        help="Bytes of a response that may wait for a slow client before its worker waits, too.",
        why="Nearly every response fits, so that a slow reader costs a connection and no worker."),
    Option("forwarded_allow_ips", "Proxy", values.NETWORKS, (), also="FORWARDED_ALLOW_IPS", none="nobody",
        help="Proxies whose X-Forwarded headers are believed: addresses, networks, comma separated, or * for everyone.",
        why="Anyone can send these headers, so nobody is believed unasked."),
    Option("health_path", "Proxy", values.URL_PATH, None, none="off",
        help="Path that the server answers itself, before Django, ALLOWED_HOSTS and redirects.",
        why="No path is taken from your project unasked."),
    Option("status_bind", "Inside", values.ADDRESS, None, none="off",
        help="Address where the Arbiter tells what the server is doing: /live, /ready, /status.json and /metrics.",
        why="It tells of clients and paths, and asks nobody who they are; a unix socket is this user's alone."),
    Option("control_socket", "Inside", values.SOCKET, None, none="off",
        help="Path of the unix socket by which manage.py preforkctl looks inside and steers; this user's alone.",
        why="Signals do without it; nothing that could stop the server is there unasked."),
    Option("server_timing", "Inside", values.SWITCH, False,
        help="Whether answers tell the browser, in Server-Timing, how long they waited for a worker and took there.",
        why="How long a page takes may tell a stranger what it has found."),
    Option("access_log", "Logging", values.LOG, None, none="off",
        help="Where each answer is logged: a file, or - for standard output.",
        why="The proxy in front mostly keeps one already, and a line for each request is not free.",
        debug="-", why_debug="With DEBUG you want to see what your browser asks."),
    Option("access_log_format", "Logging", values.LOG_FORMAT, "combined",
        help="What a line of the access log looks like: combined, common, json, console, or a text with {fields}.",
        why="Every tool that reads logs reads this one; what DEBUG shows unasked is for people, and console."),
    Option("pid_file", "Processes", values.PATH, None, none="none",
        help="File that holds the server's process id while it runs.",
        why="Containers and systemd know it without one."),
    Option("umask", "Processes", values.UMASK, None, none="unchanged",
        help="Permissions that files made by the server and the project do not get, as an octal number.",
        why="Whoever starts the server has chosen one."),
    Option("user", "Processes", values.USER, None, none="unchanged",
        help="User to become once everything is bound.",
        why="It matters only where the server is started as root, for a port below 1024."),
    Option("group", "Processes", values.GROUP, None, none="unchanged",
        help="Group to become once everything is bound.",
        why="As for the user; with only a user given, that user's own group is meant."),
    Option("proc_name", "Processes", values.TEXT, None, none="django-prefork",
        help="Name of the processes in ps and top, where the package setproctitle is installed.",
        why="It says what runs; name the project where several run on one machine."),
    Option("reload", "Development", values.FLAG, False,
        help="Watch the project's files, and serve new code and templates as soon as they are saved.",
        why="For development: a server that reloads because a file was touched does it at the worst moment."),
)
# fmt: on

_OPTION = {option.name: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Config:
    """What holds: one attribute for each option. Durations are seconds, sizes are bytes.

    None, an empty tuple, and 0 where the option's help says so, mean that a thing is off or left as it is. `user` and
    `group` are numeric ids. `sources` says for each option who decided, as "flag --workers" or "default".
    """

    workers: int
    bind: tuple[Bind, ...]
    backlog: int
    timeout: float
    queue_timeout: float
    slow_request: float
    timeout_grace: float
    graceful_timeout: float
    drain_delay: float
    handoff_after: float
    boot_timeout: float
    keep_alive: float
    header_timeout: float
    body_timeout: float
    send_timeout: float
    max_requests: int
    max_requests_jitter: int
    max_worker_lifetime: float
    max_rss: int
    max_rss_hard: int
    collect_between_requests: bool
    warmup: tuple[str, ...]
    limit_request_line: int
    limit_request_fields: int
    limit_request_field_size: int
    limit_request_body: int
    spool_dir: str | None
    spool_limit: int
    send_buffer: int
    forwarded_allow_ips: tuple[str, ...]
    health_path: str | None
    status_bind: Bind | None
    control_socket: str | None
    server_timing: bool
    access_log: str | None
    access_log_format: str
    pid_file: str | None
    umask: int | None
    user: int | None
    group: int | None
    proc_name: str | None
    reload: bool
    sources: Mapping[str, str] = field(compare=False)

    @classmethod
    def of(cls, **overrides: Any) -> Config:
        """The defaults but for `overrides`, which may be written like settings; no environment. Raises ConfigError."""
        for name in overrides.keys() - _OPTION.keys():
            raise ConfigError(f"{name} is no option, the nearest is {nearest(name, _OPTION)}.")
        return cls._made_of(
            {name: (f"Config.of({name}=...)", value) for name, value in overrides.items() if value is not None}
        )

    @classmethod
    def _made_of(cls, said: Mapping[str, tuple[str, Any]], debug: bool = False) -> Config:
        """From what was said about options: name -> (source, value as it was written)."""
        result: dict[str, Any] = {}
        sources: dict[str, str] = {}
        for option in OPTIONS:
            default = DEBUG_DEFAULT if debug and option.debug is not None else "default"
            source, value = said.get(option.name, (default, None))
            result[option.name] = option.compute_default(debug) if value is None else option.read(value, source)
            sources[option.name] = source
        return cls(**result, sources=sources)


#: Of the server that runs in this process; None in every other process.
in_use: Config | None = None


def use(config: Config) -> None:
    """This process is a server with this configuration: what looks at `in_use` sees its flags, too."""
    global in_use
    in_use = config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the positional `addrport` and a flag for each option.

    All are text, None where not given: `resolve` judges them, so that an error reads the same wherever it comes from.
    """
    parser.add_argument(
        "addrport", nargs="?", help="PORT, HOST:PORT or any other address that --bind takes; added to those."
    )
    for section in dict.fromkeys(option.section for option in OPTIONS):
        arguments = parser.add_argument_group(section)
        for option in OPTIONS:
            if option.section == section:
                text = f"{option.meaning} Default: {option.show_default()}. {option.reason}".replace("%", "%%")
                if option.kind is values.FLAG:
                    arguments.add_argument(option.flag, dest=option.name, action="store_const", const=True, help=text)
                    continue
                arguments.add_argument(
                    option.flag,
                    dest=option.name,
                    action="append" if option.name == "bind" else "store",
                    metavar=option.kind.metavar,
                    help=text,
                )


def resolve(
    options: Mapping[str, Any], environ: Mapping[str, str], settings: Mapping[str, Any] | None, *, debug: bool = False
) -> Config:
    """What flags, environment and `settings.PREFORK` (None: not set) make together. Raises ConfigError.

    `options` are the command's, and may hold other names, too; what comes from `call_command` may be Python objects
    instead of text. None, and an empty environment variable, count as not said.
    """
    settings = _check_settings(settings)
    _check_environment(environ)
    said = {}
    for option in OPTIONS:
        for strongest in _said(option, options, environ, settings):
            said[option.name] = strongest
            break
    return Config._made_of(said, debug)


def _said(
    option: Option, options: Mapping[str, Any], environ: Mapping[str, str], settings: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Who says what about an option, strongest first."""
    is_bind = option.name == "bind"
    flag = options.get(option.name)
    if is_bind and options.get("addrport") is not None:
        binds = [] if flag is None else flag if isinstance(flag, (list, tuple)) else [flag]
        yield "argument addrport" + (" and flag --bind" if binds else ""), [options["addrport"], *binds]
    elif flag is not None:
        yield f"flag {option.flag}", flag
    for name in (option.environment, "" if is_bind else option.also):
        if environ.get(name, "").strip():
            yield f"environment {name}", environ[name]
    if settings.get(option.key) is not None:
        yield f'settings PREFORK["{option.key}"]', settings[option.key]
    if is_bind and (count := _activated(environ)):
        yield "environment LISTEN_FDS", [f"fd:{3 + number}" for number in range(count)]
    # PORT says where a platform will send requests, it is nobody's wish: it counts only where nobody said more.
    if is_bind and environ.get(option.also, "").strip():
        yield f"environment {option.also}", [f"0.0.0.0:{environ[option.also].strip()}"]


def _activated(environ: Mapping[str, str]) -> int:
    """How many sockets systemd passed to this process (sd_listen_fds(3)); to its parent, for a later generation."""
    count = environ.get("LISTEN_FDS", "")
    if environ.get("LISTEN_PID") in (str(os.getpid()), str(os.getppid())) and count.isascii() and count.isdigit():
        return int(count)
    return 0


def _check_settings(settings: object) -> Mapping[str, Any]:
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise ConfigError(
            f'settings PREFORK is a {type(settings).__name__}, but must be a dict such as {{"WORKERS": 3}}.'
        )
    known = [option.key for option in OPTIONS]
    for key in settings:
        if key not in known:
            close = nearest(str(key).upper(), known)
            raise ConfigError(
                f'settings PREFORK["{key}"] is no option, the nearest is "{close}" (keys are upper case).'
            )
    return settings


def _check_environment(environ: Mapping[str, str]) -> None:
    known = [option.environment for option in OPTIONS]
    for name in environ:
        ours = name.startswith("PREFORK_") and not name.startswith(INTERNAL_PREFIX)
        if ours and name not in known and environ[name].strip():
            raise ConfigError(
                f"environment {name} is no option, the nearest is {nearest(name, known)}: rename or unset it."
            )


def describe(config: Config) -> str:
    """Every option, its value with unit, and who decided, in columns: what `--print-config` shows."""
    rows = [(o.name, o.show(getattr(config, o.name)), config.sources[o.name]) for o in OPTIONS]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "\n".join(f"{name:{first}}  {value:{second}}  {source}" for name, value, source in rows)


def options_table() -> str:
    """The options as a Markdown table, for the docs."""
    lines = ["| option | flag | environment | default | meaning |", "|---|---|---|---|---|"]
    for option in OPTIONS:
        names = ", ".join(f"`{name}`" for name in (option.environment, option.also) if name)
        bounds = f" Range: {option.bounds}." if option.bounds else ""
        meaning = f"{option.meaning} {option.reason}{bounds}".replace("|", r"\|")
        lines.append(f"| `{option.key}` | `{option.flag}` | {names} | {option.show_default()} | {meaning} |")
    return "\n".join(lines) + "\n"
