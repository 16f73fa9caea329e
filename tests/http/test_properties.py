"""What holds for any request, any cut and any application. The examples are the same in every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.http import oracles
from tests.http.cases import CASES
from tests.http.effort import tries
from tests.http.judge import Case
from tests.http.reader import whole
from tests.http.strategies import Built, garbled, streams

quick = tries(250, HealthCheck.data_too_large)

cuts = st.lists(st.integers(0, 300), max_size=6)

CORPUS = sorted((Path(__file__).parent.parent / "fuzz" / "corpus").glob("*.bin"))


@quick
@given(streams())
def test_a_well_formed_request_parses_to_itself(built: list[Built]) -> None:
    read = whole(b"".join(each.raw for each in built))
    assert (read.status, read.waiting) == (0, False), read.detail
    assert len(read.requests) == len(built)
    for request, said in zip(read.requests, built, strict=True):
        head = request.head
        assert (head.method, head.target, head.path, head.query) == (said.method, said.target, said.path, said.query)
        assert head.fields == said.fields
        assert request.body == said.body
        assert (head.http11, head.keep_alive) == (said.http11, said.keep_alive)
    oracles.in_order(read)


@quick
@given(streams(), cuts)
def test_cutting_a_well_formed_stream_changes_nothing(built: list[Built], places: list[int]) -> None:
    read = oracles.the_same_however_cut(b"".join(each.raw for each in built), places)
    assert len(read.requests) == len(built)


@quick
@given(garbled(), cuts)
def test_what_was_well_formed_once_parses_or_is_refused_and_the_same_however_cut(raw: bytes, places: list[int]) -> None:
    oracles.in_order(oracles.the_same_however_cut(raw, places))


@quick
@given(st.binary(max_size=200), cuts)
def test_any_bytes_parse_or_are_refused(raw: bytes, places: list[int]) -> None:
    oracles.in_order(oracles.the_same_however_cut(raw, places))
    oracles.in_order(oracles.the_same_however_cut(b"POST / HTTP/1.1\r\nHost: h\r\n" + raw, places))
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    oracles.in_order(oracles.the_same_however_cut(chunked + raw, places))


@quick
@given(streams())
def test_h11_reads_the_same_requests(built: list[Built]) -> None:
    raw = b"".join(each.raw for each in built)
    oracles.never_more_than_h11(raw)
    theirs = oracles.read_by_h11(raw)
    # It never keeps HTTP/1.0 open, and judges trailers; of these streams only the last may be so.
    assert len(theirs.requests) == len(built) or theirs.error
    assert [body for _, _, body in theirs.requests] == [each.body for each in built][: len(theirs.requests)]


@tries(600, HealthCheck.data_too_large)
@given(garbled())
def test_never_one_request_more_than_h11_reads_and_never_another_body(raw: bytes) -> None:
    oracles.never_more_than_h11(raw)


@pytest.mark.parametrize("case", [case for case in CASES if case.then != "send"], ids=lambda case: case.id)
def test_no_case_is_read_as_more_than_h11_reads(case: Case) -> None:
    oracles.never_more_than_h11(case.raw)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_the_fuzzer_has_found(path: Path) -> None:
    raw = path.read_bytes()
    oracles.in_order(oracles.the_same_however_cut(raw, range(0, len(raw), 7)))
    oracles.never_more_than_h11(raw)
