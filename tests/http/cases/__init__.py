"""The tables of docs/http.md as raw bytes: each row, at both sides of its border; and the corpus."""

from __future__ import annotations

from dataclasses import replace

from tests.http.cases import body, head
from tests.http.judge import Case, corpus

CASES: list[Case] = [
    *(replace(case, id=f"corpus-{case.id}") for case in corpus()),
    *head.cases(),
    *body.cases(),
]

_ids = [case.id for case in CASES]
assert len(set(_ids)) == len(_ids), (
    f"more than one case is called {sorted({name for name in _ids if _ids.count(name) > 1})}"
)
