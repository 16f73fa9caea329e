"""A request as the log names it: what, since when, and for whom."""

from __future__ import annotations

import codecs

from django_prefork.scoreboard import Reading

# Loaded now: without a free descriptor, naming a request could not import it.
codecs.lookup("unicode_escape")


def quoted(text: str) -> str:
    """A client's words in a log: no control characters."""
    return f'"{_plain(text)}"'


def serving(reading: Reading, now: float, limit: str) -> str:
    """`serving "GET /report/ HTTP/1.1" for 30.0 s, timeout is 30 s (view shop.views.report, client 192.0.2.7)`.

    `limit` is what it is over, as "timeout is 30 s".
    """
    since = now - reading.since
    said = [f"view {reading.view}"] if reading.view else []
    said += [f"client {_plain(reading.client)}"] if reading.client else []
    said += [f"request id {quoted(reading.request_id)}"] if reading.request_id else []
    more = f" ({', '.join(said)})" if said else ""
    return f"serving {quoted(reading.request)} for {since:.1f} s, {limit}{more}"


def _plain(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii").replace('"', "\\x22")
