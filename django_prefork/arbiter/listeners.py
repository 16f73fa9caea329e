"""The listening sockets: bind, inherit, adopt, close."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterable
from typing import Any

from django_prefork import socket_file
from django_prefork.config import Bind, Config

# For clients; for those who look inside; for those who steer.
SERVE, STATUS, CONTROL = "serve", "status", "control"
# Connections that wait for the Arbiter in the kernel: probes and scrapers are few.
BACKLOG = 128


class ListenError(Exception):
    """A socket cannot be listened on. The text is one sentence with the remedy."""


class Listener:
    """A listening, non-blocking socket.

    `own` says that this server made it, and may shut it down for everyone when it stops; a socket that systemd or
    another parent keeps is theirs. `bind` is what was asked for, by which a reload knows it again. `path` and `inode`
    (device, inode) belong to unix sockets. `role` says who comes to it: SERVE for clients, or those who look inside.
    """

    def __init__(self, sock: socket.socket, bind: str, *, own: bool, role: str = SERVE) -> None:
        self.socket = sock
        self.bind = bind
        self.own = own
        self.role = role
        self.family = sock.family
        self.path = ""
        self.inode = (0, 0)
        sock.setblocking(False)
        name = sock.getsockname()
        if self.family == socket.AF_UNIX:
            self.path = os.fsdecode(name)
            self.host, self.port = self.path, ""
            try:
                status = os.stat(self.path)
            except OSError:
                pass  # abstract, or unlinked since
            else:
                self.inode = (status.st_dev, status.st_ino)
        else:
            self.host, self.port = name[0], str(name[1])

    @property
    def url(self) -> str:
        """What a person puts into a browser."""
        if self.family == socket.AF_UNIX:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def words(self) -> dict[str, Any]:
        """What is left to the next process image; `adopt()` takes it."""
        return {
            "fd": self.socket.fileno(),
            "bind": self.bind,
            "own": self.own,
            "path": self.path,
            "inode": list(self.inode),
            "role": self.role,
            "new": False,
        }

    def give_to(self, uid: int, gid: int) -> None:
        """The socket's file becomes theirs; nothing else does, should somebody have put it in that place."""
        if self.own and self.path:
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self.inode and stat.S_ISSOCK(status.st_mode):
                os.chown(self.path, uid, gid, follow_symlinks=False)

    def shut_down(self) -> None:
        """Take no more, in all processes at once."""
        if self.own:
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # another process was first

    @property
    def lost(self) -> bool:
        """A unix socket whose file is gone, or another's: nobody finds it any more."""
        if not self.own or not self.path or not self.path.startswith("/"):
            return False
        try:
            status = os.lstat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self.inode

    def close(self) -> None:
        self.socket.close()

    def remove(self) -> None:
        """Close it, and unlink its path if that is still ours."""
        if self.own and self.path:
            try:
                socket_file.remove(self.path, self.inode)
            except OSError:
                pass  # whoever listens there next finds it stale
        self.close()


def adopt(words: dict[str, Any]) -> Listener:
    """A listener that another process image left."""
    listener = Listener(
        socket.socket(fileno=words["fd"]), words["bind"], own=words["own"], role=words.get("role", SERVE)
    )
    listener.inode = (words["inode"][0], words["inode"][1])  # as it was when it was made
    return listener


def wanted(config: Config) -> list[tuple[Bind, str]]:
    """What to listen at, and for whom."""
    found = [(bind, SERVE) for bind in config.bind]
    if config.status_bind is not None:
        found.append((config.status_bind, STATUS))
    if config.control_socket is not None:
        found.append((Bind("unix", path=config.control_socket), CONTROL))
    return found


def listen_all(wanted: Iterable[tuple[Bind, str]], backlog: int) -> list[Listener]:
    """All of them or none; `backlog` is for clients. Raises `ListenError`."""
    listeners: list[Listener] = []
    try:
        for bind, role in wanted:
            listener = listen(bind, backlog if role == SERVE else BACKLOG, private=role != SERVE)
            listener.role = role
            listeners.append(listener)
    except ListenError:
        for listener in listeners:
            listener.remove()
        raise
    return listeners


