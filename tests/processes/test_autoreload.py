"""`--reload`: what is saved is served."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psutil
import pytest

from tests.harness import PATIENCE, ROOT, Clients, Server, eventually

FILES = {
    "site_settings.py": """
        from pathlib import Path
        DEBUG = True
        SECRET_KEY = "x"
        ALLOWED_HOSTS = ["*"]
        INSTALLED_APPS = ["django_prefork", "board"]
        ROOT_URLCONF = "site_urls"
        TEMPLATES = [{
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent / "templates"],
        }]
        """,
    "site_urls.py": """
        from board import views
        from django.urls import path
        urlpatterns = [
            path("", views.page), path("code", views.code), path("late", views.late), path("events", views.events)
        ]
        """,
    "board/__init__.py": "",
    "board/models.py": "",
    "board/views.py": """
        import threading
        from django.dispatch import receiver
        from django.http import HttpResponse, StreamingHttpResponse
        from django.shortcuts import render
        from django.utils.autoreload import file_changed

        event = threading.Event()

        @receiver(file_changed)
        def tell(sender, file_path, **kwargs):
            threading.Timer(0.01, event.set).start()

        def page(request):
            return render(request, "page.html")

        def code(request):
            return HttpResponse("one")

        def late(request):
            import board_late
            return HttpResponse(board_late.WORD)

        def events(request):
            def stream():
                yield "waiting\\n"
                while not event.wait(0.1):
                    yield "ping\\n"
                yield "reload\\n"
            return StreamingHttpResponse(stream())
        """,
    "board_late.py": "WORD = 'one'",
    "templates/page.html": "one",
    "manage.py": """
        import os, sys
        sys.path.insert(0, os.getcwd())
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
        from django.core.management import execute_from_command_line
        execute_from_command_line(sys.argv)
        """,
}
VIEWS = FILES["board/views.py"]
# -B: two saves within a second, of the same length, are the same file to a .pyc.
PYTHON = [sys.executable, "-B"]
BROKEN = "waiting for a change|exited with status"


class Site:
    """A small project in a folder of its own; what is written to it is written as editors do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(textwrap.dedent(text))
        beside.rename(path)

    def say(self, word: str, name: str = "board/views.py") -> None:
        self.write(name, FILES[name].replace("one", word))

    def start(self, *arguments: str, errors: str = "") -> Server:
        return Server(
            "--reload",
            *(arguments or ("--workers", "2")),
            command=[*PYTHON, "manage.py", "runprefork"],
            folder=self.folder,
            environment={"DJANGO_SETTINGS_MODULE": "site_settings", "PWD": str(self.folder)},
            errors=errors,
        )

    def serve(self, *arguments: str, errors: str = "") -> Server:
        return self.start(*arguments, errors=errors).ready()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path / "site")


class Later:
    """A request that waits for its answer in a thread of its own."""

    def __init__(self, server: Server, path: str) -> None:
        self.answer: tuple[int, bytes] | None = None
        self._thread = threading.Thread(target=self._ask, args=(server, path), daemon=True)
        self._thread.start()

    def _ask(self, server: Server, path: str) -> None:
        self.answer = server.get(path, PATIENCE)

    def get(self) -> tuple[int, bytes] | None:
        self._thread.join(PATIENCE)
        return self.answer


def becomes(server: Server, path: str, body: bytes) -> None:
    eventually(lambda: server.get(path) == (200, body), f"{path} says {body!r}")


def test_a_template_is_served_as_it_was_saved_and_nothing_is_loaded_again(site: Site) -> None:
    with site.serve() as server:
        assert server.get("/") == (200, b"one")
        with Clients(server, 2) as fresh, Clients(server, 2, keep_alive=True) as kept:
            site.write("templates/page.html", "two")
            server.wait_for(r"templates/page.html changed: workers are forked anew")
            becomes(server, "/", b"two")
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == kept.failures == []
        assert kept.connections == 2, "no connection was closed"
        # One that had not been there, and that is loaded by another.
        site.write("templates/page.html", "{% include 'more.html' %}")
        site.write("templates/more.html", "three")
        becomes(server, "/", b"three")
        site.write("templates/more.html", "four")
        becomes(server, "/", b"four")
        assert server.count("gen=2|reloading") == 0


