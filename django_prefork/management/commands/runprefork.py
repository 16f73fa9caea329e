"""`manage.py runprefork`: parse -> Config -> application -> start; nothing more."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, TextIO, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, OutputWrapper, SystemCheckError
from django.core.servers.basehttp import get_internal_wsgi_application
from django.utils import autoreload

from django_prefork import __version__, config, from_gunicorn, inheritance, log, process
from django_prefork.arbiter import fork_safety, launch, privileges, rehearsal, warmup, watcher
from django_prefork.arbiter.arbiter import Arbiter
from django_prefork.arbiter.audit import Audit
from django_prefork.arbiter.listeners import CONTROL, SERVE, STATUS, ListenError
from django_prefork.arbiter.reloading import Reloading
from django_prefork.management import first_start


class Command(BaseCommand):
    help = "Serves this project: a pre-fork HTTP server for production, development and tests."

    # Run in the Arbiter, after privileges are dropped, and by every generation anew; --skip-checks is honoured.
    requires_system_checks = ()

    def get_version(self) -> str:
        return __version__

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        first_start.is_over()  # what is wrong with the arguments is not the code's fault, and no change will mend it
        parser.prog = first_start.program or parser.prog
        config.add_arguments(parser)
        parser.add_argument(
            "--nostatic", action="store_true", help="Do not serve static files, even with DEBUG and staticfiles."
        )
        parser.add_argument(
            "--print-config",
            action="store_true",
            help="Show every option, its value and where it came from, and exit.",
        )
        parser.add_argument(
            "--from-gunicorn",
            metavar="FILE",
            help="With --print-config: show what a gunicorn configuration file amounts to here, and exit.",
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Do everything up to the first fork (setup, checks, application); exit with 0 or 1.",
        )
        if not any(action.dest == "skip_checks" for action in parser._actions):
            # Django offers it only to commands that it checks for itself.
            parser.add_argument("--skip-checks", action="store_true", help="Skip system checks.")

    def execute(self, *args: Any, **options: Any) -> str | None:
        # From the first line on: a container's PID 1 ignores every signal that it does not handle.
        before = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)}
        process.open_standard_streams()
        try:
            return super().execute(*args, **options)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle(self, *args: Any, **options: Any) -> None:
        self.phases = warmup.Phases()
        # Of what was before, only the CPU time is known: the interpreter's start, settings, and all apps.
        self.phases.seconds["setup"] = time.process_time()
        try:
            if options["from_gunicorn"] is not None:
                self._translate(options["from_gunicorn"], options["print_config"])
                return
            self.config = self._resolve(options)
            config.use(self.config)
            if options["print_config"]:
                self.stdout.write(config.describe(self.config))
                return
            if not settings.DEBUG and not settings.ALLOWED_HOSTS:
                raise CommandError("You must set settings.ALLOWED_HOSTS if DEBUG is False.")
            if options["check"]:
                self._check(options)
                return
            # This process may be forked as it is: what a ready() of the project's has started ends here.
            fork_safety.watch()
            fork_safety.clean()
            self.audit = Audit()
            self.audit.look()
            inherited = inheritance.take_generation()
            if inherited is not None:  # whether files are watched, the first start has decided
                self.config = replace(self.config, reload=inherited["watched"] is not None)
            brief = self._is_brief(options)
            if inherited is not None:
                place = launch.join(inherited, self.config, brief=brief)
            else:
                place = launch.launch(self.config, brief=brief)
        except (config.ConfigError, ListenError, launch.LaunchError) as error:
            raise CommandError(str(error)) from None
        process.leave(self._be_arbiter(place, options))

    def _translate(self, path: str, print_config: bool) -> None:
        if not print_config:
            raise CommandError(
                "--from-gunicorn does not serve: add --print-config, and put what that prints into your settings."
            )
        self.stdout.write(from_gunicorn.translate(from_gunicorn.read(path), path))

    def _check(self, options: dict[str, Any]) -> None:
        application = self._load(options)
        log.setup(self.config, options["verbosity"])
        failed = warmup.warm(application, self.config, self.phases)
        if failed:
            raise CommandError("The warm-up failed: what is logged above would be slow, or fail, at the first request.")
        if options["verbosity"] > 1:
            self.stdout.write(f"Loaded: {self.phases}")
        self.stdout.write("Ready to serve.")

    @staticmethod
    def _resolve(options: dict[str, Any]) -> config.Config:
        return config.resolve(options, os.environ, getattr(settings, "PREFORK", None), debug=bool(settings.DEBUG))

    def _is_brief(self, options: dict[str, Any]) -> bool:
        """While you write code, how workers come and go is no news, unless you ask."""
        return (settings.DEBUG or self.config.reload) and options["verbosity"] < 2

    def stand_by(self, options: dict[str, Any], error: BaseException) -> None:
        """Django could not be set up. With `--reload`, become a server that waits for a change; else return."""
        inherited = inheritance.take_generation()
        if inherited is None:
            # Settings that do not import must not be asked: they would be run once more, and fail.
            self.config = self._resolve(options) if settings.configured else config.resolve(options, os.environ, None)
            asked = options["check"] or options["print_config"] or options["from_gunicorn"] is not None
            if asked or not self.config.reload:
                return
            process.open_standard_streams()
            watched = self._launch_unless_taken(brief=options["verbosity"] < 2).watched
        else:
            watched = inherited["watched"]
        if watched is not None:
            watcher.note_failure(watched, error)
            os._exit(1)

    def _launch_unless_taken(self, *, brief: bool) -> launch.Place:
        try:
            return launch.launch(self.config, brief=brief)
        except ListenError:
            if settings.configured or self.config.sources["bind"] != "default":
                raise
            # Another server has the default address; which one is meant here, the settings may say once they import.
            return launch.launch(replace(self.config, bind=()), brief=brief)

    def _be_arbiter(self, place: launch.Place, options: dict[str, Any]) -> int:
        """The exit status. From here on this is the server's process: nothing returns or raises into the caller."""
        process.set_title(f"{self.config.proc_name or 'django-prefork'}: arbiter gen {place.generation}")
        inheritance.forget_systemd()
        # Whoever read our output may be gone, or read no more: that must not keep a generation from serving.
        self.stdout = OutputWrapper(cast(TextIO, process.Quietly(sys.stdout)))
        self.stderr = OutputWrapper(cast(TextIO, process.Quietly(sys.stderr)))
        self.stderr.style_func = self.style.ERROR
        failure: BaseException
        try:
            privileges.drop(self.config.user, self.config.group, place.made)
            return self._arbiter(place, options).run()
        except (CommandError, config.ConfigError, privileges.PrivilegeError) as error:
            failure = error
            if options["traceback"]:
                traceback.print_exc()
            else:
                self.stderr.write(
                    f"{type(error).__name__}: {error}" if isinstance(error, SystemCheckError) else str(error)
                )
        except BaseException as error:
            failure = error
            traceback.print_exc()
        if place.watched is not None:
            watcher.note_failure(place.watched, failure)
        return failure.code if isinstance(failure, SystemExit) and isinstance(failure.code, int) else 1

    def _arbiter(self, place: launch.Place, options: dict[str, Any]) -> Arbiter:
        application = self._load(options, tell=place.is_first)
        place.booted()
        color = False if options["no_color"] else True if options["force_color"] else None
        log.setup(self.config, options["verbosity"], color, brief=self._is_brief(options))
        access_log = log.AccessLog.from_config(self.config, color)
        if place.is_first and options["verbosity"] > 0:
            self._greet(place)
        failed = warmup.warm(application, self.config, self.phases)
        with self.phases("freeze"):
            fork_safety.clean()
            fork_safety.freeze()
        paths = [item for item in self.config.warmup if item.startswith("/") and item not in failed]
        ranges = None
        if paths and place.watched is None:  # while you write code, a start should be quick
            with self.phases("rehearsal"):
                title = f"{self.config.proc_name or 'django-prefork'}: rehearsal gen {place.generation}"
                again = partial(warmup.ask_again, application, self.config, paths)
                ranges = rehearsal.rehearse(again, place, title)
        if options["verbosity"] > 1:
            self.stdout.write(f"Loaded: {self.phases}")
        return Arbiter(
            application,
            self.config,
            listeners=place.listeners,
            board=place.board,
            generation=place.generation,
            life=place.life,
            control=place.control,
            access_log=access_log,
            queues=place.queues,
            audit=self.audit,
            ranges=ranges,
            reloading=None if place.watched is None else partial(self._reloading, place.watched, place.began),
        )

    def _reloading(self, watched: int, began: float, arbiter: Arbiter) -> Reloading:
        try:
            autoreload.ensure_echo_on()  # a debugger of the old code's may have left the terminal without
        except Exception:
            pass  # the terminal is gone, or another's
        title = f"{self.config.proc_name or 'django-prefork'}: watcher gen {arbiter.generation}"
        return Reloading(watched, began, title, arbiter.close_all)

    def _load(self, options: dict[str, Any], *, tell: bool = True) -> Callable[..., Any]:
        """Checks, then the application, as runserver finds it: settings.WSGI_APPLICATION, whatever that is."""
        if not options["skip_checks"]:
            if tell and options["verbosity"] > 0:
                self.stdout.write("Performing system checks...\n")
            with self.phases("checks"):
                self.check(display_num_errors=tell and options["verbosity"] > 0)
                if settings.DEBUG:
                    self.check_migrations()
                    process.close_databases()
        with self.phases("application"):
            application: Callable[..., Any] = get_internal_wsgi_application()
            if not callable(application):
                name, kind = settings.WSGI_APPLICATION, type(application).__name__
                raise CommandError(
                    f"settings.WSGI_APPLICATION names {name!r}, which is no application but a {kind}; "
                    "name what get_wsgi_application() has returned."
                )
        with self.phases("urls"):
            warmup.load_urls()
        if settings.DEBUG and not options["nostatic"] and "django.contrib.staticfiles" in settings.INSTALLED_APPS:
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            application = StaticFilesHandler(application)  # type: ignore[arg-type]
        return application

    def _greet(self, place: launch.Place) -> None:
        import django

        quit_command = "CONTROL-C" if sys.stdin is not None and sys.stdin.isatty() else "SIGTERM"
        said = {SERVE: "Serving", STATUS: "Status", CONTROL: "Control"}
        urls = "\n".join(f"{said[listener.role]} at {listener.url}" for listener in place.listeners)
        workers = f"{self.config.workers} worker{'s' if self.config.workers != 1 else ''}"
        self.stdout.write(
            f"{datetime.now().strftime('%B %d, %Y - %X')}\n"
            f"django-prefork {__version__}, Django {django.get_version()}, Python {sys.version.split()[0]}, "
            f"using settings {settings.SETTINGS_MODULE!r}\n"
            f"{urls}\n"
            f"{workers}, PID {os.getppid()}. Quit the server with {quit_command}.\n"
        )
        self.stdout.flush()


def _leave(number: int, frame: object) -> None:
    """Before anything is served there is nothing to finish."""
    try:
        os.write(2, f"{signal.Signals(number).name} before the server was ready: stopped\n".encode())
    finally:
        os._exit(0)
