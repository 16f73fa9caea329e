"""Looking inside a server, and steering it, over its control socket: what `manage.py preforkctl` does.

It needs neither Django nor the project: `python -m django_prefork.ctl --control-socket PATH status` goes on working
when the project's settings do not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from django_prefork import plain
from django_prefork.asking import ControlError, ask

COMMANDS = {
    "status": "What each worker is doing.",
    "watch": "The same, live in the terminal; needs the package rich.",
    "reload": "New code, same PID; as SIGHUP.",
    "scale": "Have so many workers, until the next reload.",
    "stacks": "The stacks of all threads of a worker, or of all workers, while they run.",
    "drain": "Not ready any more, and each connection is closed after its answer; stop comes later.",
    "stop": "Stop when what runs is done; a second time: at once. As SIGTERM.",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """All but the socket's path."""
    commands = parser.add_subparsers(dest="do", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "status":
            command.add_argument("--json", action="store_true", help="All of it, for programs.")
        elif name == "scale":
            command.add_argument("workers", type=int, help="How many.")
        elif name == "stacks":
            command.add_argument("slot", type=int, nargs="?", help="Of this worker; else of all of them.")


def run(path: str, options: dict[str, Any], say: Callable[[str], object]) -> None:
    """Do what was asked for; `say` is for what is to be seen. Raises `ControlError`."""
    what = options["do"]
    if what == "watch":
        try:
            from django_prefork import watch
        except ImportError:
            raise ControlError("watch needs the package rich: pip install 'django-prefork[rich]'.") from None
        watch.watch(lambda request: ask(path, request))
        return
    request = {"do": what, **{name: options[name] for name in ("workers", "slot") if options.get(name) is not None}}
    answer = ask(path, request)
    if what == "status":
        say(json.dumps(answer["status"], indent=2) if options["json"] else plain.table(answer["status"]))
    elif what == "stacks":
        say(plain.stacks(answer))
    else:
        say(answer["said"])


def main() -> None:
    """`python -m django_prefork.ctl`."""
    parser = argparse.ArgumentParser(
        prog="python -m django_prefork.ctl", description="Looks inside a server, and steers it."
    )
    parser.add_argument(
        "--control-socket",
        default=os.environ.get("PREFORK_CONTROL_SOCKET"),
        metavar="PATH",
        help="The server's control_socket; PREFORK_CONTROL_SOCKET in the environment says it as well.",
    )
    add_arguments(parser)
    options = vars(parser.parse_args())
    if not options["control_socket"]:
        parser.error("which server? Give --control-socket PATH.")
    try:
        run(options["control_socket"], options, print)
    except ControlError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
