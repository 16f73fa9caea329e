"""The one exception the protocol raises."""

from __future__ import annotations


class HttpError(Exception):
    """The request is refused: answer `status`, close the connection, parse nothing behind it.

    `detail` says to the log what was wrong; it never holds bytes of the client's.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
