"""Figures as the page has them."""

from __future__ import annotations

from django_prefork import plain

DASH = "\N{EN DASH}"


def duration(seconds: float | None) -> str:
    """As 12 µs, 3.4 ms, 5.0 s, 2 m, 2 m 5 s; a dash where it is not known."""
    return DASH if seconds is None else plain.seconds(seconds).replace(" us", " µs").removesuffix(" 0 s")


def size(count: int) -> str:
    """As 512 B, 3.4 MiB; a dash where it is not known."""
    return plain.size(count) if count else DASH


def number(count: int) -> str:
    """With thin spaces between thousands."""
    return f"{count:,}".replace(",", "\u2009")


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"
