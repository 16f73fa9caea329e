"""The pytest fixture `prefork_server`, for use with pytest-django; pytest finds it by its entry point.

Light: it is imported by every test run in an environment that has this package, before settings and coverage.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from django_prefork.test.server import PreforkServer

FIXTURE = "prefork_server"


@pytest.fixture(scope="session")
def prefork_options() -> dict[str, Any]:
    """Options of `prefork_server`, as in `settings.PREFORK`, and stronger; override it to have others."""
    return {}


@pytest.fixture(scope="session")
def prefork_server(request: pytest.FixtureRequest, prefork_options: dict[str, Any]) -> Generator[PreforkServer]:
    """The project, served by django-prefork in processes of its own. `prefork_server.url`, `prefork_server + "/path"`.

    Tests that use it get their database without a transaction around them, as with `live_server`. It is forked for the
    first test that asks for it: settings and patches of later tests do not reach it, unless they `restart()` it.
    """
    if not request.config.pluginmanager.hasplugin("django"):
        pytest.fail("The fixture prefork_server needs pytest-django: pip install pytest-django", pytrace=False)
    # Torn down after the server: databases cannot be removed while somebody is connected.
    request.getfixturevalue("django_db_setup")
    blocker: Any = request.getfixturevalue("django_db_blocker")

    from django.test.utils import modify_settings

    from django_prefork.test.server import PreforkServer

    server = PreforkServer(options=prefork_options)
    try:
        # The server is born with the settings and the permissions of this moment.
        with blocker.unblock(), modify_settings(ALLOWED_HOSTS={"append": server.host}):
            server.start()
        request.config.stash[_server] = server
        yield server
    finally:
        server.stop()


_server = pytest.StashKey["PreforkServer"]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The first test finds it new; later ones, when their predecessor's data is gone, have it made new."""
    server = item.config.stash.get(_server, None)
    if server is not None and FIXTURE in getattr(item, "fixturenames", ()):
        server.begin()


def pytest_itemcollected(item: pytest.Item) -> None:
    """What a test keeps in a transaction, the server cannot see."""
    if FIXTURE in getattr(item, "fixturenames", ()):
        marker = item.get_closest_marker("django_db")
        said = dict(marker.kwargs) if marker is not None else {}
        positional = marker.args[1:] if marker is not None else ()
        item.add_marker(
            pytest.mark.django_db(True, *positional, **{k: v for k, v in said.items() if k != "transaction"}),
            append=False,
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    server: PreforkServer | None = getattr(item, "funcargs", {}).get(FIXTURE)
    if server is not None:
        if report.failed and (said := server.report()):
            from django_prefork.test.server import HEADING

            report.sections.append((HEADING, said))
        if report.when == "teardown":
            server.forget()
    return report
