"""The board's addresses."""

from __future__ import annotations

from django.urls import path

from . import views

app_name = "board"

urlpatterns = [
    path("", views.notices, name="notices"),
    path("notices/new/", views.new_notice, name="new_notice"),
    path("notices/<int:pk>/", views.notice, name="notice"),
    path("files/", views.files, name="files"),
    path("files/<int:pk>/", views.file, name="file"),
    path("files/<int:pk>/download/", views.download, name="download"),
    path("export.csv", views.export, name="export"),
    path("api/notices/", views.api_notices, name="api_notices"),
    path("api/files/<int:pk>/", views.api_file, name="api_file"),
    path("report/", views.report, name="report"),
    path("cpu/", views.cpu, name="cpu"),
    path("boom/", views.boom, name="boom"),
    path("whoami", views.whoami, name="whoami"),
]
