"""Django's own tests of its live server, and of its admin in a browser, with our test case in the place of Django's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.compat.environment import ROOT, source

# Tests of how Django's own server is made, which this one is not: label -> why.
EXPECTED = {
    "test_closes_connection_without_content_length": "expects a close where this server sends chunks",
    "test_keep_alive_on_connection_with_content_length": "expects `Connection: close` to be ignored",
    "test_keep_alive_connection_clears_previous_request_data": "expects `Connection: close` to be ignored",
    "test_closes_connection_with_content_length": "is about a server without keep-alive",
    "test_collectstatic_emulation": "overrides a setting for one test only",
}

# Classes that look into the thread of Django's server.
THREADS = ("LiveServerTestCloseConnectionTest", "LiveServerTestCaseSetupTest", ".test_closes_connections")

RUNNER = """
import os, runpy, sys
import django.contrib.staticfiles.testing as staticfiles
import django.test, django.test.testcases
from django_prefork.test import PreforkLiveServerTestCase
for module in (django.test, django.test.testcases, staticfiles):
    module.LiveServerTestCase = PreforkLiveServerTestCase
staticfiles.StaticLiveServerTestCase = PreforkLiveServerTestCase
import django.test.selenium as selenium
def create_options(self):
    options = self.import_options(self.browser)()
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "no-first-run",
                     "disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument("--" + argument)
    options.binary_location = "/usr/bin/chromium"
    return options
selenium.SeleniumTestCaseBase.create_options = create_options
sys.path.insert(0, os.getcwd())
runpy.run_path("runtests.py", run_name="__main__")
"""
SETTINGS = """
DATABASES = {{
    alias: {{"ENGINE": "django.db.backends.sqlite3", "TEST": {{"NAME": "{folder}/" + alias + ".sqlite3"}}}}
    for alias in ("default", "other")
}}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


def _run(folder: Path, *labels: str) -> tuple[int, dict[str, str], str]:
    """How many tests ran, those that did not succeed, and the output."""
    (folder / "prefork_settings.py").write_text(SETTINGS.format(folder=folder))
    (folder / "run.py").write_text(RUNNER)
    done = subprocess.run(
        [sys.executable, str(folder / "run.py"), "--settings=prefork_settings", "--parallel=1", "--noinput", *labels],
        cwd=source("django") / "tests",
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{folder}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    ran = re.search(r"^Ran (\d+) tests?", done.stdout, re.M)
    assert ran, done.stdout[-3000:]
    failed = dict(re.findall(r"^(?:ERROR|FAIL): (\w+) \(([\w.]+)", done.stdout, re.M))
    return int(ran[1]), failed, done.stdout


def live_server(folder: Path) -> str:
    ran, failed, output = _run(folder, "servers.tests", "staticfiles_tests.test_liveserver")
    unexpected = {name: where for name, where in failed.items() if name not in EXPECTED and not where.endswith(THREADS)}
    assert not unexpected, f"{unexpected}\n{output}"
    reasons = "; ".join(f"`{name}` {why}" for name, why in EXPECTED.items() if name in failed)
    return f"{ran} ran. Not for this server: two classes about the thread of Django's own; {reasons}."


def admin(folder: Path) -> str:
    labels = (
        "admin_inlines.tests.SeleniumTests.test_delete_invalid_tabular_inlines",
        "admin_inlines.tests.SeleniumTests.test_add_inlines",
        "admin_views.tests.SeleniumTests.test_list_editable_popups",
        "admin_views.tests.SeleniumTests.test_redirect_on_add_view_add_another_button",
        "admin_widgets.tests.HorizontalVerticalFilterSeleniumTests",
    )
    ran, failed, output = _run(folder, "--selenium=chrome", "--headless", *labels)
    assert not failed, f"{failed}\n{output[-20000:]}"
    return f"{ran} in headless Chromium: all pass."