def test_code_is_served_as_it_was_saved_and_who_asks_in_between_waits_for_it(site: Site) -> None:
    with site.serve() as server:
        arbiter = server.arbiter()
        with Clients(server, 2, "/code") as fresh, Clients(server, 2, "/code", keep_alive=True) as kept:
            site.say("two")
            server.wait_for("board/views.py changed: reloading")
            # The old code goes at once, and the new takes a moment: this is neither refused nor served by the old.
            eventually(lambda: not psutil.pid_exists(arbiter), "the old code is gone")
            assert server.get("/code") == (200, b"two")
            server.ready(2)
            fresh.some_more()
            kept.some_more()
        assert fresh.failures == kept.failures == [] and kept.connections == 2
        assert {body for _, body in fresh.answers + kept.answers} == {b"one", b"two"}
        site.say("three", "board_late.py")  # nobody has imported it so far
        assert server.get("/late") == (200, b"three")
        # A module that only a worker has imported.
        site.say("four", "board_late.py")
        server.wait_for("board_late.py changed: reloading")
        becomes(server, "/late", b"four")


BREAKS = {
    "board/views.py": "def page(:",
    "board/models.py": "import no_such_module",
    "site_settings.py": "SECRET_KEY = ",
    "board/__init__.py": """
        from django.core import checks
        @checks.register()
        def bad(app_configs, **kwargs):
            return [checks.Error("this check fails", id="x.E001")]
        """,
}


def test_broken_code_is_told_once_and_the_next_save_goes_on(site: Site) -> None:
    with site.serve(errors=BROKEN) as server:
        for number, (name, text) in enumerate(BREAKS.items(), 1):
            site.write(name, text)
            server.wait_for("waiting for a change", times=number)
            asked = Later(server, "/code")
            eventually(lambda: len(server.processes()) == 1, "the supervisor waits alone")
            site.write(name, FILES[name])
            assert asked.get() == (200, b"one"), name
            server.wait_for(r"arbiter gen=\d+ pid=\d+ ready", times=number + 1)
        for says in (r"^ModuleNotFoundError", r"\(x.E001\) this check fails"):
            assert server.count(says) == 1, says
        assert server.count("^SyntaxError") == 2


def test_the_same_mistake_made_once_more_is_told_once_more(site: Site) -> None:
    with site.serve(errors=BROKEN) as server:
        for number in (1, 2):
            site.write("board/views.py", "1 / 0")
            server.wait_for("^ZeroDivisionError", times=number)
            site.write("board/views.py", VIEWS)
            server.wait_for(r"arbiter gen=\d+ pid=\d+ ready", times=number + 1)
            becomes(server, "/code", b"one")


def test_what_was_missing_may_be_a_file_that_nobody_knew(site: Site) -> None:
    with site.serve(errors=BROKEN) as server:
        site.write("board/views.py", "from board import words\n" + textwrap.dedent(VIEWS))
        server.wait_for("waiting for a change")
        site.write("board/words.py", "")
        becomes(server, "/code", b"one")


@pytest.mark.parametrize(("name", "text"), list(BREAKS.items())[:2], ids=["views", "models"])
def test_a_first_start_that_fails_waits_for_a_change_too(site: Site, name: str, text: str) -> None:
    site.write(name, text)
    with site.start(errors=BROKEN) as server:
        server.wait_for("gen=1 exited with status 1: waiting for a change")
        eventually(lambda: len(server.processes()) == 1, "the supervisor waits alone")
        site.write(name, FILES[name])
        server.wait_for("Serving at")
        assert server.get("/code") == (200, b"one")
        assert server.count(r"^\w*Error: ") <= 1, "once"
    with site.start(errors=BROKEN) as server:
        site.write(name, text)
        server.wait_for("waiting for a change")
        assert server.stop() == 0


def test_a_folder_that_is_removed_may_come_back(site: Site) -> None:
    with site.serve(errors=BROKEN) as server:
        assert server.get("/code") == (200, b"one")
        shutil.rmtree(site.folder)
        Site(site.folder).say("two")
        becomes(server, "/code", b"two")
        assert server.process.poll() is None


def test_without_reload_a_first_start_that_fails_ends(site: Site) -> None:
    site.write("board/models.py", "import no_such_module")
    command = [*PYTHON, "manage.py", "runprefork"]
    with Server(command=command, folder=site.folder, environment={"DJANGO_SETTINGS_MODULE": "site_settings"}) as server:
        assert server.wait() == 1
        assert server.count("no_such_module") >= 1 and server.count("waiting") == 0


def test_what_is_saved_during_a_boot_is_not_missed(site: Site) -> None:
    with site.serve() as server:
        site.write("board/models.py", "import time\nopen('in', 'w')\ntime.sleep(60)")
        eventually((site.folder / "in").exists, "the new code is being loaded")
        site.say("two")
        site.write("board/models.py", "")
        becomes(server, "/code", b"two")


