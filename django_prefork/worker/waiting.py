"""How long a request has waited for a worker, and whether its client is still there: what the kernel knows of a socket.

The kernel's clock counts from the last segment that came, in steps of 1 to 10 ms, and only for TCP on Linux.
"""

from __future__ import annotations

import socket
import sys

# A loop that was away for so long (seconds), which is more than most steps of that clock, asks the kernel how long its
# requests have waited; that costs 1 us.
AWAY = 0.005

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
# Of struct tcp_info (linux/tcp.h): the state, and milliseconds since data came.
_STATE, _LAST_DATA = 0, slice(52, 56)
_SIZE = 56
_CLOSED = 7  # TCP_CLOSE (net/tcp_states.h): by a reset; who has only finished sending is in CLOSE_WAIT


def waited(sock: socket.socket) -> float | None:
    """Seconds since `sock` last got data, 0.0 where nobody knows; None: its client has reset the connection."""
    if _TCP_INFO is None:
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
    except OSError:
        return 0.0
    if len(info) < _SIZE:
        return 0.0
    if info[_STATE] == _CLOSED:
        return None
    return int.from_bytes(info[_LAST_DATA], sys.byteorder) / 1000
