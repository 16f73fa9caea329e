"""The dashboard's face to Django."""

from __future__ import annotations

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    name = "django_prefork.dashboard"
    label = "prefork"
    verbose_name = "Prefork"
    default_auto_field = "django.db.models.BigAutoField"
