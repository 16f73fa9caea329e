"""Short random sequences of faults; `python -m tests.faults --steps 200 --seed 1` plays long ones."""

from __future__ import annotations

import pytest

from tests.faults import sequence


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_in_whatever_order_nobody_gets_anothers_answer(seed: int) -> None:
    sequence.play(seed, 14)


def test_every_move_is_told_on_the_page() -> None:
    from tests.faults.test_page import PAGE

    text = PAGE.read_text()
    assert [name for name in sequence.moves() if f"`{name}`" not in text] == []
