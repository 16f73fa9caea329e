"""All of the dashboard in a real browser: `python -m tests.dashboard [--minutes 4] [--pictures docs/images]`.

For some minutes the demo project gets a load that has a bit of everything, so that there is something to see: then what
the page does is looked at, piece by piece, and with --pictures, light, dark and on a phone. With Pillow installed the
pictures take a third of the place. It exits with 1 if anything is not as it should be.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from demo_project.board.tests.chromium import MISSING
from tests.dashboard.tools import PAGE, Page, axe, browser, site
from tests.harness import Server, eventually, free_port

DESK, PHONE = (1360, 900), (390, 844)


class Load:
    """People who use the site: quick pages mostly, slow ones at times, and a mistake now and then."""

    def __init__(self, server: Server, people: int = 3) -> None:
        self.server = server
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.use, args=(number,), daemon=True) for number in range(people)]
        for thread in self.threads:
            thread.start()

    def use(self, number: int) -> None:
        dice = random.Random(number)
        while not self.over.is_set():
            path = dice.choices(
                ["/", "/api/notices/", "/files/", "/report/?seconds=0.8", "/boom/", "/nowhere/"],
                [40, 20, 15, 4, 0.5, 2],
            )[0]
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
                connection.request("GET", path, headers={"Host": "localhost"})
                connection.getresponse().read()
                connection.close()
            except (OSError, http.client.HTTPException):
                pass  # its worker was killed
            # Busier and quieter times, of a minute or so.
            quiet = 1 + 0.8 * (time.monotonic() / 70 % 1)
            self.over.wait(dice.expovariate(4.0) * quiet)

    def end(self) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)


class Report:
    def __init__(self) -> None:
        self.failed = 0

    def __call__(self, what: str, found: object, *more: object) -> None:
        self.failed += not found
        print("ok    " if found else "FAILED", what, *more, flush=True)


def states(page: Page) -> str:
    return str(page.script("return [...document.querySelectorAll('.pf-fleet i')].map(each => each.className).join()"))


def accessible(page: Page, report: Report, where: str) -> None:
    source = axe()
    if source is None:
        print("skipped: no axe-core here:", where)
        return
    faults = page.faults(source)
    report(f"axe-core finds nothing serious: {where}", not faults, *faults)


def take(page: Page, folder: Path | None, name: str, *, whole: bool = True) -> None:
    if folder is None:
        return
    path = folder / f"dashboard-{name}.png"
    page.picture(path, whole=whole)
    try:
        from PIL import Image
    except ImportError:
        pass
    else:
        Image.open(path).convert("RGB").quantize(
            256, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE
        ).save(path, optimize=True)
    print("taken:", path, path.stat().st_size)


def look(server: Server, page: Page, report: Report, folder: Path | None) -> None:
    page.sign_in("ada")
    page.complaints()  # the login page has no icon

    seen = set()
    eventually(lambda: seen.add(states(page)) or len(seen) > 3, "workers change under load")
    report("workers change under load, without loading the page", True, f"{len(seen)} pictures")
    stuck = [server.ask("/report/?seconds=58"), server.ask("/cpu/?seconds=25")]
    page.until(lambda: "/report/" in page.text(".pf-workers") and "/cpu/" in page.text(".pf-workers"), "stuck")
    page.script("document.querySelector('.pf-row:has(.pf-path)').isKept = true")
    page.until(
        lambda: page.script("return parseFloat(document.querySelector('.pf-slow .pf-since')?.innerText) > 3"), "age"
    )
    report(
        "rows are changed and not drawn anew",
        page.script("return [...document.querySelectorAll('.pf-row')].some(row => row.isKept)"),
    )

    page.open()
    page.until(lambda: "/cpu/" in page.text(".pf-workers"), "it is there")
    time.sleep(1.5)  # prefork: ok - the bars have moved
    take(page, folder, "light")
    accessible(page, report, "light")
    page.look(DESK, dark=True)
    time.sleep(0.5)  # prefork: ok - colours take a moment
    take(page, folder, "dark")
    accessible(page, report, "dark")
    page.look(DESK)
    background = "return getComputedStyle(document.querySelector('.pf-card')).backgroundColor"
    light = page.script(background)
    page.script("document.documentElement.dataset.theme = 'dark'")
    report("the admin's own button is heard as well", page.script(background) != light)
    page.script("document.documentElement.dataset.theme = 'auto'")
    page.look(PHONE, 2)
    time.sleep(0.5)  # prefork: ok
    wide = page.script("return document.documentElement.scrollWidth")
    report("nothing is wider than a phone", wide <= PHONE[0], f"{wide} px")
    take(page, folder, "phone", whole=False)
    accessible(page, report, "phone")
    page.look(DESK)

    page.click(".pf-slow [data-stacks]")
    page.until(lambda: page.script("return document.getElementById('pf-dialog').open"), "the stack is there")
    report("the stack names the line it stands at", "board/views.py:" in page.text("#pf-dialog .pf-own"))
    take(page, folder, "stack", whole=False)
    accessible(page, report, "a stack")
    page.click("#pf-dialog [data-do=close]")

    page.click("#pf-live")
    before = page.text("#pf-now")
    time.sleep(2.5)  # prefork: ok - two times that it would have looked
    report("it can be paused", page.text("#pf-now") == before and "Paused" in page.text("#pf-live"))
    page.click("#pf-live")

    page.click("#pf-reload button")
    accessible(page, report, "the question before a reload")
    page.click("#pf-sure [data-do=reload]")
    page.until(lambda: "generation 2" in page.text(".pf-facts"), "the new code has come")
    report("the server is reloaded at a button", server.wait_for("asks for a reload: ada at the dashboard"))
    report("no complaint in the browser's console", not (found := page.complaints()), *found)
    for sock in stuck:
        sock.close()
    server.ready(generation=2)

    page.look(DESK, script=False)
    page.open()
    report("without a script it is a plain table", len(page.driver.find_elements("css selector", ".pf-row")) >= 4)
    page.click(".pf-row [data-stacks]")
    page.until(lambda: page.driver.find_elements("css selector", ".pf-asked"), "a page with a stack")
    report("and stacks are a page", "Stack of worker" in page.driver.find_element("css selector", ".pf-asked").text)
    page.look(DESK)


def silence(server: Server, page: Page, report: Report) -> None:
    page.open()
    stuck = [server.ask(f"/report/?seconds=12&number={number}") for number in range(8)]
    page.until(lambda: "every worker is busy" in page.text("#pf-trouble"), "it says that nobody answers")
    report("it says so when nobody answers", True)
    page.until(lambda: not page.text("#pf-trouble"), "it goes on")
    report("and goes on by itself", True)
    for sock in stuck:
        sock.close()
    page.complaints()
    page.driver.delete_all_cookies()
    page.until(lambda: "not signed in any more" in page.text("#pf-trouble"), "it says that one is signed out")
    report("it says so when one is signed out", True)
    report("no complaint in the browser's console", not (found := page.complaints()), *found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the load goes on before anybody looks")
    parser.add_argument("--pictures", type=Path, help="the folder for the pictures")
    options = parser.parse_args()
    if MISSING:
        sys.exit(MISSING)
    report = Report()
    with (
        free_port() as port,
        site(
            "--workers",
            "4",
            "--timeout",
            "60",
            demo_data=True,
            errors="SIGKILL|RuntimeError|killed: retired",
            bind=f"127.0.0.1:{port}",
        ) as server,
    ):
        load = Load(server)
        time.sleep(options.minutes * 60)
        os.kill(server.workers()[-1], signal.SIGKILL)
        with browser(server, size=DESK) as page:
            look(server, page, report, options.pictures)
            load.end()
            silence(server, page, report)
    print(f"{PAGE}: {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
