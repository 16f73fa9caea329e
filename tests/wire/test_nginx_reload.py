"""The short form of `python -m tests.wire.nginx_reload`."""

from __future__ import annotations

from tests.wire import nginx_reload
from tests.wire.tools import needs_tool


@needs_tool("nginx")
def test_reloads_behind_nginx_are_not_one_bad_gateway() -> None:
    print(nginx_reload.run(4))
