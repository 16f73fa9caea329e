"""An app whose own sockets, and with that all that Python makes, have a timeout."""

from __future__ import annotations

import socket

socket.setdefaulttimeout(0.2)
