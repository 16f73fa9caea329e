"""An application that is large before the fork."""

from __future__ import annotations

from tests.site.applications import hello as application

__all__ = ["BALLAST", "application"]

BALLAST = bytearray(100 * 1024 * 1024)
for _at in range(0, len(BALLAST), 4096):
    BALLAST[_at] = 1
