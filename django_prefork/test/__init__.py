"""Tests on the real server: an Arbiter and workers in processes of their own, as in production.

`PreforkLiveServerTestCase` takes the place of Django's `StaticLiveServerTestCase`; for pytest there is the fixture
`prefork_server` (`django_prefork.pytest_plugin`). Both use `PreforkServer`.
"""

from __future__ import annotations

from django_prefork.test.case import PreforkLiveServerTestCase
from django_prefork.test.server import PreforkServer, ServerError

__all__ = ["PreforkLiveServerTestCase", "PreforkServer", "ServerError"]
