"""What of a project's options a server in tests has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from django_prefork import config

# Options of production that a server in tests has no use for, or that say where and as whom it runs.
_NOT_IN_TESTS = (
    "WORKERS",
    "BIND",
    "GRACEFUL_TIMEOUT",
    "DRAIN_DELAY",
    "STATUS_BIND",
    "CONTROL_SOCKET",
    "ACCESS_LOG",
    "ACCESS_LOG_FORMAT",
    "PID_FILE",
    "UMASK",
    "USER",
    "GROUP",
    "PROC_NAME",
)
# And those of them that cannot be asked for, either.
_NEVER = ("BIND", "STATUS_BIND", "CONTROL_SOCKET", "PID_FILE", "UMASK", "USER", "GROUP")
_TESTS_OWN = {
    # The second one shows what only more than one process can: state that a project keeps in memory.
    "WORKERS": 2,
    # Who still asks when the last test is over, asks for nobody.
    "GRACEFUL_TIMEOUT": 2,
    "ACCESS_LOG": "-",
    "ACCESS_LOG_FORMAT": "{method} {path} {status} {duration_ms} ms",
}


def configure(host: str, port: int, options: Mapping[str, Any]) -> config.Config:
    """Of `settings.PREFORK` what makes sense here, and stronger than that `options`. Raises ConfigError."""
    unused = [key for key in options if key in _NEVER]
    if unused:
        raise config.ConfigError(f"A server in tests has no {', '.join(unused)}: set host and port instead.")
    production = getattr(settings, "PREFORK", None) or {}
    kept = {key: value for key, value in production.items() if key not in _NOT_IN_TESTS}
    host = "127.0.0.1" if host == "localhost" else host
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return config.resolve({}, {}, {**kept, **_TESTS_OWN, **options, "BIND": bind})
