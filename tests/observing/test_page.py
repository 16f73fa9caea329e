"""What docs/observability.md and the dashboard for Grafana say is so."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from django_prefork import ctl, layout, metrics, snapshot
from django_prefork.arbiter.listeners import Listener, listen
from django_prefork.config import Bind
from django_prefork.scoreboard import Scoreboard, State
from tests.harness import ROOT
from tests.test_docs import between, quoted, rows

PAGE = ROOT / "docs" / "observability.md"
GRAFANA = ROOT / "docs" / "grafana.json"


@pytest.fixture(scope="module")
def families() -> Iterator[dict[str, Any]]:
    """What a server with one worker tells."""
    board = Scoreboard.create(8)
    slot = board.claim(1, 0.0)
    board.occupy(slot, os.getpid())
    board.row(slot).state(State.IDLE, 1.0)
    listener: Listener = listen(Bind("tcp", host="127.0.0.1"), 8)
    text = metrics.render(board, [listener])
    listener.close()
    os.close(board.fd)
    yield {
        family.name + ("_total" if family.type == "counter" else ""): family
        for family in text_string_to_metric_families(text)
    }


def test_the_page_has_every_metric_with_its_type_and_its_labels(families: dict[str, Any]) -> None:
    told = {row[0].strip("`"): row for row in rows(PAGE, "metrics")}
    assert set(told) == set(families)
    for name, row in told.items():
        assert row[1] == families[name].type
        labels = {label for sample in families[name].samples for label in sample.labels} - {"le"}
        assert labels <= set(re.findall(r"`(\w+)`", row[2])), name
    assert all(f"`{reason}`" in between(PAGE, "metrics") for reason in layout.REASONS)


def names(text: str) -> set[str]:
    return set(re.findall(r"\bprefork_\w+", text))


def test_every_query_of_the_dashboard_names_metrics_that_exist(families: dict[str, Any]) -> None:
    samples = {sample.name for family in families.values() for sample in family.samples}
    labels = {sample.name: set(sample.labels) for family in families.values() for sample in family.samples}
    board = json.loads(GRAFANA.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) > 15
    for query in queries:
        assert query.count("(") == query.count(")") and query.count("{") == query.count("}"), query
        assert names(query) and names(query) <= samples, query
        (name, *_) = names(query)
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(group.split(", ")) <= labels[name], query
    assert names(json.dumps(board["templating"])) <= samples
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in board["panels"]]
    assert len(set(places)) == len(places) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
    # As far as can be seen, all that there is to see.
    missing = set(families) - {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries for name in names(query)}
    assert missing == {
        "prefork_info",
        "prefork_listen_queue_limit",
        "prefork_queue_p95_seconds",
        "prefork_response_size_bytes",
        "prefork_spooled_bytes",
        "prefork_worker_requests_total",
    }


def test_every_metric_of_the_examples_exists(families: dict[str, Any]) -> None:
    samples = {sample.name for family in families.values() for sample in family.samples} | set(families)
    assert names(PAGE.read_text()) <= samples


def test_the_page_names_what_a_snapshot_has() -> None:
    told = set(quoted(PAGE))
    kinds = (snapshot.Snapshot, snapshot.Worker, snapshot.Request, snapshot.Load, snapshot.Totals, snapshot.Listener)
    for kind in kinds:
        assert {field.name for field in fields(kind)} <= told, kind
    assert all(any(words.split(" ")[0] == command for words in told) for command in ctl.COMMANDS)
