"""What README and docs say is so. `python -m tests.test_docs` writes the tables of options anew."""

from __future__ import annotations

import argparse
import ast
import json
import re
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from django.dispatch import Signal

from django_prefork import from_gunicorn, signals
from django_prefork.access_format import FIELDS, FORMATS, Unread, line_maker
from django_prefork.config import INTERNAL_PREFIX, OPTIONS, options_table, resolve
from django_prefork.management.commands.runprefork import Command
from django_prefork.supervisor import supervisor

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
DOCKERFILE = ROOT / "Dockerfile"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def between(page: Path, name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- /name -->`."""
    found = re.search(rf"<!-- {name} -->\n?(.*?)<!-- /{name} -->", page.read_text(), re.DOTALL)
    assert found, f"{page.name} has no {name}"
    return found[1]


def rows(page: Path, name: str) -> list[list[str]]:
    """The cells of all tables between the markers, but for their heads."""
    lines = between(page, name).splitlines()
    heads = {number for number, line in enumerate(lines[1:]) if re.fullmatch(r"\|[-| ]+\|", line)}
    table = [line for number, line in enumerate(lines) if number not in heads and number - 1 not in heads]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table if line.startswith("|")]


def code_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def quoted(page: Path) -> Iterator[str]:
    """What is written as code: spans, and the lines of blocks, one by one."""
    text = page.read_text()
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


# -- options -----------------------------------------------------------------------------------------------------------


# Tables that the code knows: by page, their name on it.
TABLES = {README: ("options", options_table), DOCS / "from-gunicorn.md": ("gunicorn", from_gunicorn.table)}


def with_table(page: Path) -> str:
    name, table = TABLES[page]
    mark, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = page.read_text().partition(mark)
    return f"{before}{mark}{table()}{end}{rest.partition(end)[2]}"


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.name)
def test_tables_are_those_of_the_code(page: Path) -> None:
    assert page.read_text() == with_table(page), "write it anew: python -m tests.test_docs"


@pytest.mark.parametrize("name", ["gunicorn", "uwsgi"])
def test_options_that_others_become_exist(name: str) -> None:
    for row in rows(DOCS / f"from-{name}.md", name):
        assert set(re.findall(r"`(\w+)`", row[1])) <= {option.key for option in OPTIONS}, row


@cache
def flags() -> set[str]:
    parser = Command().create_parser("manage.py", "runprefork")
    assert isinstance(parser, argparse.ArgumentParser)
    return {flag for action in parser._actions for flag in action.option_strings}


@pages
def test_every_flag_exists(page: Path) -> None:
    for words in quoted(page):
        if words.startswith("--") or "runprefork" in words:
            for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", words.rpartition("runprefork")[2]):
                assert flag in flags(), f"{page.name}: {words}"


@pages
def test_every_option_and_every_environment_variable_exists(page: Path) -> None:
    environment = {option.environment for option in OPTIONS}
    for name in re.findall(r"\bPREFORK_[A-Z_]+", page.read_text()):
        assert name in environment or name.startswith(INTERNAL_PREFIX), f"{page.name}: {name}"
    names = {option.name for option in OPTIONS}
    for words in quoted(page):
        # What looks like an option, by a part that only options' names have.
        if re.fullmatch(r"(?:limit|max|spool)_\w+|\w+_(?:timeout|delay|log|path|buffer)|keep_alive", words):
            theirs = page.name == "from-gunicorn.md" and any(row.has(words) for row in from_gunicorn.ROWS)
            assert words in names or theirs, f"{page.name}: {words}"


@pages
def test_settings_of_the_examples_are_accepted(page: Path) -> None:
    for block in code_blocks(page, "python"):
        for statement in ast.parse(block).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "PREFORK":
                resolve({}, {}, ast.literal_eval(statement.value))


# -- signals and log lines ---------------------------------------------------------------------------------------------


def test_the_signals_are_those_that_the_supervisor_handles() -> None:
    told = {name for row in rows(DOCS / "signals.md", "signals") for name in re.findall(r"`(SIG\w+)`", row[0])}
    assert told == {signal.Signals(number).name for number in supervisor._HANDLED}
    table = re.search(r"^## Signals\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    assert table
    short = {
        f"SIG{name}" for line in table[1].splitlines() for name in re.findall(r"`([A-Z12]+)`", line.split(" | ")[0])
    }
    assert short == told - {"SIGCHLD"}


def test_the_django_signals_are_told_with_their_arguments() -> None:
    told = {row[0].strip("`"): row for row in rows(DOCS / "signals.md", "django signals")}
    assert set(told) == {name for name, value in vars(signals).items() if isinstance(value, Signal)}
    sent: dict[str, set[str]] = {}
    for _, node in code():
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "signals.emit":
            name = ast.unparse(node.args[0]).removeprefix("signals.")
            sent.setdefault(name, {str(keyword.arg) for keyword in node.keywords})
    for name, row in told.items():
        assert set(re.findall(r"`(\w+)`", row[3])) == sent[name]


@cache
def code() -> tuple[tuple[Path, ast.AST], ...]:
    """Everything in the package: (where, what)."""
    files = sorted((ROOT / "django_prefork").rglob("*.py"))
    return tuple((path, node) for path in files for node in ast.walk(ast.parse(path.read_text())))


@cache
def texts() -> tuple[str, ...]:
    """All texts in the package's code, f-strings in pieces."""
    return tuple(node.value for _, node in code() if isinstance(node, ast.Constant) and isinstance(node.value, str))


def log_lines() -> list[str]:
    return [row[0] for row in rows(DOCS / "signals.md", "lines")]


@pytest.mark.parametrize("line", log_lines())
def test_every_line_of_the_log_is_in_the_code(line: str) -> None:
    # What is in italics varies; the rest has to be there word by word.
    pieces = [piece.strip(" :") for piece in re.split(r"\*[^*]+\*", line)]
    for piece in pieces:
        assert len(piece) < 3 or any(piece in text for text in texts()), f"{piece!r} of {line!r}"


def logged() -> Iterator[Any]:
    """What the code logs above DEBUG, as it stands there."""
    for path, node in code():
        if isinstance(node, ast.Call) and node.args:
            function = ast.unparse(node.func)
            if re.fullmatch(r"logger\.(info|warning|error|exception|critical)", function):
                yield pytest.param(node.args[0], id=f"{path.name}:{node.lineno}")
            elif function == "say" and len(node.args) == 2:
                yield pytest.param(node.args[1], id=f"{path.name}:{node.lineno}")


@pytest.mark.parametrize("text", list(logged()))
def test_every_line_that_is_logged_is_told(text: ast.expr) -> None:
    if isinstance(text, ast.Constant):
        pieces = re.split(r"%[-+ .0-9]*[a-z]", str(text.value))
    elif isinstance(text, ast.JoinedStr):
        pieces = [str(value.value) for value in text.values if isinstance(value, ast.Constant)]
    else:
        return  # put together elsewhere
    told = "\n".join(log_lines()).replace("*", "")
    for piece in (piece.strip() for piece in pieces):
        assert len(piece) < 4 or piece in told, f"docs/signals.md does not tell of {piece!r}"


def test_the_fields_of_the_access_log_are_told() -> None:
    assert [row[0].strip("`{}") for row in rows(DOCS / "logging.md", "fields")] == list(FIELDS)
    text = (DOCS / "logging.md").read_text()
    assert all(f"| `{name}` |" in text for name in FORMATS)
    line = line_maker("json")(Unread(""), 400, 0, 0.0, 0, 1, 0.0)
    assert re.findall(r"`(\w+)`", between(DOCS / "logging.md", "json")) == list(json.loads(line))


# -- pages -------------------------------------------------------------------------------------------------------------


@pages
def test_python_in_the_docs_compiles(page: Path) -> None:
    for block in code_blocks(page, "python"):
        compile(block, page.name, "exec")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of the headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def test_every_module_has_its_place_on_the_page_of_the_house() -> None:
    text = (DOCS / "architecture.md").read_text()
    for path in (ROOT / "django_prefork").rglob("*.py"):
        assert path.name.startswith("__") or f"{path.name}`" in text, path


def test_every_clock_is_on_the_page_of_clocks_with_its_default() -> None:
    lines = (DOCS / "timeouts.md").read_text().splitlines()
    for option in OPTIONS:
        if option.section == "Time" or option.name == "max_worker_lifetime":
            said = [line for line in lines if line.startswith("|") and f"| `{option.name}` |" in line]
            assert len(said) == 1, option.name
            assert f"| {option.show_default()}" in said[0], said


def test_make_does_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [match[1] for words in quoted(README) if (match := re.search(r"\bmake (\w+)", words))]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# -- the image ---------------------------------------------------------------------------------------------------------


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", DOCKERFILE.read_text().replace("\\\n", ""), re.MULTILINE)


def test_the_image_copies_what_is_there_and_what_is_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    sources = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert {"manage.py", "demo_project", "django_prefork"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists() and f"!{source}" in ignore, source


def test_the_image_starts_the_server_as_pid_1() -> None:
    (entrypoint,), (command,) = instructions("ENTRYPOINT"), instructions("CMD")
    script = json.loads(entrypoint)[-1]  # JSON: the exec form, without a shell around it
    assert (ROOT / script).read_text().rstrip().endswith('exec "$@"')
    words = json.loads(command)
    assert words[:3] == ["python", "manage.py", "runprefork"]
    assert {word for word in words[3:] if word.startswith("-")} <= flags()
    assert instructions("USER") == ["demo"]


def test_the_image_asks_for_health_where_the_server_answers() -> None:
    (check,) = instructions("HEALTHCHECK")
    words = json.loads(check[check.index("[") :])
    compile(words[-1], "HEALTHCHECK", "exec")
    (environment,) = instructions("ENV")
    names = re.findall(r"environ\['(\w+)'\]", words[-1])
    assert "PORT" in names
    for name in names:
        assert re.search(rf"\b{name}=", environment), name


if __name__ == "__main__":
    for page in TABLES:
        page.write_text(with_table(page))
