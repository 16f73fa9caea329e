"""The table of `docs/faults.md` names every fault once, and tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.harness import ROOT

PAGE = ROOT / "docs" / "faults.md"


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.read_text().splitlines() if re.match(r"\| F\d", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@cache
def defined() -> dict[str, ast.FunctionDef]:
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[node.name] = node
    return found


def named(text: str) -> list[str]:
    return re.findall(r"`(test_\w+)`", text)


def test_every_fault_has_its_row() -> None:
    assert [row[0] for row in rows()] == [f"F{number}" for number in range(1, 47)]
    assert {len(row) for row in rows()} == {4}


def test_every_row_names_a_test_that_exists() -> None:
    for number, _, _, shown in rows():
        names = named(shown)
        assert names, f"{number} has no test"
        assert [name for name in names if name not in defined()] == [], number


def test_what_is_expected_to_fail_is_said_to_be_so() -> None:
    text = PAGE.read_text()
    told = text[text.index("## Not so yet") :] if "## Not so yet" in text else ""
    here = {path.stem for path in (ROOT / "tests" / "faults").glob("test_*.py")}
    assert here
    failing = {name for name, node in defined().items() if any("xfail" in ast.unparse(d) for d in node.decorator_list)}
    assert set(named(told)) == failing


def test_every_test_of_faults_is_in_the_table() -> None:
    told = set(named(PAGE.read_text()))
    for path in (ROOT / "tests" / "faults").glob("test_*.py"):
        if path.name == "test_page.py":
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert node.name in told or node.name == "test_every_move_is_told_on_the_page", node.name
