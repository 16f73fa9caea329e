"""`manage.py preforkctl`: look inside the server of this project, and steer it."""

from __future__ import annotations

import argparse
import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from django_prefork import __version__, config, ctl
from django_prefork.asking import ControlError


class Command(BaseCommand):
    help = "Looks inside this project's server, and steers it, over its control socket (the option control_socket)."

    # The server may be in trouble because the project is.
    requires_system_checks = ()

    def get_version(self) -> str:
        return __version__

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--control-socket", metavar="PATH", help="Where the server has it, if settings and environment do not say."
        )
        ctl.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            resolved = config.resolve(
                {"control_socket": options["control_socket"]}, os.environ, getattr(settings, "PREFORK", None)
            )
            if resolved.control_socket is None:
                raise CommandError(
                    "No control_socket is configured: start the server with --control-socket PATH, or set "
                    'PREFORK = {"CONTROL_SOCKET": PATH}, and say the same here.'
                )
            ctl.run(resolved.control_socket, options, self.stdout.write)
        except (config.ConfigError, ControlError) as error:
            raise CommandError(str(error)) from None