def test_a_file_that_each_start_writes_is_no_reason_for_another(site: Site) -> None:
    site.write(
        "board/models.py", "import time\nopen('board/stamp.py', 'w').write(f'NOW = {time.time()}')\nimport board.stamp"
    )
    with site.start() as server:  # not `serve`: the first one may be replaced before it is ready
        server.wait_for("board/stamp.py changes with every start: that is no reason for another")
        becomes(server, "/code", b"one")
        last = server.count("arbiter gen=")
        site.say("two")
        becomes(server, "/code", b"two")
        assert server.count("arbiter gen=") <= last + 5


def test_receivers_hear_of_changes_in_the_workers_whose_pages_wait(site: Site) -> None:
    with site.serve() as server:
        sock = server.connect()
        sock.sendall(b"GET /events HTTP/1.0\r\n\r\n")
        stream = sock.makefile("rb")
        assert any(line == b"waiting\n" for line in stream)
        site.write("templates/page.html", "two")
        assert any(line == b"reload\n" for line in stream)
        becomes(server, "/", b"two")

        def stream_with_nothing_to_say() -> IO[bytes] | None:
            again = server.connect()
            again.sendall(b"GET /events HTTP/1.0\r\n\r\n")
            lines = again.makefile("rb")
            assert any(line == b"waiting\n" for line in lines)
            return lines if next(lines) == b"ping\n" else None

        # What keeps other workers from being told is that they are new. An old one may still take a connection.
        lines = eventually(stream_with_nothing_to_say, "a new worker has a stream with nothing to say")
        # New code ends both at once.
        site.say("two")
        assert b"reload\n" not in lines.read().splitlines()
        becomes(server, "/code", b"two")


def test_a_watcher_that_dies_is_replaced(site: Site) -> None:
    with site.serve("--workers", "1", errors="the watcher has ended|the supervisor is gone") as server:
        arbiter = psutil.Process(server.arbiter())
        worker = server.get("/code") and max(child.pid for child in arbiter.children())
        watcher = min(child.pid for child in arbiter.children() if child.pid != worker)
        os.kill(watcher, signal.SIGKILL)
        server.wait_for("the watcher has ended: another starts in")
        eventually(lambda: len(arbiter.children()) == 2, "there is another")
        site.say("two")
        becomes(server, "/code", b"two")
        server.kill(signal.SIGKILL)  # whoever is left must notice
        server.wait()


def test_only_what_matters_is_said_and_ctrl_c_says_nothing(site: Site) -> None:
    with site.serve() as server:
        server.get("/code")
        server.wait_for(r'\] "GET /code HTTP/1.1" 200 3 \d+\.\d ms slot \d$')
        os.killpg(server.pid, signal.SIGINT)
        assert server.wait() == 0
        said = server.lines[server.lines.index(server.wait_for(r".*ms slot \d$")[0]) + 1 :]
        assert said == []
        assert server.count("worker=") == 0


def test_a_debugger_has_the_terminal(site: Site) -> None:
    site.write(
        "board/views.py", textwrap.dedent(VIEWS).replace("def code(request):", "def code(request):\n    breakpoint()")
    )
    ours, theirs = pty.openpty()
    process = psutil.Popen(
        [
            sys.executable,
            "-B",
            "manage.py",
            "runprefork",
            "127.0.0.1:0",
            "--workers",
            "1",
            "--timeout",
            "0",
            "--reload",
        ],
        cwd=site.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "site_settings", "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    said = b""

    def hear(words: bytes) -> bytes:
        nonlocal said
        while words not in said:
            assert select.select([ours], [], [], PATIENCE)[0], said
            said += os.read(ours, 65536)
        before, _, said = said.partition(words)
        return before

    try:
        port = int(hear(b"worker, PID").rpartition(b"Serving at http://127.0.0.1:")[2].partition(b"/")[0])
        hear(b"ready: 1 workers")
        answer = Later(_At(port), "/code")  # type: ignore[arg-type]
        hear(b"(Pdb) ")
        os.write(ours, b"print(6 * 7, request.path)\n")
        hear(b"42 /code")
        os.write(ours, b"c\n")
        assert answer.get() == (200, b"one")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        os.close(ours)


class _At:
    """As much of a server as asking takes."""

    get = Server.get

    def __init__(self, port: int) -> None:
        self.port = port
