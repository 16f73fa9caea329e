"""Test runs that use the server: by pytest and by Django's own runner, good, failing and killed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.harness import PATIENCE, ROOT, eventually

SAMPLES = ROOT / "tests" / "live" / "samples"


class Run:
    """A test run in a session of its own."""

    def __init__(
        self, folder: Path, command: list[str], database: str | None = "test.sqlite3", settings: str = "tests.live.site"
    ) -> None:
        # Where bytecode is not written, the plugins of pytest alone would be compiled for seconds, in each run.
        other = ("PYTEST_", "PREFORK_", "PYTHONDONTWRITEBYTECODE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(other)}
        environment |= {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": settings}
        if database:
            environment["SITE_TEST_DATABASE"] = str(folder / database)
        self.mark = environment["TESTS_RUN"] = str(uuid.uuid4())
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )

    def left(self) -> list[int]:
        """All that began with it, even in a session of its own, as browsers have processes: by the environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                its = os.getsid(process.pid) == self.process.pid or process.environ().get("TESTS_RUN") == self.mark
                if its and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return found

    def kill(self) -> None:
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Exit status and output, once it has ended by itself; nothing of it may be left."""
        output, _ = self.process.communicate(timeout=3 * PATIENCE)
        assert not self.left(), output
        return self.process.returncode, output


@contextlib.contextmanager
def running(folder: Path, *command: str, database: str | None = "test.sqlite3") -> Iterator[Run]:
    run = Run(folder, list(command), database)
    try:
        yield run
    finally:
        run.kill()


def pytest_of(*words: str) -> tuple[str, ...]:
    samples = (str(SAMPLES / word) if word.endswith(".py") else word for word in words)
    return ("-m", "pytest", "-c", str(SAMPLES / "pytest.ini"), "-p", "no:hypothesispytest", *samples)


def run_of_django(sample: str, *more: str) -> tuple[str, ...]:
    return (
        "-W",
        "error",
        "-m",
        "django",
        "test",
        f"tests.live.samples.{sample}",
        "--top-level-directory",
        str(ROOT),
        *more,
    )


def test_the_case_under_djangos_own_runner_in_two_processes(tmp_path: Path) -> None:
    with running(tmp_path, *run_of_django("cases", "--parallel", "2")) as run:
        status, output = run.end()
    assert status == 0, output
    assert "Ran 6 tests" in output


def test_under_pytest_each_process_of_xdist_has_its_own_and_reports_tell_what_it_said(tmp_path: Path) -> None:
    with running(tmp_path, *pytest_of("-n", "2", "good.py", "failing.py")) as run:
        status, output = run.end()
    assert status == 1, output
    assert not list(tmp_path.glob("test.sqlite3*"))
    assert {line.split()[1].rpartition("::")[2] for line in output.splitlines() if line.startswith("FAILED")} == {
        "test_boom",
        "test_two_parts",
        "test_with_the_fixture",
        "test_after_it",
    } - ({"test_two_parts"} if "SUBFAILED" in output else set()), output
    reports = output.partition("= short test summary")[0].split("____ ")
    for name in ("WithACase.test_boom", "test_with_the_fixture"):
        (report,) = (part for part in reports if part.startswith(name))
        assert "What the server said during this test" in report
        assert "RuntimeError: this view always raises" in report
        assert "printed before the end" in report
        assert "GET /boom/ 500" in report
    # What belongs to one test is not told of another.
    (report,) = (part for part in reports if part.startswith("test_after_it"))
    assert "GET /greeting/ 200" in report and "boom" not in report


def test_what_the_server_said_is_in_the_report_of_djangos_runner(tmp_path: Path) -> None:
    with running(tmp_path, *run_of_django("failing")) as run:
        status, output = run.end()
    assert status == 1, output
    assert output.count("What the server said during this test") == 2  # the case's two: of one, a part
    assert output.count("RuntimeError: this view always raises") == 2


def test_a_database_in_memory_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with running(tmp_path, *run_of_django("cases"), database=None) as run:
        status, output = run.end()
    assert status == 1, output
    assert "'default' is SQLite in memory" in output
    assert '"TEST": {"NAME": BASE_DIR / "test.sqlite3"}' in output


def test_nothing_is_left_of_a_run_that_was_killed(tmp_path: Path) -> None:
    with running(tmp_path, *pytest_of("stuck.py")) as run:
        eventually((tmp_path / ".pid").exists, "the test is under way")
        assert len(run.left()) >= 4  # itself, the Arbiter, its workers, what a view started
        run.process.kill()
        run.process.wait()
        eventually(lambda: not run.left(), "all of its processes are gone")
