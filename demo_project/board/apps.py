"""The notice board as Django's app registry knows it."""

from __future__ import annotations

from django.apps import AppConfig


class BoardConfig(AppConfig):
    name = "demo_project.board"
    verbose_name = "Notice board"
