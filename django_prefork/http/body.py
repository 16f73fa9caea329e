"""The request body while it arrives: in memory first, then in an unlinked temporary file."""

from __future__ import annotations

import errno
import re
import tempfile
from io import BufferedReader, BytesIO, RawIOBase
from typing import IO, cast

from django_prefork.http.errors import HttpError
from django_prefork.http.parser import LIMIT_HEAD, Limits, RequestHead, is_field
from django_prefork.http.storage import MEMORY, ROOM_STEP, Storage

# Chunk extensions are nobody's but an attacker's: a line may be this long, and all of them this much over the body.
LIMIT_CHUNK_LINE = 1024
LIMIT_CHUNK_EXTENSIONS = 4096

# RFC 9112 section 7.1: chunk-size = 1*HEXDIG. 16 digits hold every length there is.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(;[\t\x20-\x7e\x80-\xff]*)?")


class Spool:
    """Collects bytes: in memory, up to `MEMORY` and while there is enough for all, then in a file without a name.

    Raises `HttpError` 507 when the server's `spool_limit` is reached or the disk is full.
    """

    __slots__ = ("_disk", "_memory", "_reader", "_reserved", "_storage", "size")

    def __init__(self, storage: Storage) -> None:
        self.size = 0
        self._storage = storage
        self._memory: BytesIO | None = BytesIO()
        self._disk: RawIOBase | None = None
        self._reader: BufferedReader | None = None
        self._reserved = 0

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self._memory is not None:
            if self.size <= MEMORY and len(data) <= self._storage.left:
                self._storage.left -= len(data)
                self._memory.write(data)
                return
            collected = self._memory.getvalue()
            self._memory = None
            self._storage.left += len(collected)
            self._reserve()
            self._to_disk(collected)
        else:
            self._reserve()
        self._to_disk(data)

    def _reserve(self) -> None:
        missing = self.size - self._reserved
        if missing > 0:
            missing = max(missing, ROOM_STEP)
            if not self._storage.room(missing):
                raise HttpError(507, "spool_limit reached")
            self._reserved += missing

    def _to_disk(self, data: bytes | memoryview) -> None:
        try:
            if self._disk is None:
                # Unbuffered, so that a full disk is heard of here and not at close().
                file = tempfile.TemporaryFile(buffering=0, dir=self._storage.folder)  # noqa: SIM115 - closed by close()
                self._disk = cast(RawIOBase, file)
            view = memoryview(data)
            while view:
                view = view[self._disk.write(view) or 0 :]
        except OSError as error:
            raise HttpError(507, f"cannot spool the body: {errno.errorcode.get(error.errno or 0, 'error')}") from None

    def rewind(self) -> IO[bytes]:
        """The collected bytes as a file, to be read from its start."""
        if self._memory is not None:
            self._memory.seek(0)
            return self._memory
        assert self._disk is not None
        self._disk.seek(0)
        self._reader = BufferedReader(self._disk)
        return self._reader

    def close(self) -> None:
        """Give back memory and disk; may be called twice."""
        if self._memory is not None:
            self._memory = None
            self._storage.left += self.size
        if self._reader is not None:
            self._reader.close()
        elif self._disk is not None:
            self._disk.close()
        if self._reserved:
            self._storage.room(-self._reserved)
            self._reserved = 0


class LengthBody:
    """A body of as many bytes as Content-Length declared (RFC 9112 section 6.3)."""

    __slots__ = ("_missing", "spool")

    def __init__(self, length: int, spool: Spool) -> None:
        self._missing = length
        self.spool = spool

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return what came behind the body once it is complete, None before."""
        taken = min(len(data), self._missing)
        self._missing -= taken
        if taken == len(data):
            self.spool.write(data)
            return None if self._missing else b""
        self.spool.write(memoryview(data)[:taken])
        return data[taken:]


class ChunkedBody:
    """RFC 9112 section 7.1. Trailers are held to the rules of fields, and thrown away (section 7.1.2)."""

    __slots__ = ("_extensions", "_fields", "_limits", "_line", "_missing", "_total", "_trailers", "spool")

    def __init__(self, limits: Limits, spool: Spool) -> None:
        self._limits = limits
        self._line = b""  # a chunk's line, or a trailer's, as far as it came
        self._missing = 0  # of the chunk: its data and the CRLF behind it
        self._total = 0  # of all chunks announced so far
        self._extensions = 0
        self._trailers = -1  # bytes of trailers; -1 until the last chunk
        self._fields = 0
        self.spool = spool

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return what came behind the body once it is complete, None before.

        Raises `HttpError` 400, 413, 431 or 507.
        """
        # Kept with one write: of one-byte chunks there may be forty thousand in `data`.
        pieces: list[memoryview] = []
        rest = self._decode(data, pieces)
        if pieces:
            self.spool.write(b"".join(pieces) if len(pieces) > 1 else pieces[0])
        return rest

    def _decode(self, data: bytes, pieces: list[memoryview]) -> bytes | None:
        view = memoryview(data)
        position = 0
        while position < len(data):
            if self._missing > 2:
                end = position + self._missing - 2
                piece = view[position:end]
                pieces.append(piece)
                position += len(piece)
                self._missing -= len(piece)
                continue
            if self._missing:
                # The CRLF behind the chunk's data.
                if data[position] != (0x0D, 0x0A)[2 - self._missing]:
                    raise HttpError(400, "chunk without CRLF behind its data")
                position += 1
                self._missing -= 1
                continue
            end = data.find(b"\n", position)
            line = self._line + (data[position:] if end < 0 else data[position : end + 1])
            limit = LIMIT_CHUNK_LINE if self._trailers < 0 else self._limits.field_size
            if len(line) > limit + 2:
                raise HttpError(400 if self._trailers < 0 else 431, "chunk or trailer line too long")
            if end < 0:
                self._line = line
                return None
            if not line.endswith(b"\r\n"):
                raise HttpError(400, "bare LF in chunked framing")
            self._line = b""
            position = end + 1
            if self._trailers < 0:
                self._size(line[:-2])
            elif line == b"\r\n":
                return data[position:]
            else:
                self._trailer(line[:-2])
        return None

    def _size(self, line: bytes) -> None:
        match = _CHUNK_SIZE.fullmatch(line)
        if not match:
            raise HttpError(400, "malformed chunk size")
        if match[2]:
            self._extensions += len(match[2])
            if self._extensions > LIMIT_CHUNK_EXTENSIONS:
                raise HttpError(400, "too many chunk extensions")
        size = int(match[1], 16)
        self._total += size
        if self._total > self._limits.body > 0:
            raise HttpError(413, "body over limit_request_body")
        if size:
            self._missing = size + 2
        else:
            self._trailers = 0

    def _trailer(self, line: bytes) -> None:
        self._trailers += len(line) + 2
        self._fields += 1
        if self._fields > self._limits.fields or self._trailers > LIMIT_HEAD:
            raise HttpError(431, "too many trailers")
        if not is_field(line):
            raise HttpError(400, "malformed trailer")


def body_of(head: RequestHead, limits: Limits, spool: Spool) -> LengthBody | ChunkedBody:
    """What takes the body that `head` announces."""
    return ChunkedBody(limits, spool) if head.chunked else LengthBody(head.length, spool)
