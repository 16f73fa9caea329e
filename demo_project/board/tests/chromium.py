"""A real browser: Debian's packages chromium and chromium-driver, or any Chromium with its driver on the PATH."""

from __future__ import annotations

import shutil
from typing import Any

try:
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait
except ImportError:
    Chrome = By = WebDriverWait = None  # type: ignore[misc, assignment]

__all__ = ["MISSING", "By", "Chrome", "WebDriverWait", "chromium"]

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
#: What there has to be first; "" where it is there.
MISSING = "" if Chrome and BROWSER and DRIVER else "needs selenium, chromium and chromedriver"


def chromium(profile: str, *arguments: str, **capabilities: Any) -> Chrome:
    """Headless, with a profile of its own, and quiet: it asks nobody but the server."""
    options = ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless=new",
        "--no-sandbox",  # it refuses to run as root with one, as containers do
        "--disable-dev-shm-usage",  # 64 MiB in a container
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        *arguments,
    ):
        options.add_argument(argument)
    for name, value in capabilities.items():
        options.set_capability(name, value)
    return Chrome(options=options, service=ChromeService(executable_path=str(DRIVER)))
