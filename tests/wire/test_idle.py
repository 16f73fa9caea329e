"""The short form of `python -m tests.wire.idle`."""

from __future__ import annotations

import pytest

from tests.wire import idle
from tests.wire.tools import NotHere, descriptors, serve


def test_an_idle_connection_costs_six_kib_at_most() -> None:
    try:
        descriptors(2000)
    except NotHere as missing:
        pytest.skip(str(missing))
    with serve() as server:
        each = idle.memory(server, 2000)
        assert each <= idle.MEMORY, f"{each:.0f} bytes each"
