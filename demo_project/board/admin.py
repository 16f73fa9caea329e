"""The board's models in Django's admin."""

from __future__ import annotations

from django.contrib import admin
from django.http import HttpRequest

from .models import Measurement, Notice, SharedFile


@admin.register(Notice)
class NoticeAdmin(admin.ModelAdmin):
    list_display = ("title", "author", "pinned", "created_at")
    list_editable = ("pinned",)
    list_filter = ("pinned",)
    search_fields = ("title", "body", "author")
    date_hierarchy = "created_at"


@admin.register(SharedFile)
class SharedFileAdmin(admin.ModelAdmin):
    list_display = ("name", "size", "sha256", "created_at")
    search_fields = ("name", "sha256")
    readonly_fields = ("name", "size", "sha256", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: SharedFile | None = None) -> tuple[str, ...]:
        # A stored file is not exchanged under its digest; upload another one instead.
        return self.readonly_fields if obj is None else ("file", *self.readonly_fields)


@admin.register(Measurement)
class MeasurementAdmin(admin.ModelAdmin):
    list_display = ("station", "taken_at", "temperature", "humidity")
    list_filter = ("station",)
    date_hierarchy = "taken_at"
