"""The app's face to Django."""

from __future__ import annotations

from django.apps import AppConfig

from django_prefork.management import first_start

first_start.expect_the_worst()


class PreforkConfig(AppConfig):
    name = "django_prefork"
    verbose_name = "Prefork"

    def ready(self) -> None:
        from django_prefork import checks  # noqa: F401 - it registers them
