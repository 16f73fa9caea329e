from __future__ import annotations

from tests.soak import soak


def test_under_mixed_load_nothing_grows_and_nothing_warns() -> None:
    """Ten seconds of `python -m tests.soak`, which takes a minute."""
    soak(10)
