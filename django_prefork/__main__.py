"""`python -m django_prefork ...` is `manage.py runprefork ...`, for the project in the current folder.

It needs nothing of the project to begin: with `--reload` it is there before settings and apps are, and survives them.
"""

from __future__ import annotations

import os
import runpy
import sys

from django.apps import apps
from django.core.management import execute_from_command_line

from django_prefork.management import first_start


def main() -> None:
    """Does not return if it serves. Exits with the statuses of `manage.py runprefork`."""
    arguments = sys.argv[1:]
    try:
        manage = os.path.abspath("manage.py")
    except OSError as error:
        sys.exit(f"The current folder cannot be found ({error.strerror}): go to your project's folder.")
    there = os.path.isfile(manage)
    named = os.environ.get("DJANGO_SETTINGS_MODULE") or any(word.startswith("--settings") for word in arguments)
    if not there and not named:
        sys.exit(
            "There is neither a manage.py in this folder nor DJANGO_SETTINGS_MODULE in the environment: "
            "go to your project's folder, or set it."
        )
    sys.argv = ["manage.py" if there else "django-admin", "runprefork", *arguments]
    first_start.program = "python -m django_prefork"
    first_start.expect_the_worst()
    try:
        if there:
            runpy.run_path(manage, run_name="__main__")
        else:
            execute_from_command_line(sys.argv)
    except (Exception, SystemExit) as error:
        if not first_start.is_awaited() or (isinstance(error, SystemExit) and not error.code):
            raise
        sys.exit(_failed(error))
    if first_start.is_awaited():
        sys.exit("manage.py has ended without a command: it has to call execute_from_command_line(sys.argv).")


def _failed(error: Exception | SystemExit) -> int:
    """The command was not found, or nobody came to look for it. Returns the exit status, if nobody waits for a change.

    Not left to `sys.excepthook`: it is not told of exits, and what the project has put there may not ask us.
    """
    first_start.is_over()
    status = 1
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
    elif isinstance(error.code, int):
        status = error.code
    else:
        print(error.code, file=sys.stderr)
    if apps.ready and not apps.is_installed("django_prefork"):
        print('Add "django_prefork" to INSTALLED_APPS in your settings.', file=sys.stderr)
    first_start.stand_by(error)
    return status


if __name__ == "__main__":
    main()
