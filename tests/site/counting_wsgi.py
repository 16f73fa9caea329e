"""The project's own application, with its metrics made before the fork."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

from tests.site import counting  # noqa: F401

application = get_wsgi_application()
