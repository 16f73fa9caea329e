"""No example stands on the pages that nobody tries."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.deploying.tools import Block, Machine, block, blocks
from tests.harness import eventually

HERE = Path(__file__).parent


def asked_for() -> dict[str, set[str]]:
    """Names of blocks that the modules of this folder take from the pages, each with the tests of that module."""
    found: dict[str, set[str]] = {}
    for path in HERE.glob("test_*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "block":
                (name,) = node.args
                assert isinstance(name, ast.Constant), f"{path.name}: say by its name which block it is"
                found.setdefault(name.value, set()).add(path.name)
    return found


@pytest.mark.parametrize("each", blocks(), ids=lambda each: each.name)
def test_every_example_is_tried_by_a_test(each: Block) -> None:
    assert each.name in asked_for(), "a new example: take it with block() in a test of this folder, and try it"
    assert each.language, "say what language it is in"


def test_every_name_is_that_of_an_example() -> None:
    names = [each.name for each in blocks()]
    assert len(names) == len(set(names)) > 8
    assert asked_for().keys() == set(names)


def test_the_check_says_whether_it_can_start() -> None:
    prompt, _, command = block("deploying.md: $ python manage.py runprefork --check").strip().partition(" ")
    assert prompt == "$"
    with Machine() as machine:
        done = machine.run(command.split())
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Ready to serve."), done
        done = machine.run([*command.split()[:-1], "--print-config"])
        assert done.returncode == 0 and "graceful_timeout" in done.stdout.lower(), done
        (machine.project / "mysite" / "urls.py").write_text("import nonsense\n")
        assert machine.run(command.split()).returncode == 1


def test_threads_begin_in_the_worker_as_the_example_has_it() -> None:
    app = block("signals.md: from threading import Thread")
    with Machine(settings="INSTALLED_APPS.append('shop.apps.ShopConfig')\n") as machine:
        (machine.project / "shop").mkdir()
        exporter = (
            '\n\ndef export_for_ever(slot):\n    os.write(2, f"slot {slot} exports in {os.getpid()}\\n".encode())\n'
        )
        (machine.project / "shop" / "apps.py").write_text(f"import os\n{app}\n\n{exporter}")
        command = ["python", "manage.py", "runprefork", "127.0.0.1:0", "--workers", "2"]
        with machine.serve(command).ready() as server:
            eventually(lambda: server.count(r"^slot \d exports in") == 2, "both exporters have begun")
            said = {int(server.wait_for(rf"^slot {slot} exports in (\d+)$")[1]) for slot in range(2)}
            assert said == set(server.full_strength(2))
