"""The tests' project with PostgreSQL under it. `TEST_DRIVER` is psycopg or psycopg2."""

from __future__ import annotations

import json
import os
import sys

from tests.site.settings import *  # noqa: F403

if os.environ["TEST_DRIVER"] == "psycopg2":
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django prefers it where it is there

ROOT_URLCONF = "tests.postgres.urls"
WSGI_APPLICATION = "tests.postgres.site.application"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": "postgres",
        "USER": "prefork",
        "HOST": os.environ["TEST_DATABASE"],
        "OPTIONS": {"application_name": os.environ["TEST_NAME"]},
    }
}
for _key, _value in json.loads(os.environ["TEST_OPTIONS"]).items():
    if _key == "pool":
        DATABASES["default"]["OPTIONS"]["pool"] = _value  # type: ignore[index]
    elif _key == "wait":
        import psycopg2.extensions
        import psycopg2.extras

        psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    else:
        DATABASES["default"][_key] = _value
