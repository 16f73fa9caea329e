"""The tests' project with a database in a file."""

from __future__ import annotations

import os

from tests.site.settings import *  # noqa: F403

DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["TEST_DATABASE"]}}
