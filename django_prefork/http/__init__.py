"""The protocol: pure. No socket, no process, no Django; it runs any WSGI application."""

from __future__ import annotations
