"""Become the user and group that were asked for, once, before the application is loaded."""

from __future__ import annotations

import os
import pwd

from django_prefork.arbiter.listeners import Listener


class PrivilegeError(Exception):
    """The change is not possible. The text is one sentence with the remedy."""


def drop(user: int | None, group: int | None, made: list[Listener]) -> None:
    """Become `user` and `group` (the user's own, if None), and give them the unix sockets that this process made.

    Raises `PrivilegeError`.
    """
    entry = None
    if user is not None:
        try:
            entry = pwd.getpwuid(user)
        except KeyError:
            pass  # a number without a name, as containers have them
    uid = os.getuid() if user is None else user
    gid = group if group is not None else entry.pw_gid if entry is not None else os.getgid()
    if (uid, gid) == (os.getuid(), os.getgid()):
        return
    try:
        for listener in made:
            listener.give_to(uid, gid)
        if entry is not None:
            os.initgroups(entry.pw_name, gid)
        else:
            os.setgroups([gid])
        os.setgid(gid)
        os.setuid(uid)
    except PermissionError:
        raise PrivilegeError(
            "Only root can change user or group; start as root, or leave out --user and --group."
        ) from None
    except OSError as error:
        raise PrivilegeError(f"Cannot become that user and group: {error.strerror}; name others.") from None
    if entry is not None:
        os.environ["HOME"] = entry.pw_dir
