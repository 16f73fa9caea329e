"""Random sequences of faults under steady clients, and what has to hold after each.

A seed gives the same sequence again, though not the same moments: `play(seed, steps)`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import random
import re
import signal
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.faults.tools import Clock
from tests.harness import PATIENCE, Server, eventually, free_port

WORKERS = 2
MIB = 1024 * 1024

SETTINGS = f"""
    SECRET_KEY = "x"
    ALLOWED_HOSTS = ["*"]
    INSTALLED_APPS = ["django_prefork"]
    WSGI_APPLICATION = "tests.faults.applications.trouble"
    PREFORK = {{"WORKERS": {WORKERS}}}
"""
MANAGE = """
    import os, sys
    sys.path.insert(0, os.getcwd())
    from django.core.management import execute_from_command_line
    execute_from_command_line(sys.argv)
"""
# What never is in the log, whatever is done.
NEVER = r"a mistake of the server|ResourceWarning|DeprecationWarning|RuntimeWarning"


class Client:
    """Asks again and again, each time with an id of its own, and looks whether the answer is to that."""

    def __init__(self, name: str, port: int, *, keep_alive: bool) -> None:
        self.name = name
        self.port = port
        self.keep_alive = keep_alive
        self.answers = 0
        self.connections = 0
        self.failures: list[str] = []
        #: Answers to somebody else's question: there is no excuse for one.
        self.wrong: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        for number in itertools.count():
            if self._ended.is_set():
                break
            if connection.sock is None:
                self.connections += 1
            identity = f"{self.name}-{number}"
            path = f"/sleep?s=0.02&id={identity}" if number % 3 == 0 else f"/?id={identity}"
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200 or json.loads(body)["id"] != identity:
                    self.wrong.append(f"{identity}: {answer.status} {body!r}")
                self.answers += 1
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{identity}: {error!r}")
                connection.close()
                self._ended.wait(0.01)
            if not self.keep_alive:
                connection.close()
        connection.close()

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


class Step:
    """What one fault may cost, and what the log has to say of it: each of `lines` once, and no other error."""

    def __init__(self, *lines: str, failures: int = 0, errors: str = "", tracebacks: bool = False) -> None:
        self.lines = lines
        self.failures = failures
        self.errors = errors
        self.tracebacks = tracebacks


ANY = 1_000_000


class Game:
    """One server, in as many incarnations as it takes, and its clients."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.clock = Clock(folder)
        self.write("manage.py", MANAGE)
        self.write("site_settings.py", SETTINGS)
        with free_port() as port:
            self.port = port
        #: What the last move did, where its name does not say it.
        self.story = ""
        self.start()
        self.clients = [Client(f"{'kept' if n % 2 else 'fresh'}{n}", port, keep_alive=bool(n % 2)) for n in range(4)]
        self.moves: dict[str, Callable[[], Step]] = {
            name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }
        if not self.clock.library:
            del self.moves["clock_jump"]

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(textwrap.dedent(text))

    def start(self) -> None:
        environment = {
            "DJANGO_SETTINGS_MODULE": "site_settings",
            "PWD": str(self.folder),
            **(self.clock.environment if self.clock.library else {}),
        }
        self.server = Server(
            "--pid-file",
            str(self.folder / "pid"),
            bind=f"127.0.0.1:{self.port}",
            command=[sys.executable, "-B", "manage.py", "runprefork"],
            environment=environment,
            folder=self.folder,
            errors=".",  # each step says which
        )
        #: The generation that serves, the last number that was given, and how many workers there should be.
        self.generation = self.number = 1
        self.target = WORKERS
        self.base: dict[str, tuple[int, int]] = {}
        self.seen = 0
        self.server.ready()

    @property
    def arbiter(self) -> int:
        return self.server.arbiter(self.generation)

    def workers(self) -> list[int]:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.arbiter).children()
            return sorted(child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE)
        return []

    # -- moves ---------------------------------------------------------------------------------------------------------

    def do_kill_worker(self) -> Step:
        victim = self.chance.choice(self.workers())
        self.server.kill(signal.SIGKILL, victim)
        # Its own request, and the connections it kept: at most one of each client.
        self.server.wait_for(f"pid={victim} was ended by SIGKILL")
        return Step(rf"pid={victim} was ended by SIGKILL", failures=len(self.clients), errors="was ended by SIGKILL")

    def do_kill_arbiter(self) -> Step:
        victim = self.arbiter
        self.server.kill(signal.SIGKILL, victim)
        self._new_generation()
        errors = rf"the arbiter gen=\d+ pid={victim} was ended by SIGKILL: its workers serve on; a new .* starts now"
        return Step(errors, *self._boot_lines(), errors=errors)

    def do_kill_supervisor_and_start(self) -> Step:
        old = self.server
        old.kill(signal.SIGKILL)
        old.wait()  # it is dead, and its log closed: by its Arbiter and all of its workers
        return self._again(old)

    def do_term_and_start(self) -> Step:
        old = self.server
        assert old.stop() == 0
        assert not (self.folder / "pid").exists()
        return self._again(old)

    def _again(self, old: Server) -> Step:
        eventually(lambda: not old.processes(), "nothing is left of the old server", 10)
        said = [line for line in old.lines[self.seen :] if re.search(r"\[(ERROR|CRITICAL)\]", line)]
        assert all(re.search("the supervisor is gone: stopping", line) for line in said), said
        assert len(said) <= 1, said
        old.__exit__(None)
        self.start()
        return Step("arbiter gen=1 pid=.* ready", failures=ANY)

    def do_hup(self) -> Step:
        self.server.kill(signal.SIGHUP)
        self._new_generation()
        return Step(*self._boot_lines(), rf"arbiter gen={self.generation - 1} leaves|leaves: retired$")

    def do_bad_hup(self) -> Step:
        self.number += 1
        self.write("site_settings.py", SETTINGS + "    this is no Python\n")
        self.server.kill(signal.SIGHUP)
        self.server.wait_for(f"reload failed, gen={self.number} ")
        self.write("site_settings.py", SETTINGS)
        errors = f"reload failed, gen={self.number} exited with status 1: the old code serves on"
        return Step(rf"gen={self.number} pid=\d+ started", errors, errors=errors, tracebacks=True)

    def do_usr2(self) -> Step:
        self.server.kill(signal.SIGUSR2)
        self._new_generation()
        self.base.pop("supervisor", None)  # another image of it
        return Step("SIGUSR2: .* takes over", *self._boot_lines())

    def do_ttin(self) -> Step:
        if self.target >= 6:
            return self.do_ttou()
        self.target += 1
        self.server.kill(signal.SIGTTIN)
        return Step(rf"SIGTTIN: {self.target} workers")

    def do_ttou(self) -> Step:
        self.target = max(1, self.target - 1)
        self.server.kill(signal.SIGTTOU)
        return Step(rf"SIGTTOU: {self.target} workers")

    def do_winch_and_ttin(self) -> Step:
        if self.target >= 6:
            return self.do_ttou()
        self.target += 1
        self.server.kill(signal.SIGWINCH)
        eventually(lambda: not self.workers(), "all workers have retired", 5)
        self.server.kill(signal.SIGTTIN)
        return Step("SIGWINCH: all workers retire", rf"SIGTTIN: {self.target} workers")

    def do_stop_worker(self) -> Step:
        self._stand_still(self.chance.choice(self.workers()))
        return Step()

    def do_stop_arbiter(self) -> Step:
        # What is told of it depends on how long it was to sleep anyway.
        self._stand_still(self.arbiter)
        return Step()

    def do_stop_supervisor(self) -> Step:
        self._stand_still(self.server.pid)
        return Step()

    def _stand_still(self, pid: int) -> None:
        self.server.kill(signal.SIGSTOP, pid)
        try:
            time.sleep(self.chance.choice((0.01, 0.2, 1.3)))  # prefork: ok (the standstill itself)
        finally:
            self.server.kill(signal.SIGCONT, pid)

    def do_clock_jump(self) -> Step:
        self.clock.jump(self.chance.choice((-86400, -10, 0, 10, 86400)))
        return Step()

    def do_storm(self) -> Step:
        """Several at once: an Arbiter dies while it boots, a reload meets an upgrade, a worker its end in both."""
        deaths, words = 0, []
        for _ in range(self.chance.randint(3, 7)):
            word = self.chance.choice(("HUP", "USR2", "TTIN", "TTOU", "WINCH", "worker", "arbiter", "stop"))
            with contextlib.suppress(IndexError, psutil.NoSuchProcess, ProcessLookupError):
                if word in ("worker", "arbiter", "stop"):
                    deaths += word != "stop"
                    self._strike(word)
                else:
                    self.server.kill(signal.Signals[f"SIG{word}"])
            words.append(word)
            time.sleep(self.chance.choice((0.0, 0.01, 0.15, 0.3)))  # prefork: ok (any moment of a boot)
        self.story = f"storm ({' '.join(words)})"
        self._settle()
        # What was ordered on the way, the last reload forgets.
        ready = self.server.count(r"arbiter gen=\d+ pid=\d+ ready")
        self.server.kill(signal.SIGHUP)
        eventually(lambda: self.server.count(r"arbiter gen=\d+ pid=\d+ ready") > ready, "a reload")
        self._settle()
        self.target = WORKERS
        self.base.pop("arbiter", None)
        if "USR2" in words:
            self.base.pop("supervisor", None)
        errors = (
            "was ended by SIG(KILL|TERM)|there is no other arbiter|an upgrade came first|reload failed, gen=.*SIGKILL"
            "|workers of it in a row did not start"
        )
        return Step(failures=deaths * len(self.clients), errors=errors)

    def _strike(self, word: str) -> None:
        supervisor = psutil.Process(self.server.pid)
        arbiters = [child for child in supervisor.children() if child.children() or word == "arbiter"]
        victim = self.chance.choice(arbiters)
        if word != "arbiter":
            victim = self.chance.choice(victim.children())
        if word == "stop":
            victim.suspend()
            time.sleep(0.1)  # prefork: ok (the standstill itself)
            victim.resume()
        else:
            victim.kill()

    def _settle(self) -> None:
        """Until one generation is left, and none is to come."""
        since = time.monotonic()

        def settled() -> bool:
            nonlocal since
            lines = "\n".join(self.server.lines)
            started = {1, *map(int, re.findall(r"gen=(\d+) pid=\d+ started$", lines, re.MULTILINE))}
            booting = started - set(map(int, re.findall(r"(?:arbiter|reload failed,) gen=(\d+) .*", lines)))
            self.number = max(started)
            children = [child.pid for child in psutil.Process(self.server.pid).children()]
            serving = re.search(rf"arbiter gen=(\d+) pid={children[0]} ready", lines) if len(children) == 1 else None
            if serving is None or booting:
                since = time.monotonic()
            else:
                self.generation = int(serving[1])
            return time.monotonic() - since > 0.2

        eventually(settled, "one generation is left, and none is to come", 20)

    def _new_generation(self) -> None:
        self.number += 1
        self.generation = self.number
        self.target = WORKERS
        self.base.pop("arbiter", None)
        self.server.ready(self.generation)

    def _boot_lines(self) -> tuple[str, str]:
        return rf"gen={self.generation} pid=\d+ started", rf"arbiter gen={self.generation} pid=\d+ ready"

    # -- what has to hold ----------------------------------------------------------------------------------------------

    def mark(self) -> None:
        self.seen = len(self.server.lines)
        self.before = [(len(client.failures), client.connections, client.answers) for client in self.clients]

    def check(self, step: Step) -> None:
        began = time.monotonic()
        eventually(self._at_strength, f"{self.target} workers of generation {self.generation}, and nothing else", 5)
        self.slowest = max(getattr(self, "slowest", 0.0), time.monotonic() - began)
        answers = [client.answers for client in self.clients]
        eventually(
            lambda: all(client.answers >= seen + 3 for client, seen in zip(self.clients, answers, strict=True)),
            "three more answers for each client",
            15,
        )
        self._check_clients(step)
        self._check_log(step)
        self._check_resources()

    def _at_strength(self) -> bool:
        """Supervisor, Arbiter, workers, each where it belongs; no zombie, no orphan."""
        supervisor = psutil.Process(self.server.pid)
        try:
            tree = {child.pid: (child.ppid(), child.status()) for child in supervisor.children(recursive=True)}
        except psutil.NoSuchProcess:
            return False
        workers = [pid for pid, (parent, _) in tree.items() if parent == self.arbiter]
        return (
            len(workers) == self.target
            and len(tree) == self.target + 1
            and all(status != psutil.STATUS_ZOMBIE for _, status in tree.values())
            and set(self.server.processes()) == {self.server.pid, *tree}
            and all(self.server.count(rf"worker=\d+ gen={self.generation} pid={pid} ready") for pid in workers)
        )

    def _check_clients(self, step: Step) -> None:
        wrong = [text for client in self.clients for text in client.wrong]
        assert not wrong, f"an answer to another question: {wrong}"
        fresh: list[str] = []
        for client, (failures, connections, _) in zip(self.clients, self.before, strict=True):
            fresh += client.failures[failures:]
            if client.keep_alive and not step.failures:
                assert client.connections == connections, f"a connection of {client.name} was closed"
        assert len(fresh) <= step.failures, f"{len(fresh)} requests failed, {step.failures} may: {fresh[:10]}"
        if step.failures < ANY:
            assert not [text for text in fresh if "refused" in text], fresh

    def _check_log(self, step: Step) -> None:
        lines = self.server.lines[self.seen :]
        for pattern in step.lines:
            eventually(
                lambda pattern=pattern: any(re.search(pattern, line) for line in self.server.lines[self.seen :]),
                f"the log tells {pattern!r}:\n" + "\n".join(lines),
                5,
            )
        lines = self.server.lines[self.seen :]
        for pattern in step.lines:
            told = [line for line in lines if re.search(pattern, line)]
            if "|" not in pattern:
                assert len(told) == 1, f"told {len(told)} times: {told}"
        for line in lines:
            assert not re.search(NEVER, line), line
            if re.search(r"\[(ERROR|CRITICAL)\]", line):
                assert step.errors and re.search(step.errors, line), f"nobody asked for {line!r}"
            assert step.tracebacks or "Traceback" not in line, "\n".join(lines)

    def _check_resources(self) -> None:
        """Descriptors and memory are back to what they were."""
        if "supervisor" not in self.base:
            # On a busy machine its Arbiter is ready before it has imported its own modules, and opened all it needs.
            eventually(lambda: _catches(self.server.pid, signal.SIGHUP), "the supervisor is up")
        for name, pid in (("supervisor", self.server.pid), ("arbiter", self.arbiter)):
            process = psutil.Process(pid)
            descriptors, rss = self.base.setdefault(name, (process.num_fds(), process.memory_info().rss))
            # The Arbiter has two for each worker.
            most = descriptors + (2 * 6 if name == "arbiter" else 0)
            eventually(lambda p=process, m=most: p.num_fds() <= m, f"{name} has {most} descriptors again", 5)
            assert process.memory_info().rss <= rss * 1.1 + 2 * MIB, (name, rss, process.memory_info().rss)
        for pid in self.workers():
            process = psutil.Process(pid)
            inherited, _ = self.base.setdefault("worker", (process.num_fds(), 0))
            assert process.num_fds() <= inherited + len(self.clients) + 4, process.num_fds()


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (proc_pid_status(5))."""
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


@contextlib.contextmanager
def _game(seed: int) -> Iterator[Game]:
    with tempfile.TemporaryDirectory(prefix="prefork-faults-") as folder:
        game = Game(seed, Path(folder))
        try:
            with contextlib.ExitStack() as stack:
                for client in game.clients:
                    stack.enter_context(client)
                yield game
        except BaseException as error:
            game.server.__exit__(type(error))
            raise
        else:
            assert game.server.stop() == 0
            game.server.__exit__(None)


def play(seed: int, steps: int, say: Callable[[str], None] = lambda text: None, only: tuple[str, ...] = ()) -> str:
    """Raises AssertionError with the sequence, its seed and the end of the log. What happened, in a sentence."""
    done: list[str] = []
    with _game(seed) as game:
        names = sorted(only or game.moves)
        try:
            game.mark()
            game.check(Step())
            for number in range(steps):
                name = game.chance.choice(names)
                done.append(name)
                game.mark()
                game.story = ""
                began = time.monotonic()
                game.check(game.moves[name]())
                done[-1] = game.story or name
                say(f"{number + 1:4d} {done[-1]}, {time.monotonic() - began:.1f} s")
        except Exception as error:
            done[-1:] = [game.story or done[-1]] if done else []
            tail = "\n".join(game.server.lines[max(0, game.seen - 10) :])
            raise AssertionError(f"seed {seed}, after {', '.join(done)}: {error!r}\n\n{tail}") from error
        failed = sum(len(client.failures) for client in game.clients)
        answered = sum(client.answers for client in game.clients)
        return (
            f"seed {seed}: {steps} steps, {answered} answers, {failed} requests failed where they may, "
            f"strength regained within {game.slowest:.1f} s"
        )


def moves() -> list[str]:
    return sorted(name.removeprefix("do_") for name in dir(Game) if name.startswith("do_"))
