"""The short form of `python -m tests.wire.upload`."""

from __future__ import annotations

from tests.wire import upload


def test_a_large_upload_arrives_as_it_was_sent_and_costs_no_memory() -> None:
    measured = upload.measure(64 * upload.MIB, None, rounds=1, beside=False)
    assert measured.memory <= upload.MEMORY, f"{measured.memory / upload.MIB:.1f} MiB"
