"""The short form of `python -m tests.wire.slowhttptest`."""

from __future__ import annotations

from tests.wire import slowhttptest
from tests.wire.tools import needs_tool


@needs_tool("slowhttptest")
def test_slow_clients_of_all_kinds_keep_nobody_from_the_service() -> None:
    for verdict in slowhttptest.run(100, 6, deadline=1.0):
        print(verdict)
        assert verdict.good, str(verdict)
