"""The demo project on the real server, and a real browser that looks at its dashboard."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from demo_project.board.tests.chromium import By, WebDriverWait, chromium
from tests.harness import PATIENCE, ROOT, Server

PASSWORD = "a-password-for-a-test"
PAGE = "/admin/prefork/server/"


def axe() -> str | None:
    """axe-core in one file, out of whichever package has it."""
    for name in ("axe_playwright_python", "axe_core_python"):
        found = importlib.util.find_spec(name)
        if found is not None and found.origin:
            path = Path(found.origin).parent / "axe.min.js"
            if path.is_file():
                return path.read_text()
    return None


@contextlib.contextmanager
def site(*arguments: str, demo_data: bool = False, **more: Any) -> Iterator[Server]:
    """The demo project with a database of its own, in which `ada` is a superuser and `eve` may look at the server."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"DEMO_DATA_DIR": folder, "DJANGO_SUPERUSER_PASSWORD": PASSWORD}
        script = f"""
import django; django.setup()
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
call_command("migrate", verbosity=0)
{"call_command('demo_data', verbosity=0)" if demo_data else ""}
User.objects.create_superuser("ada", password={PASSWORD!r})
eve = User.objects.create_user("eve", password={PASSWORD!r}, is_staff=True)
eve.user_permissions.add(Permission.objects.get(codename="view_server", content_type__app_label="prefork"))
"""
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env={**os.environ, **environment, "DJANGO_SETTINGS_MODULE": "tests.dashboard.settings"},
            check=True,
            timeout=120,
        )
        with Server(
            "--access-log",
            "/dev/null",
            "--verbosity",
            "2",
            *arguments,
            application="",
            environment={**environment, "TEST_APPLICATION": ""},
            settings="tests.dashboard.settings",
            **more,
        ) as server:
            yield server.ready()


class Page:
    """A headless Chromium at the dashboard. `dark` and `phone` are as the machine it runs on would have it."""

    def __init__(self, server: Server, folder: str, size: tuple[int, int] = (1360, 900), scale: float = 1) -> None:
        self.url = f"http://127.0.0.1:{server.port}"
        console = {"goog:loggingPrefs": {"browser": "ALL"}}
        self.driver = chromium(folder, "--hide-scrollbars", "--lang=en", **console)
        self.look(size, scale)

    def look(self, size: tuple[int, int], scale: float = 1, *, dark: bool = False, script: bool = True) -> None:
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", features=scheme)
        self.command("Emulation.setScriptExecutionDisabled", value=not script)

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def open(self, path: str = PAGE) -> None:
        self.driver.get(self.url + path)

    def sign_in(self, name: str) -> None:
        self.open(f"/admin/login/?next={PAGE}")
        self.driver.find_element(By.NAME, "username").send_keys(name)
        self.driver.find_element(By.NAME, "password").send_keys(PASSWORD)
        self.click("#login-form [type=submit]")
        self.until(lambda: self.driver.current_url.endswith(PAGE), "the dashboard is there")

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def text(self, selector: str = "#prefork") -> str:
        return str(self.driver.execute_script("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def until(self, condition: Any, what: str) -> Any:
        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(lambda _: condition(), what)

    def complaints(self) -> list[str]:
        """What the browser's console has to say."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def faults(self, source: str) -> list[str]:
        """What axe-core finds serious or critical."""
        if not self.script("return typeof axe === 'object'"):
            self.script(source)  # by the driver: the page's policy is not asked
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run('#prefork', {resultTypes: ['violations']}).then("
            "found => done(found.violations), error => done([{id: String(error), impact: 'critical', nodes: []}]));"
        )
        return [
            f"{each['id']}: {[node['html'][:120] for node in each['nodes']][:4]}"
            for each in found
            if each["impact"] in ("serious", "critical")
        ]

    def picture(self, path: Path, selector: str | None = None, *, whole: bool = True) -> None:
        """Of the whole page, or of as much as is on the screen, as PNG."""
        more: dict[str, Any] = {}
        if whole:
            size = self.command("Page.getLayoutMetrics")["cssContentSize"]
            more = {
                "captureBeyondViewport": True,
                "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1},
            }
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png", **more)["data"]))

    def close(self) -> None:
        self.driver.quit()


@contextlib.contextmanager
def browser(server: Server, **more: Any) -> Iterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        page = Page(server, folder, **more)
        try:
            yield page
        finally:
            page.close()
