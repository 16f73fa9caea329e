"""With `--reload`: what happens when Django cannot even be set up, and no command is ever run.

Django finds commands through the installed apps, so that a model that does not import ends `manage.py` before the
command begins. But this app is among those that are loaded first, and asks to be told when Python is about to give up.
"""

from __future__ import annotations

import sys
from functools import partial
from types import TracebackType
from typing import Any

from django.core.management import load_command_class

_before: Any = None


def expect_the_worst() -> None:
    """By the app, when it is loaded; nothing unless this is `manage.py runprefork`."""
    global _before
    if sys.argv[1:2] == ["runprefork"] and _before is None:
        _before = sys.excepthook
        sys.excepthook = partial(_failed, _before)


def is_over() -> None:
    """By the command: it has begun, and looks after itself."""
    global _before
    if _before is not None:
        sys.excepthook, _before = _before, None


def _failed(before: Any, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    before(kind, error, trace)
    if not isinstance(error, Exception):
        return
    try:
        command: Any = load_command_class("django_prefork", "runprefork")
        options = vars(command.create_parser(sys.argv[0], "runprefork").parse_args(sys.argv[2:]))
        command.stand_by(options, error)
    except Exception as another:
        print(another, file=sys.stderr)
