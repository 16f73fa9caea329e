"""What a person may write for an option and what it means: text or a Python object in, one value out.

Each reader accepts what it returns, too, and raises ValueError, and nothing else, for whatever it does not take. The
error's text is empty unless it says more than "not of this kind".
"""

from __future__ import annotations

import difflib
import grp
import ipaddress
import math
import os
import pwd
import re
import string
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django_prefork.access_format import FIELDS, FORMATS


@dataclass(frozen=True, slots=True)
class Bind:
    """An address to listen at; `str()` gives the text that parses to it again.

    `kind` is "tcp" (`host`, `port`; port 0 lets the kernel choose), "unix" (`path`, absolute) or "fd" (`fd`, a
    listening socket that was inherited).
    """

    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.path}"
        if self.kind == "fd":
            return f"fd:{self.fd}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> Bind:
        """Read `HOST:PORT`, `PORT` (this machine only), `:PORT` (all IPv4 addresses), `unix:/PATH` or `fd:NUMBER`.

        Raises ValueError.
        """
        if text.startswith("unix:"):
            return cls("unix", path=_socket_path(text[5:]))
        if text.startswith("fd:"):
            fd = whole(text[3:])
            if fd < 3:
                raise ValueError("0, 1 and 2 are the standard streams")
            return cls("fd", fd=fd)
        host, colon, port = text.rpartition(":")
        number = whole(port)
        if number > 65535:
            raise ValueError("ports end at 65535")
        return cls("tcp", host=_host(host) if host else ("0.0.0.0" if colon else "127.0.0.1"), port=number)


def _socket_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("the path of a unix socket must begin with /")
    # The kernel's sun_path, less the NUL at its end.
    longest = 107 if sys.platform == "linux" else 103
    if len(os.fsencode(path)) > longest:
        raise ValueError(f"the path of a unix socket has at most {longest} bytes")
    return path


def _host(host: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1]))
    if ":" in host:
        raise ValueError("an IPv6 address needs brackets, like [::1]:8000")
    if host == "0":  # runserver's short form
        return "0.0.0.0"
    if re.fullmatch(r"[0-9.]+", host):
        return str(ipaddress.IPv4Address(host))
    if not re.fullmatch(r"(?!-)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", host):
        raise ValueError
    return host.lower()


def nearest(word: str, known: Iterable[str]) -> str:
    """The one of `known` that looks most like `word`: for "the nearest is ..." behind every unknown name."""
    return difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)[0]


# Readers.


def text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError
    return value.strip()


