"""A PostgreSQL of the tests' own: in a temporary folder, on a unix socket, as an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OWNER = "prefork"


def binaries() -> Path | None:
    """The folder of initdb and pg_ctl; Debian keeps them out of the path, one for each version."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


def _ordinary() -> pwd.struct_passwd | None:
    """Whom to become where the tests run as root, which PostgreSQL refuses; None: stay who we are."""
    if os.getuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            pass
    pytest.skip("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def running() -> Iterator[Path]:
    """Its folder, in which the socket is. Skips the test where PostgreSQL is not installed."""
    tools = binaries()
    if tools is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = _ordinary()
    # Not in pytest's folder: a socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="prefork-pg-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)

        def run(*command: str | Path) -> None:
            done = subprocess.run(
                command,
                cwd=folder,
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=60,
                text=True,
            )
            assert done.returncode == 0, f"{command}: {done.stdout}"

        data = folder / "data"
        run(tools / "initdb", "--no-sync", "--auth", "trust", "--username", OWNER, "--pgdata", data)
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=60"
        log = folder / "log"
        run(tools / "pg_ctl", "start", "--wait", "--silent", "--pgdata", data, "--log", log, "--options", options)
        try:
            yield folder
        finally:
            run(tools / "pg_ctl", "stop", "--wait", "--silent", "--mode", "immediate", "--pgdata", data)
