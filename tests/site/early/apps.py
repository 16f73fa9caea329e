from __future__ import annotations

import threading

from django.apps import AppConfig


class EarlyConfig(AppConfig):
    name = "tests.site.early"

    def ready(self) -> None:
        threading.Thread(target=threading.Event().wait, name="early", daemon=True).start()
