"""The dashboard in a real browser, on the real server, under a policy that allows nothing inline."""

from __future__ import annotations

import pytest

from demo_project.board.tests.chromium import MISSING
from tests.dashboard.tools import axe, browser, site
from tests.observing.tools import end

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)


def test_a_stuck_request_is_seen_and_opened_and_the_server_reloaded_at_a_button() -> None:
    with (
        site("--workers", "3", "--graceful-timeout", "0.5") as server,
        browser(server) as page,
    ):
        page.sign_in("ada")
        page.complaints()  # the login page has no icon
        assert page.script("return document.querySelectorAll('.pf-row').length") == 3
        page.script("for (const row of document.querySelectorAll('.pf-row')) row.isKept = true")
        with server.ask("/report/?seconds=30"):
            page.until(lambda: "/report/" in page.text(".pf-workers"), "it is shown, without loading the page again")
            page.until(lambda: "board.views.report" in page.text(".pf-workers"), "its view is named")
            # Nothing was thrown away and drawn again.
            assert page.script("return [...document.querySelectorAll('.pf-row')].every(row => row.isKept)")
            page.click(".pf-row:has(.pf-path) [data-stacks]")
            page.until(lambda: page.script("return document.getElementById('pf-dialog').open"), "the stack is there")
            assert "board/views.py" in page.text("#pf-dialog .pf-own")
            source = axe()
            assert source, "axe-core-python is not installed"
            assert not page.faults(source)
            page.click("#pf-dialog [data-do=close]")
            assert not page.faults(source)
            page.click("#pf-reload button")
            page.click("#pf-sure [data-do=reload]")
            page.until(lambda: "A reload begins" in page.text(".messagelist"), "the server has heard it")
            page.until(lambda: "generation 2" in page.text(".pf-facts"), "the new code has come")
            server.wait_for(r"asks for a reload: ada at the dashboard")
            server.ready(generation=2)
            assert page.complaints() == []
        end(server)
