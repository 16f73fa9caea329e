"""The board in a real browser, on the real server: `PreforkLiveServerTestCase` with Selenium.

Where there is no browser these tests are skipped. They are plain Django tests:
`manage.py test demo_project.board.tests.test_browser` runs them, too.
"""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

from django.contrib.auth.models import User
from django.test import override_settings

from django_prefork.test import PreforkLiveServerTestCase

from ..models import Notice, SharedFile
from .chromium import MISSING, By, Chrome, WebDriverWait, chromium

# As long as a busy machine may take (seconds): waits end with what they wait for.
PATIENCE = 30


@unittest.skipIf(MISSING, MISSING)
class BoardInABrowser(PreforkLiveServerTestCase):
    prefork: ClassVar = {"WORKERS": 2}
    folder: ClassVar[Path]
    page: ClassVar[Chrome]

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        (cls.folder / "tmp").mkdir()
        # Before the server is forked, or it would not know.
        cls.enterClassContext(
            override_settings(
                MEDIA_ROOT=cls.folder / "uploads",
                FILE_UPLOAD_TEMP_DIR=cls.folder / "tmp",
                PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
            )
        )
        super().setUpClass()
        cls.page = chromium(str(cls.folder / "profile"))
        # Clean-ups run in reverse: the browser leaves before the server, which so has nobody to wait for.
        cls.addClassCleanup(cls.page.quit)

    def open(self, path: str) -> None:
        self.page.get(f"{self.live_server_url}{path}")

    def text(self) -> str:
        return self.page.find_element(By.TAG_NAME, "body").text

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            field = self.page.find_element(By.NAME, name)
            if field.get_attribute("type") != "file":
                field.clear()
            field.send_keys(value)

    def submit(self) -> None:
        """Press the form's button, and wait for the page behind it, which has another address."""
        before = self.page.current_url
        self.page.find_element(By.CSS_SELECTOR, "main form button, #login-form [type=submit]").click()
        # Not whether an element of the old page is gone: asked between two pages, the driver may know neither.
        WebDriverWait(self.page, PATIENCE).until(lambda page: page.current_url != before)

    def test_the_page_has_its_style(self) -> None:
        self.open("/")
        family = self.page.execute_script("return getComputedStyle(document.body).fontFamily")
        sheets = self.page.execute_script("return [...document.styleSheets].map(sheet => sheet.cssRules.length)")
        self.assertTrue(family)
        self.assertTrue(sheets and all(sheets), sheets)

    def test_a_notice_is_posted_and_found_in_the_database(self) -> None:
        self.open("/notices/new/")
        self.fill(title="From a browser", body="Typed, not posted by a script.")
        self.submit()
        self.assertIn("Your notice is on the board.", self.text())
        self.assertEqual(Notice.objects.get().title, "From a browser")

    def test_what_the_test_wrote_the_browser_sees(self) -> None:
        Notice.objects.create(title="Written by the test", body="Text.")
        self.open("/")
        self.assertIn("Written by the test", self.text())

    def test_the_board_is_empty_again(self) -> None:
        self.open("/")
        self.assertIn("Nothing here yet", self.text())

    def test_a_file_is_uploaded(self) -> None:
        upload = self.folder / "greeting.txt"
        upload.write_text("Hello, board.\n" * 10_000)
        self.open("/files/")
        self.fill(file=str(upload))
        self.submit()
        self.assertIn("greeting.txt", self.text())
        shared = SharedFile.objects.get()
        self.assertEqual(shared.size, upload.stat().st_size)
        downloaded = self.page.execute_async_script(
            "const done = arguments[1]; fetch(arguments[0]).then(answer => answer.text()).then(done);",
            f"/files/{shared.pk}/download/",
        )
        self.assertEqual(downloaded, upload.read_text())

    def test_a_user_signs_in_to_the_admin(self) -> None:
        User.objects.create_superuser("ada", password="a-password-for-a-test")
        self.open("/admin/")
        self.fill(username="ada", password="a-password-for-a-test")
        self.submit()
        self.assertIn("Site administration", self.text())

    def test_requests_beside_each_other_are_all_answered(self) -> None:
        self.open("/")
        seen = self.page.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            Promise.all([...Array(20).keys()].map(() => fetch("/whoami").then(answer => answer.json())))
              .then(answers => done(answers.map(answer => answer.slot)));
            """
        )
        self.assertEqual(len(seen), 20)
        self.assertNotIn(None, seen)  # which other servers would not know
