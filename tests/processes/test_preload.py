"""What happens before the first fork, and between that and a worker."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from django_prefork.worker import prefault
from tests.harness import PATIENCE, Server, eventually


@contextmanager
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock.getsockname()[1]


def test_warm_up_asks_paths_and_calls_functions_once_in_the_arbiter() -> None:
    with Server(
        *("--workers", "2", "--warmup", "/?a=1,tests.site.warm.fill,tests.site.warm:fill", "--verbosity", "2"),
        application="warm.application",
        environment={"TEST_ALLOWED_HOSTS": ".example.org,other.example"},
    ).ready() as server:
        arbiter = server.arbiter()
        assert server.count(rf"^asked {arbiter} http example\.org /\?a=1$") == 1
        assert server.count(rf"^filled {arbiter}$") == 2
        # A process that is gone asks the path once more, and calls nothing.
        assert server.count(r"^asked|^filled") == (4 if prefault.available() else 3)
        phases = server.wait_for(r"^Loaded: (.*)$")[1]
        names = ["setup", "checks", "application", "urls", "templates", "static files", "translations", "warm-up"]
        assert re.fullmatch(", ".join(rf"{name} \d+\.\d s" for name in [*names, "freeze", "rehearsal"]), phases)
    with Server("--workers", "1").ready() as server:
        assert server.count("^Loaded") == 0


def test_warm_up_comes_by_https_where_the_project_redirects_to_it() -> None:
    environment = {"TEST_HTTPS": "1", "TEST_ALLOWED_HOSTS": "*"}
    with Server("--workers", "1", "--warmup", "/", application="warm.application", environment=environment) as server:
        server.ready()
        assert server.count(rf"^asked {server.arbiter()} https localhost /$") == 1


def test_what_fails_to_warm_up_is_named_and_keeps_nobody_from_serving() -> None:
    items = "/boom/,/nowhere,/exits,tests.site.warm.spill,tests.site.warm.none,tests.site.warm.fill"
    options = ("--warmup", items)
    errors = r"warm-up|Internal|failed"
    with Server("--workers", "1", *options, application="warm.application", errors=errors) as server:
        server.ready()
        assert server.count(r"\[ERROR\] warm-up of /boom/ failed: it was answered with status 500") == 1
        assert server.count(r"\[ERROR\] warm-up of /nowhere failed: it was answered with status 404") == 1
        for item in ("/exits", r"tests\.site\.warm\.spill", r"tests\.site\.warm\.none"):
            assert server.count(rf"\[ERROR\] warm-up of {item} failed$") == 1
        assert server.count("RuntimeError: the cache has a hole") == 1
        assert server.count("^filled") == 1
        assert server.get("/")[0] == 200
    with Server("--check", *options, bind=None, application="warm.application", errors=errors) as server:
        assert server.wait() == 1
        assert server.count("The warm-up failed") == 1


@pytest.mark.parametrize("path", ["/slow/?s=3600", "/spin/", "/catastrophe/", "/endless", "/stubborn/?give_up=2"])
def test_a_path_that_does_not_end_is_ended_and_the_server_serves(path: str) -> None:
    with Server(
        *("--workers", "1", "--warmup", f"{path},/", "--timeout", "0.5"),
        application="warm.application",
        errors="warm-up of /|Internal Server Error|the application failed",
    ) as server:
        server.ready()
        assert server.count(rf"\[ERROR\] warm-up of {re.escape(path)} failed: it took longer than 0\.5 s$") == 1
        assert server.count(r"\[ERROR\] warm-up of") == 1
        assert server.count(rf"^asked {server.arbiter()} http localhost /$") == 1
        assert server.get("/")[0] == 200
        # What the Arbiter had for it is not the workers' to stumble over.
        assert server.get("/short/?s=0")[0] == 200


def test_a_view_s_own_limit_holds_in_the_warm_up() -> None:
    errors = "warm-up of /short/|Internal Server Error"
    options = ("--workers", "1", "--warmup", "/endless/?s=1,/patient/?more=30&s=1,/short/?s=3600", "--timeout", "0.5")
    with Server(*options, application="warm.application", errors=errors) as server:
        server.ready()
        assert server.count(r"\[ERROR\] warm-up of /short/\?s=3600 failed: it took longer than 0\.3 s$") == 1


def test_without_a_timeout_a_start_has_one() -> None:
    options = ("--workers", "1", "--warmup", "/spin/", "--timeout", "0", "--boot-timeout", "0.5")
    with Server(*options, application="warm.application", errors="warm-up of /spin|Internal|not ready after") as server:
        server.wait_for(r"\[ERROR\] warm-up of /spin/ failed: it took longer than 0\.5 s$")


@pytest.mark.parametrize("path", ["/stubborn/", "/locked", "/locked?lock"])
def test_a_path_that_nothing_can_end_ends_the_start(path: str, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    options = ("--warmup", path, "--timeout", "0.3", "--timeout-grace", "0.3")
    environment = {"TEST_LOCK": str(lock)}
    errors = "does not end|exited with status 1"
    with Server(
        "--workers", "1", *options, application="warm.application", environment=environment, errors=errors
    ) as server:
        assert server.wait() == 1
        if path == "/locked?lock":  # nobody can say it, but that it stood there
            assert server.count(r"^Timeout \(") == 1 and server.count(r'warm\.py", line \d+ in application') == 1
        else:
            says = f"warm-up of {path} does not end, not even by an exception: this start does"
            assert server.count(rf"\[ERROR\] {says}$") == 1
        assert server.count(r"\[ERROR\] the arbiter gen=1 pid=\d+ exited with status 1 before it was ready$") == 1
    with Server(
        "--check", *options, bind=None, application="warm.application", environment=environment, errors=errors
    ) as server:
        assert server.wait() == 1


def test_a_reload_that_does_not_end_leaves_the_old_code(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with Server(
        *("--workers", "1", "--warmup", "/locked", "--timeout", "0.3", "--timeout-grace", "0.3"),
        application="warm.application",
        environment={"TEST_LOCK": str(lock)},
        errors="warm-up of /locked|reload failed",
    ) as server:
        server.wait_for("warm-up of /locked failed: it was answered with status 404")
        server.ready()
        lock.touch()
        server.kill(signal.SIGHUP)
        server.wait_for(r"\[ERROR\] warm-up of /locked does not end")
        server.wait_for(r"\[ERROR\] reload failed, gen=2 exited with status 1: the old code serves on")
        assert server.get("/")[0] == 200


def test_a_function_that_takes_long_is_named() -> None:
    with Server(
        *("--workers", "1", "--warmup", "tests.site.warm.drag", "--timeout", "0.1", "--boot-timeout", "1"),
        application="warm.application",
        environment={"TEST_DRAG": "3.5"},
        errors="not ready after",
    ) as server:
        says = r"warm-up of tests\.site\.warm\.drag still runs after \d\.\d s: nobody is served before it ends$"
        server.wait_for(rf"\[WARNING\] {says}")
        server.wait_for(r"arbiter gen=1 pid=\d+ ready")
        assert server.count(says) == 1 and server.count("warm-up of") == 1


def test_a_child_that_the_warm_up_forks_does_not_come_back_to_serve() -> None:
    # The harness sees to it that nobody is left.
    options = ("--workers", "1", "--warmup", "/?fork,tests.site.warm.fork,/")
    with Server(*options, application="warm.application") as server:
        server.ready()
        assert server.count(rf"^asked {server.arbiter()} http localhost /$") == 1
        assert server.count("^asked .* /$") == (2 if prefault.available() else 1)
        assert server.count("ready: 1 workers") == 1


def test_an_urlconf_that_does_not_import_is_found_before_the_first_fork() -> None:
    environment = {"TEST_URLCONF": "tests.site.nowhere"}
    with Server(
        "--skip-checks", "--workers", "1", application="warm.application", environment=environment, errors="exited"
    ) as server:
        assert server.wait() == 1
        assert server.count("ModuleNotFoundError: No module named 'tests.site.nowhere'") == 1


def test_threads_and_connections_that_workers_will_miss_are_named_once() -> None:
    with listening() as port:
        environment = {"TEST_PEER": str(port)}
        with Server(
            "--workers", "2", application="preloads.application", environment=environment, errors="was ended by SIGKILL"
        ).ready() as server:
            workers = server.full_strength(2)
            server.kill(signal.SIGKILL, workers[0])
            server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=3)
            advice = r"in a receiver of django_prefork\.signals\.post_fork$"
            for what in (
                r"thread 'exporter' \(tests\.site\.preloads\.export_for_ever\) was started before the fork",
                r"thread 'pool_0' \(concurrent\.futures\.thread\._worker, of tests\.site\.preloads\) was started",
                r"thread 'Thread-\d+' \(tests\.site\.preloads\.export_for_ever\) was started",
                rf"a connection to 127\.0\.0\.1:{port} was opened before the fork",
            ):
                assert server.count(rf"\[WARNING\] {what}.*{advice}") == 1, what
            # Nothing of the server's own, and no pair within the process.
            assert server.count(r"\[WARNING\]") == 4, server.log


def test_workers_draw_different_numbers_and_what_is_registered_for_a_fork_is_called() -> None:
    with (
        listening() as port,
        Server(
            "--workers", "3", application="preloads.application", environment={"TEST_PEER": str(port)}
        ).ready() as server,
    ):
        seen: dict[int, float] = {}
        while len(seen) < 3:
            answer = json.loads(server.get("/")[1])
            seen.setdefault(answer["pid"], answer["drawn"])
            assert answer["forks"] == [answer["pid"]]
        assert len(set(seen.values())) == 3


def test_pre_fork_is_sent_in_the_arbiter_before_each_fork() -> None:
    with (
        listening() as port,
        Server(
            "--workers", "2", application="preloads.application", environment={"TEST_PEER": str(port)}
        ).ready() as server,
    ):
        slots = set()
        for number in (1, 2):
            said = server.wait_for(r"^pre_fork in (\d+) slot=(\d+) generation=(\d+)$", times=number)
            assert (int(said[1]), said[3]) == (server.arbiter(), "1")
            slots.add(said[2])
        assert len(slots) == 2


def test_a_thread_that_an_app_starts_is_named_in_every_generation() -> None:
    with Server("--workers", "1", environment={"TEST_APP": "tests.site.early"}).ready() as server:
        # It ends at the very first fork, before there is a log.
        assert server.count(r"\[WARNING\] thread 'early' \(threading\.Event\.wait\) was started before the fork") == 1
        server.kill(signal.SIGHUP)
        server.ready(2)
        assert server.count(r"\[WARNING\] thread 'early' \(threading\.Event\.wait\) was started before the fork") == 2


def litter(server: Server, circles: int, times: int) -> dict[str, int]:
    """What the last of `times` requests that leave as many circles of objects says of the collector."""
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    answer: dict[str, int] = {}
    for _ in range(times):
        client.request("GET", f"/?circles={circles}")
        answer = json.loads(client.getresponse().read())
    client.close()
    return answer


def test_garbage_is_collected_between_requests_and_not_within() -> None:
    with Server("--workers", "1", application="litter.application").ready() as server:
        first = litter(server, 300, 20)
        later = litter(server, 300, 300)
        assert later["within"] == 0
        # Python collects for every 700 objects, which is what three requests make; it may be done behind the next one.
        assert later["between"] - first["between"] >= 300 // 4
        assert later["left"] < first["left"] + 10_000, "it is collected as fast as it comes"
        # More than one request may leave: Python's own way again.
        assert litter(server, 100_000, 2)["within"] > 0


def test_the_collector_can_be_left_as_python_has_it() -> None:
    with Server(
        "--workers", "1", "--collect-between-requests", "off", application="litter.application"
    ).ready() as server:
        assert litter(server, 1000, 20)["within"] > 0


def test_who_asks_for_the_status_is_no_connection_of_the_project() -> None:
    with Server("--workers", "1", "--status-bind", "127.0.0.1:0", errors="was ended by SIGKILL") as server:
        server.ready()
        arbiter = psutil.Process(server.arbiter())
        (status,) = {found.laddr.port for found in arbiter.net_connections("inet")} - {server.port}
        with socket.create_connection(("127.0.0.1", status), timeout=PATIENCE) as sock:
            sock.sendall(b"GET /ready HTTP/1.1\r\n")  # and no more, for the moment
            eventually(lambda: any(found.raddr for found in arbiter.net_connections("inet")), "it was accepted")
            server.kill(signal.SIGKILL, server.full_strength(1)[0])
            server.wait_for(r"worker=\d+ gen=1 pid=\d+ ready", times=2)
        assert server.count(r"\[WARNING\]") == 0