def whole(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    digits = text(value)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError
    return int(digits)


_SECONDS = {"": 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def duration(value: object) -> float:
    if isinstance(value, float):
        seconds = value
    elif not isinstance(value, str):
        seconds = float(min(whole(value), 1 << 60))  # no OverflowError
    else:
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(ms|[smhd]?)", text(value).lower())
        if not match:
            raise ValueError
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not math.isfinite(seconds):
        raise ValueError
    return seconds


def size(value: object) -> int:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?(?:([kmgt]?)(?:i?b)?|bytes)", text(value).lower())
        if not match or ("." in match[1] and not match[2]):
            raise ValueError
        return int(Decimal(match[1]) * _BYTES[match[2] or ""])
    return whole(value)


def path(value: object) -> str:
    return text(os.fspath(value)) if isinstance(value, os.PathLike) else text(value)


def folder(value: object) -> str:
    name = path(value)
    if not os.path.isdir(name):
        raise ValueError("there is no such folder")
    return name


def url_path(value: object) -> str:
    name = text(value)
    if not re.fullmatch(r"/[!\"$->@-~]*", name):  # printable ASCII, but for # and ?
        raise ValueError
    return name


def _items(value: object) -> list[object]:
    """The items of a list, or of a text with commas."""
    if isinstance(value, (list, tuple)):
        return list(value)
    return [item for item in text(value).split(",") if item.strip()]


def binds(value: object) -> tuple[Bind, ...]:
    found: list[Bind] = []
    for item in [value] if isinstance(value, Bind | int) else _items(value):
        bind = item if isinstance(item, Bind) else Bind.parse(text(str(item) if type(item) is int else item))
        # Each port 0 becomes a port of its own.
        if bind in found and (bind.kind != "tcp" or bind.port):
            raise ValueError(f"{bind} is there twice")
        found.append(bind)
    if not found:
        raise ValueError
    return tuple(found)


def address(value: object) -> Bind:
    """One that this server makes itself."""
    bind = value if isinstance(value, Bind) else Bind.parse(text(str(value) if type(value) is int else value))
    if bind.kind == "fd":
        raise ValueError("it makes this socket itself")
    return bind


def socket_path(value: object) -> str:
    return _socket_path(path(value).removeprefix("unix:"))


def networks(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip().lower() in _NOTHING:
        return ()
    return tuple(dict.fromkeys(_network(text(item)) for item in _items(value)))


def _network(item: str) -> str:
    if item == "*":
        return item
    try:
        network = ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise ValueError(f"{item!r} is none of them") from None
    if "/" not in item:
        return str(network.network_address)
    # 10.0.0.5/8 may mean one machine or sixteen million: whom to believe is nothing to guess.
    if ipaddress.ip_interface(item).ip != network.network_address:
        raise ValueError(f"{item} has bits behind its mask, its network is {network}")
    return str(network)


def warmups(value: object) -> tuple[str, ...]:
    if isinstance(value, str) and value.strip().lower() in _NOTHING:
        return ()
    return tuple(dict.fromkeys(_warmup(text(item)) for item in _items(value)))


def _warmup(item: str) -> str:
    # Printable ASCII, as in a request line; or an importable name.
    if item.startswith("/") and not re.fullmatch(r"[!-~]*", item):
        raise ValueError(f"{item!r} has what a request line cannot hold, which must be percent-encoded")
    if not re.fullmatch(r"/[!-~]*|[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*", item) or "#" in item:
        raise ValueError(f"{item!r} is neither")
    return item


def switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = text(value).lower()
    if word not in _SWITCH:
        raise ValueError
    return _SWITCH[word]


def umask(value: object) -> int:
    if isinstance(value, str):
        match = re.fullmatch(r"(?:0o)?([0-7]{1,4})", value.strip())
        mask = int(match[1], 8) if match else -1
    else:
        mask = whole(value)
    if not 0 <= mask <= 0o777:
        raise ValueError
    return mask


def user(value: object) -> int:
    return _id(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group(value: object) -> int:
    return _id(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def _id(value: object, what: str, find: Callable[[str], int]) -> int:
    """A number is taken as it is (in containers many a user has no name), a name must be known."""
    try:
        number = whole(value)
    except ValueError:
        try:
            return find(text(value))
        except KeyError:
            raise ValueError(f"this machine knows no such {what}") from None
    if not 0 <= number <= 0xFFFF_FFFE:  # one more is -1, which to the kernel means "leave it as it is"
        raise ValueError
    return number


def log_format(value: object) -> str:
    template = text(value)
    if template in FORMATS:
        return template
    if "{" not in template:
        raise ValueError(f"the nearest is {nearest(template, FORMATS)}")
    for _, field, spec, conversion in string.Formatter().parse(template):
        if field is not None and field not in FIELDS:
            raise ValueError(f"there is no field {{{field}}}, the nearest is {{{nearest(field, FIELDS)}}}")
        if spec or conversion:
            raise ValueError(f"{{{field}}} takes nothing behind its name")
    return template


_NOTHING = ("off", "none")
_SWITCH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


def or_nothing(read: Callable[[object], Any]) -> Callable[[object], Any]:
    """A reader for which "off" and "none" are None. False is not: for an octal number it would be a 0."""

    def read_or_nothing(value: object) -> Any:
        if value is None or (isinstance(value, str) and value.strip().lower() in _NOTHING):
            return None
        return read(value)

    return read_or_nothing


# And back to text, for people.


def show_duration(seconds: float) -> str:
    return f"{int(seconds) if seconds == int(seconds) else seconds} s"


def show_size(count: int) -> str:
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count and count % factor == 0:
            return f"{count // factor} {unit}"
    return f"{count} bytes"


def show_items(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)


def show_switch(on: bool) -> str:
    return "on" if on else "off"


def show_umask(mask: int) -> str:
    return f"{mask:04o}"


def show_user(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)


def show_group(gid: int) -> str:
    try:
        return f"{grp.getgrgid(gid).gr_name} ({gid})"
    except KeyError:
        return str(gid)


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of value an option has. `takes` completes "the option takes ..."."""

    metavar: str
    takes: str
    read: Callable[[object], Any]
    show: Callable[[Any], str] = str
    unit: str = ""


INTEGER = Kind("NUMBER", "a whole number", whole)
DURATION = Kind("SECONDS", "seconds, or a number with ms, s, m, h or d,", duration, show_duration, "seconds")
SIZE = Kind("BYTES", "bytes, or a number with K, M, G or T,", size, show_size, "bytes")
TEXT = Kind("NAME", "a text without control characters", or_nothing(text))
PATH = Kind("PATH", "the path of a file", or_nothing(path))
FOLDER = Kind("FOLDER", "the path of a folder that exists", or_nothing(folder))
LOG = Kind("PATH", "- for standard output, the path of a file, or off", or_nothing(path))
LOG_FORMAT = Kind(
    "FORMAT", "combined, common, json, console or a text with {fields} such as {method} {path} {status}", log_format
)
URL_PATH = Kind("PATH", "a path that begins with / and has no query, such as /-/health, or off", or_nothing(url_path))
BINDS = Kind("ADDRESS", "HOST:PORT, unix:/path or fd:NUMBER, each once", binds, show_items)
ADDRESS = Kind("ADDRESS", "HOST:PORT, unix:/path, or off", or_nothing(address))
SOCKET = Kind("PATH", "the path of a unix socket that begins with /, or off", or_nothing(socket_path))
NETWORKS = Kind("LIST", "addresses, networks such as 10.0.0.0/8, or *", networks, show_items)
WARMUPS = Kind("LIST", "paths that begin with /, or names such as shop.caches.fill", warmups, show_items)
SWITCH = Kind("on|off", "on or off", switch, show_switch)
# The same, but that its flag takes no value: it would swallow the address behind it.
FLAG = Kind("", "on or off", switch, show_switch)
UMASK = Kind("OCTAL", "an octal number from 0 to 777 such as 027", or_nothing(umask), show_umask)
USER = Kind("USER", "the name or number of a user", or_nothing(user), show_user)
GROUP = Kind("GROUP", "the name or number of a group", or_nothing(group), show_group)
