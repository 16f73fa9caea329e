"""What a case of raw bytes expects, what was answered, and whether the one allows the other.

A `Case` has the keys of corpus.json (its entry `keys` explains them), so that our own table and the corpus are judged
by the same eyes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("corpus.json")

#: What an error of the server's own may be; everything else from 500 on is a failure, whatever the case expects.
OWN_5XX = (501, 505)


@dataclass(frozen=True, slots=True)
class Case:
    """Bytes that a client sends, and what may become of them.

    `expect` is "accept" (the application sees `method`, `path`, `query`, `body`, `env`), "reject" (it is not called;
    `status` holds the answers allowed, empty: none is needed) or "either". `then` is what the client does after `raw`:
    "" (keep reading), "shutdown_wr", "close" or "send" (`then_data`, once the first answer is there).
    """

    id: str
    raw: bytes
    expect: str
    note: str = ""
    rfc: str = ""
    status: tuple[int, ...] = ()
    prefer: str = ""
    conn: str = ""
    method: str | None = None
    path: str | None = None
    query: str | None = None
    body: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    env_any: Mapping[str, Sequence[str]] = field(default_factory=dict)
    must_not_env: Sequence[str] = ()
    must_not_env_value: Mapping[str, str] = field(default_factory=dict)
    must_not_env_contains: Mapping[str, str] = field(default_factory=dict)
    must_not_serve: str | None = None
    may_reject: tuple[int, ...] = ()
    responses: int = 1
    second_status: tuple[int, ...] = ()
    interim: tuple[int, ...] = ()
    no_100: bool = False
    no_response_body: bool = False
    then: str = ""
    then_data: bytes = b""
    may_wait: bool = False
    app_must_not_complete: bool = False
    severity: str = ""
    tags: Sequence[str] = ()

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Case:
        """From an entry of corpus.json, whose text is latin-1. An unknown key is an error: it would not be judged."""
        known = {f.name for f in fields(cls)}
        assert entry.keys() <= known, f"{entry['id']}: unknown keys {entry.keys() - known}"
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
        for key in ("raw", "then_data"):
            if key in values:
                values[key] = values[key].encode("latin-1")
        return cls(**values)


def corpus() -> list[Case]:
    return [Case.of(entry) for entry in json.loads(CORPUS.read_text("utf-8"))["cases"]]


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as it stood on the wire; `status` 0: what came is none. `complete`: its body is all there."""

    status: int
    fields: Mapping[str, str]
    body: bytes
    complete: bool

    @property
    def final(self) -> bool:
        return self.status >= 200 or self.status == 0

    @property
    def closes(self) -> bool:
        return "close" in self.fields.get("connection", "")

    @property
    def echo(self) -> dict[str, Any] | None:
        """What the echo application saw, if it was that which answered."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return None
        return said if isinstance(said, dict) and said.get("echo") else None


def read_answers(data: bytes, methods: Sequence[str | None] = ()) -> list[Answer]:
    """Take `data` apart; `methods` are those of the requests, as far as they are known, for HEAD's sake."""
    answers = list(_answers(data, methods))
    return answers


def _answers(data: bytes, methods: Sequence[str | None]) -> Iterator[Answer]:
    finals = 0
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if not end or len(words) != 3 or words[0] != b"HTTP/1.1" or len(words[1]) != 3 or not words[1].isdigit():
            yield Answer(0, {}, data, False)
            return
        status = int(words[1])
        named = {}
        for line in lines:
            name, _, value = line.partition(b":")
            named[name.decode("latin-1").lower()] = value.strip(b" \t").decode("latin-1")
        method = methods[finals] if finals < len(methods) else None
        finals += status >= 200
        if status < 200 or status in (204, 304) or method == "HEAD":
            yield Answer(status, named, b"", True)
            data = rest
        elif named.get("transfer-encoding") == "chunked":
            body, remaining = _dechunked(rest)
            yield Answer(status, named, body, remaining is not None)
            if remaining is None:
                return
            data = remaining
        elif "content-length" in named:
            length = int(named["content-length"])
            yield Answer(status, named, rest[:length], len(rest) >= length)
            data = rest[length:]
        else:
            yield Answer(status, named, rest, True)
            return


def _dechunked(data: bytes) -> tuple[bytes, bytes | None]:
    """The body, and what stands behind it; None if its end is not there."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        if not end:
            return body, None
        size = int(line, 16)
        if size == 0:
            return body, data[2:] if data.startswith(b"\r\n") else None
        body += data[:size]
        if data[size : size + 2] != b"\r\n":
            return body, None
        data = data[size + 2 :]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a client saw: all `answers`, whether the connection was `closed`, and whether it still `serves`.

    `serves` is None where nobody asked: the connection was closed, or the answers said that it would be.
    """

    answers: Sequence[Answer]
    closed: bool
    serves: bool | None = None

    @property
    def finals(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.final]


