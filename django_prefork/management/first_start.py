"""With `--reload`: what happens when Django cannot even be set up, and no command is ever run.

Django finds commands through the installed apps, so that a model that does not import ends `manage.py` before the
command begins. But this app is among those that are loaded first, and asks to be told when Python is about to give up.
`python -m django_prefork` is there before all of them, and sees to it itself.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from django.core.management import load_command_class

#: How this process was started, if not by `manage.py runprefork`.
program = ""

_before: Any = None
_awaited = False


def expect_the_worst() -> None:
    """By the app, when it is loaded; nothing unless this is `manage.py runprefork`."""
    global _before, _awaited
    if sys.argv[1:2] == ["runprefork"] and _before is None:
        _before, sys.excepthook = sys.excepthook, _failed
        _awaited = True


def is_awaited() -> bool:
    """Whether the command has still to be found."""
    return _awaited


def is_over() -> None:
    """By the command: it was found, and looks after itself."""
    global _awaited
    _awaited = False
    if sys.excepthook is _failed:
        sys.excepthook = _before


def _failed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    awaited = _awaited
    is_over()
    _before(kind, error, trace)
    if awaited and isinstance(error, Exception):
        stand_by(error)


def stand_by(error: BaseException) -> None:
    """With `--reload`, become a server that waits for a change; else, or if it cannot be one, return."""
    try:
        command: Any = load_command_class("django_prefork", "runprefork")
        options = vars(command.create_parser(sys.argv[0], "runprefork").parse_args(sys.argv[2:]))
        command.stand_by(options, error)
    except Exception as another:
        print(another, file=sys.stderr)
