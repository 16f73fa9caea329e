"""The measurements as CSV text, made while it is sent: memory stays flat however long it gets."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import chain, islice, starmap
from typing import Final

from .models import Measurement
from .weather import Reading, readings

ROWS: Final = 100_000
ROWS_PER_CHUNK: Final = 500  # about 20 kB of text: few enough writes, little enough memory


def csv_chunks() -> Iterator[str]:
    """A header line and exactly ROWS lines, in chunks of whole lines (CRLF, RFC 4180)."""
    rows = _rows()
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Reading._fields)
    while batch := list(islice(rows, ROWS_PER_CHUNK)):
        writer.writerows((row.station, row.taken_at.isoformat(), row.temperature, row.humidity) for row in batch)
        yield text.getvalue()
        text.seek(0)
        text.truncate()


def _rows() -> Iterator[Reading]:
    """What is stored comes first; the computed series makes up the rest, so that every export has the same length."""
    stored = Measurement.objects.values_list(*Reading._fields).iterator(chunk_size=ROWS_PER_CHUNK)
    computed = readings(first=Measurement.objects.count())
    return islice(chain(starmap(Reading, stored), computed), ROWS)
