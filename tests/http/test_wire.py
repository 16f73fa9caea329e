"""Every row of docs/http.md over a real socket, however it is cut on its way."""

from __future__ import annotations

import pytest

from tests.harness import Server
from tests.http.cases import CASES
from tests.http.client import WAYS, converse
from tests.http.judge import Case, judge, preferred

#: Cases with two right answers, of which ours is the other one; each with our reason.
NOT_PREFERRED = {
    "corpus-chunk-size-1000-zeros": "a chunk-size has at most 16 digits here: they hold every length there is",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_answer_is_what_the_table_says(echo_server: Server, case: Case, way: str) -> None:
    outcome = converse(echo_server.port, case, way)
    assert judge(case, outcome) == [], [answer.status for answer in outcome.answers]
    assert preferred(case, outcome) or case.id in NOT_PREFERRED or case.then == "close"
