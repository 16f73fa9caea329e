from __future__ import annotations

import mmap

import pytest

from django_prefork.unwritten import Unwritten


@pytest.fixture
def unwritten() -> Unwritten:
    return Unwritten(64)


def test_what_was_put_there_is_there_and_left_behind(unwritten: Unwritten) -> None:
    for line in (b"one\n", b"two\n"):
        unwritten.add(line)
    assert unwritten.size() == 8
    assert unwritten.text() == unwritten.left() == b"one\ntwo\n"


def test_what_was_cleared_is_left_by_nobody(unwritten: Unwritten) -> None:
    unwritten.add(b"a line that is longer than the next\n")
    unwritten.clear()
    assert (unwritten.size(), unwritten.text(), unwritten.left()) == (0, b"", b"")
    unwritten.add(b"next\n")
    assert unwritten.text() == unwritten.left() == b"next\n"


def test_a_line_without_room_changes_nothing(unwritten: Unwritten) -> None:
    unwritten.add(b"x" * 62 + b"\n")
    with pytest.raises(ValueError):
        unwritten.add(b"y\n")
    assert unwritten.text() == unwritten.left() == b"x" * 62 + b"\n"
    unwritten.clear()
    unwritten.add(b"x" * 63 + b"\n")
    assert unwritten.text() == unwritten.left() == b"x" * 63 + b"\n"


@pytest.mark.parametrize("half", [b"hal", b"\0\0lf line\n", b"ha\0\0line\n"])
def test_a_line_in_the_middle_of_which_a_worker_died_is_left_out(unwritten: Unwritten, half: bytes) -> None:
    """The kernel may end a process in the middle of a copy, which need not begin at the beginning."""
    unwritten.add(b"whole\n")
    memory = unwritten._memory
    assert isinstance(memory, mmap.mmap)
    memory[6 : 6 + len(half)] = half
    assert unwritten.left() == b"whole\n"
    unwritten.wipe()
    assert unwritten.left() == b"" and not any(memory[:])
