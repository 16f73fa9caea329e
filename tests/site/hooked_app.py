"""An app whose receivers say what they hear, in a project that Django's own handler serves."""

from __future__ import annotations

from tests.site.hearing import hear

hear("request_timed_out", "pid", "request", "view", "client", "request_id")
