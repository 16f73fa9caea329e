"""`python -m tests.first_steps`: what the README says, step by step, in a fresh virtual environment with nothing else.

The one thing that is put in its place is the package itself, as it stands here. Docker is played: its ENV and its CMD.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.harness import PATIENCE, ROOT, eventually, free_port

README = (ROOT / "README.md").read_text()
DEPLOYING = (ROOT / "docs" / "deploying.md").read_text()


def said(words: str, page: str = README) -> str:
    assert words in page, f"the page does not say {words!r}"
    return words


class FirstUser:
    """Somebody with an empty folder and a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "PATH": f"{folder / 'venv' / 'bin'}:/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHONUNBUFFERED": "1",
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_") or "proxy" in name.lower()},
        }
        self.began = time.monotonic()

    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def run(self, command: str) -> None:
        self.say(f"$ {command}")
        subprocess.run(shlex.split(command), cwd=self.folder, env=self.environment, check=True)

    def edit(self, name: str, change: Callable[[str], str]) -> None:
        path = self.folder / name
        before = path.read_text() if path.exists() else ""
        after = change(before)
        assert after != before, name
        path.write_text(after)
        self.say(f"edit {name}")

    def start(self, command: str, **environment: str) -> Running:
        with free_port() as port:
            pass
        self.say(f"$ {command}")
        return Running(self, shlex.split(command), port, environment)


class Running:
    """A command in the foreground of the user's terminal."""

    def __init__(self, user: FirstUser, command: list[str], port: int, environment: dict[str, str]) -> None:
        self.port = port
        self.log = user.folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=user.folder,
                env={**user.environment, "PREFORK_BIND": f"127.0.0.1:{port}", **environment},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def page(self, host: str = "localhost") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", "/", headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            assert self.process.poll() is None, self.log.read_text()
            return 0, ""
        finally:
            connection.close()

    def shows(self, words: str, host: str = "localhost") -> None:
        eventually(lambda: words in self.page(host)[1], f"{words!r} in:\n{self.log.read_text()}")

    def says(self, words: str) -> None:
        eventually(lambda: words in self.log.read_text(), words)

    def end(self, number: int) -> None:
        os.killpg(self.process.pid, number) if number == signal.SIGINT else self.process.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log.read_text()
        time.sleep(0.1)  # prefork: ok (nothing is waited for: nobody may be left)
        left = subprocess.run(["ps", "-o", "args=", "-s", str(self.process.pid)], capture_output=True, text=True)
        assert not left.stdout, left.stdout


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        user = FirstUser(Path(folder))
        subprocess.run([sys.executable, "-m", "venv", str(user.folder / "venv")], check=True)
        user.run(f"{said('pip install')} --quiet --disable-pip-version-check {ROOT}")
        user.run("django-admin startproject mysite .")
        app = re.search(r"INSTALLED_APPS = \[\n    # ...\n    (.*)\n\]", README)
        assert app
        user.edit("mysite/settings.py", lambda text: text.replace("INSTALLED_APPS = [", f"INSTALLED_APPS = [{app[1]}"))

        server = user.start(said("python manage.py runprefork --reload"))
        server.shows("The install worked successfully")
        view = (
            "from django.http import HttpResponse\nfrom django.urls import path\n"
            'urlpatterns = [path("", lambda request: HttpResponse("hello, world"))]\n'
        )
        user.edit("mysite/urls.py", lambda text: view)
        server.shows("hello, world")
        user.edit("mysite/urls.py", lambda text: view + "def (")
        server.says("SyntaxError")
        server.says("waiting for a change")
        user.edit("mysite/urls.py", lambda text: view.replace("world", "again"))
        assert server.page() == (200, "hello, again")
        user.say("Ctrl-C")
        server.end(signal.SIGINT)

        good = (user.folder / "mysite/settings.py").read_text()
        user.edit("mysite/settings.py", lambda text: "import no_such_module\n" + text)
        server = user.start(said("python -m django_prefork --reload"))
        server.says("waiting for a change")
        user.edit("mysite/settings.py", lambda text: good)
        server.shows("hello, again")
        server.end(signal.SIGINT)

        said("`DEBUG = False`")
        said("`ALLOWED_HOSTS`")
        user.edit(
            "mysite/settings.py",
            lambda text: text.replace("DEBUG = True", "DEBUG = False").replace(
                "ALLOWED_HOSTS = []", 'ALLOWED_HOSTS = ["www.example.com"]'
            ),
        )
        server = user.start(said("python manage.py runprefork --workers 3"))
        server.shows("hello, again", "www.example.com")
        assert server.page()[0] == 400
        server.end(signal.SIGTERM)

        image = re.search(r"^```dockerfile\n(FROM .*?)^```", DEPLOYING, re.DOTALL | re.MULTILINE)
        assert image
        (environment,) = re.findall(r"^ENV (.*)$", image[1].replace("\\\n", ""), re.MULTILINE)
        (command,) = re.findall(r"^CMD (.*)$", image[1], re.MULTILINE)
        values = dict(word.split("=", 1) for word in shlex.split(environment))
        server = user.start(
            shlex.join(json.loads(command)), **{name: value for name, value in values.items() if name != "PORT"}
        )
        server.shows("hello, again", "www.example.com")
        server.end(signal.SIGTERM)
        user.say("all as the README says")
    return 0


if __name__ == "__main__":
    sys.exit(main())