def accepted(case: Case, outcome: Outcome) -> bool:
    first = next(iter(outcome.finals), None)
    if first is None:
        return False
    return first.status == 200 if case.method == "HEAD" else first.echo is not None


def preferred(case: Case, outcome: Outcome) -> bool:
    """Whether a case with two right answers got the better one."""
    return not case.prefer or (case.prefer == "accept") == accepted(case, outcome)


def judge(case: Case, outcome: Outcome) -> list[str]:
    """What is wrong with the outcome; nothing, for a server as it should be."""
    if case.then == "close":
        return []  # nobody was there to see
    problems = list(_always(case, outcome))
    if accepted(case, outcome) and case.expect != "reject":
        problems += _as_accepted(case, outcome)
    else:
        problems += _as_refused(case, outcome)
    return problems


def _always(case: Case, outcome: Outcome) -> Iterator[str]:
    for answer in outcome.finals:
        if answer.status == 0:
            yield f"not a response: {answer.body[:60]!r}"
        elif answer.status >= 500 and answer.status not in OWN_5XX + case.status:
            yield f"{answer.status} answered"
        if "date" not in answer.fields and answer.status:
            yield "no Date"
        if not answer.complete:
            yield "incomplete answer"
    if case.must_not_serve is not None:
        for answer in outcome.finals:
            if answer.echo and answer.echo["path"] == case.must_not_serve:
                yield f"smuggled: {case.must_not_serve}"
    if case.no_100 and any(answer.status == 100 for answer in outcome.answers):
        yield "100 sent"
    if outcome.serves is False:
        yield "kept open, but the next request is not served"


def _as_refused(case: Case, outcome: Outcome) -> Iterator[str]:
    first = next(iter(outcome.finals), None)
    if case.expect == "reject" and accepted(case, outcome):
        yield "accepted"
        return
    allowed = case.status if case.expect != "accept" else case.may_reject
    if first is None:
        if not outcome.closed and not case.may_wait:
            yield "no answer"
        elif case.expect == "accept" or case.status:
            yield "closed without an answer" if not case.may_wait else "no answer"
    else:
        if first.status not in allowed and allowed:
            yield f"status {first.status}, not of {list(allowed)}"
        elif case.expect == "accept" and not allowed:
            yield f"not accepted: {first.status}"
        if not outcome.closed:
            yield "refused, but left open"
        if not first.closes:
            yield "refused without Connection: close"
        if len(outcome.finals) > 1:
            yield f"something behind the error was answered: {[answer.status for answer in outcome.finals]}"


def _as_accepted(case: Case, outcome: Outcome) -> Iterator[str]:
    first, *others = outcome.finals
    said = first.echo
    if said is not None:
        for key in ("method", "path", "query", "body"):
            wanted = getattr(case, key)
            if wanted is not None and said[key] != wanted:
                yield f"{key} {said[key][:80]!r}, not {wanted[:80]!r}"
        environ = said["env"]
        for key, value in case.env.items():
            if environ.get(key) != value:
                yield f"environ {key} {environ.get(key)!r}, not {value!r}"
        for key, values in case.env_any.items():
            if environ.get(key) not in values:
                yield f"environ {key} {environ.get(key)!r}, not of {values}"
        for key in case.must_not_env:
            if key in environ:
                yield f"environ has {key}"
        for key, value in case.must_not_env_value.items():
            if environ.get(key) == value:
                yield f"environ {key} is {value!r}"
        for key, value in case.must_not_env_contains.items():
            if value in environ.get(key, ""):
                yield f"environ {key} holds {value!r}"
    if case.conn == "close" and not outcome.closed:
        yield "left open"
    if case.conn == "open" and outcome.closed:
        yield "closed"
    if outcome.closed != outcome.finals[-1].closes:
        yield "what Connection says is not what was done"
    if case.second_status:
        if others and others[0].status not in case.second_status:
            yield f"second status {others[0].status}, not of {list(case.second_status)}"
        if not outcome.closed:
            yield "left open behind an error"
    elif len(outcome.finals) != case.responses:
        yield f"{len(outcome.finals)} answers, not {case.responses}"
    if case.interim and outcome.answers[0].status not in case.interim:
        yield f"first came {outcome.answers[0].status}, not {list(case.interim)}"
