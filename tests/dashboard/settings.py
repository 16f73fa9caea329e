"""The demo project, with a policy that forbids inline scripts and styles on every page."""

from __future__ import annotations

from demo_project.settings import *  # noqa: F403
from demo_project.settings import MIDDLEWARE

MIDDLEWARE = ["tests.dashboard.policy.strict", *MIDDLEWARE]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
