"""An endless series of weather readings, computed: the same number always gives the same reading."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple

STATIONS = ("Harbour", "Hill Road", "Library", "Mill Pond", "Old Market")
FIRST_TAKEN_AT = datetime(2025, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(minutes=10)


class Reading(NamedTuple):
    """Degrees Celsius and per cent of relative humidity, at one station."""

    station: str
    taken_at: datetime
    temperature: float
    humidity: float


def reading(number: int) -> Reading:
    """Reading `number` (from 0): the stations take turns, and each round is one interval later."""
    turn, station = divmod(number, len(STATIONS))
    taken_at = FIRST_TAKEN_AT + turn * INTERVAL
    days = turn * INTERVAL / timedelta(days=1)
    year = math.cos(math.tau * (days - 20) / 365)  # coldest about 20 January
    day = math.cos(math.tau * (days - 0.625))  # warmest at 15:00
    # A fractional part that jumps about passes for noise, and needs no state.
    noise = (number * 0.618033988749895) % 1 - 0.5
    temperature = 10 - 9 * year + 4 * day + 2 * noise + 0.4 * station
    humidity = min(100.0, max(20.0, 72 + 10 * year - 12 * day + 8 * noise))
    return Reading(STATIONS[station], taken_at, round(temperature, 1), round(humidity, 1))


def readings(first: int = 0) -> Iterator[Reading]:
    """The series from reading `first` on, without end."""
    return map(reading, count(first))
