"""`python -m tests.compat [NAME ...]`: runs what docs/compatibility.md tells of; `--write` writes its table anew.

Takes a network at first use, for an environment of its own, and minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.compat import environment

PAGE = environment.ROOT / "docs" / "compatibility.md"
MARK, END = "<!-- compatibility -->\n", "<!-- /compatibility -->"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run; all unless given")
    parser.add_argument("--write", action="store_true", help="write the table of docs/compatibility.md anew")
    options = parser.parse_args()
    environment.continue_inside()

    from tests.compat import django_own, projects

    runs = {
        "live": (
            "Django",
            "django",
            "its tests of the live server",
            django_own.live_server,
        ),
        "admin": (
            "Django",
            "django",
            "some of its browser tests of the admin: inlines, popups, filters",
            django_own.admin,
        ),
        "whitenoise": ("WhiteNoise", "whitenoise", "a project with the admin", projects.whitenoise),
        "toolbar": ("django-debug-toolbar", "django-debug-toolbar", "its example", projects.debug_toolbar),
        "allauth": ("django-allauth", "django-allauth", "its example, without SAML", projects.allauth),
        "wagtail": ("Wagtail", "wagtail", "`wagtail start`", projects.wagtail),
        "gunicorn": ("gunicorn", "gunicorn", "its settings, against our translation", projects.gunicorn),
        "rest": ("Django REST framework", "djangorestframework", "a small API", projects.rest_framework),
    }
    rows = []
    failed = 0
    for name in options.names or runs:
        title, package, what, run = runs[name]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="prefork-compat-", ignore_cleanup_errors=True) as folder:
            try:
                found = run(Path(folder))
            except Exception:
                failed += 1
                found = "FAILED"
                traceback.print_exc()
        print(f"{name}: {found} ({time.monotonic() - began:.0f} s)", flush=True)
        rows.append(f"| {title} {environment.version(package)} | {what} | {found} |\n")
    if options.write and not failed:
        before, _, rest = PAGE.read_text().partition(MARK)
        table = "| package | what was run | what was found |\n|---|---|---|\n" + "".join(rows)
        PAGE.write_text(before + MARK + table + END + rest.partition(END)[2])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
