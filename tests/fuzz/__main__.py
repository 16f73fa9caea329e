"""Mutate requests for as long as one likes, and hold the parser to what must be true of any bytes.

What is tried comes from the cases of tests/http and from the corpus beside this file; what leads the parser to an
answer that nothing led it to before joins the pool, and, made small, the corpus. So the corpus is one small input for
each way there is through the parser; tests/http/test_properties.py goes through all of them. What breaks an oracle is
made small, kept there, too, and printed: exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.http import oracles
from tests.http.cases import CASES
from tests.http.reader import Read, whole
from tests.http.strategies import PIECES

CORPUS = Path(__file__).with_name("corpus")
# Longer ones are slow to try byte by byte; limits of size have their own tests.
LONGEST = 2000


def mutate(raw: bytes, others: list[bytes], choose: random.Random) -> bytes:
    """One to four small changes."""
    for _ in range(choose.choice((1, 1, 2, 4))):
        start = choose.randint(0, len(raw))
        end = min(len(raw), start + choose.choice((0, 0, 1, 1, 2, 8, 40)))
        kind = choose.randrange(7)
        if kind == 0:
            piece = bytes([choose.randrange(256)])
        elif kind == 1:
            piece = raw[start:end] * 2
        elif kind == 2:
            piece = b""
        elif kind == 3:
            other = choose.choice(others)
            begin = choose.randint(0, len(other))
            piece = other[begin : begin + choose.choice((5, 20, 100))]
        else:
            piece = choose.choice(PIECES)
        raw = raw[:start] + piece + raw[end:]
    if choose.random() < 0.1:
        raw += choose.choice(others)
    return raw[:LONGEST]


def check(raw: bytes, places: list[int]) -> Read:
    """All oracles. Raises what is wrong."""
    read = oracles.the_same_however_cut(raw, places)
    oracles.in_order(read)
    oracles.never_more_than_h11(raw)
    return read


def way(read: Read) -> tuple[object, ...]:
    """Which way the parser went: what it refused and why, behind which kind of request."""
    last = read.requests[-1].head if read.requests else None
    if read.detail:
        return last is not None, read.detail, False
    kind = (last.http11, last.chunked, bool(last.length), last.keep_alive) if last is not None else ()
    return kind, read.detail, read.waiting


def shrink(raw: bytes, still: Callable[[bytes], bool]) -> bytes:
    """Take away what can be taken away while `still` holds: large pieces first, then single bytes."""
    size = len(raw) // 2
    while size:
        start = 0
        while start < len(raw):
            shorter = raw[:start] + raw[start + size :]
            if still(shorter):
                raw = shorter
            else:
                start += size
        size //= 2
    return raw


def fails(raw: bytes, places: list[int]) -> str:
    """What is wrong with `raw`, in a few words; empty where nothing is."""
    try:
        check(raw, places)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def keep(raw: bytes, corpus: Path, prefix: str = "") -> Path:
    path = corpus / f"{prefix}{hashlib.sha1(raw, usedforsecurity=False).hexdigest()[:12]}.bin"
    path.write_bytes(raw)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=None, help="to see the same again")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="where findings are kept")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    choose = random.Random(seed)
    options.corpus.mkdir(exist_ok=True)
    print(f"seed {seed}")

    kept = [path.read_bytes() for path in sorted(options.corpus.glob("*.bin"))]
    cases = [case.raw for case in CASES if len(case.raw) <= LONGEST]
    pool = [*kept, *cases]
    seen = {way(whole(raw)) for raw in kept}
    deadline = time.monotonic() + options.seconds
    tried = added = 0
    waiting = list(pool)  # each as it is, once
    while time.monotonic() < deadline:
        raw = waiting.pop() if waiting else mutate(choose.choice(pool), pool, choose)
        places = [choose.randint(0, max(1, len(raw))) for _ in range(choose.randrange(6))]
        tried += 1
        problem = fails(raw, places)
        if problem:
            small = shrink(raw, lambda shorter, places=places: bool(fails(shorter, places)))  # type: ignore[misc]
            path = keep(small, options.corpus, "failure-")
            print(f"{fails(small, places)}\n{small!r}\ncut at {places}, kept as {path}", file=sys.stderr)
            return 1
        new = way(whole(raw))
        if new not in seen:
            seen.add(new)
            small = shrink(raw, lambda shorter, new=new: way(whole(shorter)) == new)  # type: ignore[misc]
            pool.append(small)
            keep(small, options.corpus)
            added += 1
    print(f"{tried} inputs, {added} new ways through the parser, {len(seen)} in all, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