def join_all(
    wanted: list[tuple[Bind, str]], backlog: int, inherited: list[Listener]
) -> tuple[list[Listener], list[Listener]]:
    """The listeners of a later generation: those that are there already, and new ones. Raises `ListenError`.

    Returns all of them in the order of `wanted`, and those among them that are new. What is not wanted is closed here.
    """
    there = list(inherited)
    found: list[Listener | None] = []
    for bind, role in wanted:
        fitting = (one for one in there if one.bind == str(bind) and one.role == role and not one.lost)
        match = next(fitting, None)
        if match is not None:
            there.remove(match)
        found.append(match)
    new = iter(listen_all([one for one, match in zip(wanted, found, strict=True) if match is None], backlog))
    for listener in there:
        listener.close()
    listeners = [match if match is not None else next(new) for match in found]
    return listeners, [listener for listener in listeners if listener not in found]


def listen(bind: Bind, backlog: int, *, private: bool = False) -> Listener:
    """`private`: the file of a unix socket is its owner's alone."""
    if bind.kind == "fd":
        return _inherited(bind)
    if bind.kind == "unix":
        return _unix(bind, backlog, private)
    return _tcp(bind, backlog)


def _tcp(bind: Bind, backlog: int) -> Listener:
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ListenError(f"Cannot listen on {bind}: {error.strerror}; give an address of this machine.") from None
    sock = socket.socket(family, kind, proto)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets have it from their listener. Without it an answer of two sends waits 40 ms for an ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise ListenError(f"Cannot listen on {bind}: {_REMEDIES.get(error.errno or 0, error.strerror)}.") from None
    return Listener(sock, str(bind), own=True)


_REMEDIES = {
    errno.EADDRINUSE: "that port is already in use; stop what uses it, or choose another",
    errno.EACCES: "no permission for that port; choose one above 1023, or start as root with --user",
    errno.EADDRNOTAVAIL: "this machine does not have that address; choose one of its own, or 0.0.0.0 for all",
}


def _unix(bind: Bind, backlog: int, private: bool) -> Listener:
    try:
        # A socket that is bound and does not listen yet looks as one that nobody listens on any more.
        with socket_file.locked_folder(bind.path):
            _make_way(bind)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                if private:
                    _bind_private(sock, bind.path)
                else:
                    sock.bind(bind.path)
                sock.listen(backlog)
                return Listener(sock, str(bind), own=True)
            except OSError:
                sock.close()
                raise
    except OSError as error:
        if "too long" in str(error):
            why = "that path is too long for a socket; choose a shorter one"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            why = "no permission to make a socket there; choose a folder this user may write to"
        elif error.errno == errno.ENOENT:
            why = "that folder does not exist; make it first"
        elif error.errno == errno.EWOULDBLOCK:
            why = "somebody holds a lock of that folder; choose one that is this server's own"
        else:
            why = error.strerror or str(error)
        raise ListenError(f"Cannot listen on {bind}: {why}.") from None


def _bind_private(sock: socket.socket, path: str) -> None:
    """From its first moment on the file is its owner's alone."""
    if sys.platform == "linux":
        os.fchmod(sock.fileno(), 0o600)  # what the file is made with
        sock.bind(path)
        return
    before = os.umask(0o177)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _make_way(bind: Bind) -> None:
    """Remove a socket that nobody listens on any more; leave anything else alone and say so."""
    try:
        status = os.lstat(bind.path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ListenError(f"Cannot listen on {bind}: {error.strerror}.") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise ListenError(f"Cannot listen on {bind}: there is a file of that name; remove it, or choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Not waiting: a living server with a full backlog answers EAGAIN.
        probe.setblocking(False)
        try:
            probe.connect(bind.path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except PermissionError:
            raise ListenError(
                f"Cannot listen on {bind}: that socket is another user's; remove it, or choose another path."
            ) from None
        except BlockingIOError:
            raise ListenError(f"Cannot listen on {bind}: another server listens there; stop it first.") from None
        else:
            raise ListenError(f"Cannot listen on {bind}: another server listens there; stop it first.")
    try:
        os.unlink(bind.path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ListenError(f"Cannot listen on {bind}: the old socket cannot be removed ({error.strerror}).") from None


def _inherited(bind: Bind) -> Listener:
    problem = "no listening socket was passed under that number; check what starts this command"
    try:
        sock = socket.socket(fileno=bind.fd)
    except OSError:
        raise ListenError(f"Cannot listen on {bind}: {problem}.") from None
    try:
        if sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            sock.set_inheritable(False)
            return Listener(sock, str(bind), own=False)
    except OSError:
        pass  # macOS has no SO_ACCEPTCONN to ask; what cannot be asked is refused
    sock.detach()  # not ours: it must not be closed
    raise ListenError(f"Cannot listen on {bind}: {problem}.")
