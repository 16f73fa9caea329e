"""The test case with a server of its own."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from django.test import LiveServerTestCase
from django.utils.functional import classproperty

from django_prefork.test.server import PreforkServer, explain


class PreforkLiveServerTestCase(LiveServerTestCase):
    """Django's `StaticLiveServerTestCase`, with this server in place of its thread.

    The server is forked once for the class, in `setUpClass`: it has the settings, the patches and the test databases of
    that moment. What a single test overrides or patches later does not reach it, as it does not share memory: mail goes
    to its own outbox, and a cache in local memory is its own.

    `host` and `port` are Django's (0: one that the kernel chooses). `static_handler` None: static files are found as
    `runserver` finds them where `django.contrib.staticfiles` is installed, else under STATIC_ROOT.
    """

    #: Options as in `settings.PREFORK`, and stronger, such as `{"WORKERS": 1}`; two workers unless said otherwise.
    prefork: ClassVar[Mapping[str, Any]] = {}
    static_handler: Callable[..., Any] | None = None
    server: ClassVar[PreforkServer]

    @classproperty
    def live_server_url(cls) -> str:
        return cls.server.url

    # Django's hook for who serves; what is around it (settings, databases, clean-ups) stays Django's.
    @classmethod
    def _start_server_thread(cls) -> None:
        cls.server = PreforkServer(
            cls.host, cls.port, options=cls.prefork, static_handler=cls.static_handler, databases=cls.databases
        )
        # For what looks for Django's thread: `port` and `host` are there.
        cls.server_thread = cls.server
        cls.addClassCleanup(cls.server.stop)
        cls.server.start()

    # -- what the server said, in the report of the test that fails ----------------------------------------------------

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        try:
            return super().run(result)
        finally:
            self.server.forget()

    def _callSetUp(self) -> None:
        with explain(self.server):
            self.server.begin()
            super()._callSetUp()  # type: ignore[misc]

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        with explain(self.server):
            super()._callTestMethod(method)  # type: ignore[misc]

    @contextmanager
    def subTest(self, msg: Any = None, **params: Any) -> Iterator[None]:
        with super().subTest(msg, **params), explain(self.server):
            yield
