"""What every test of the board gets: a place of its own for uploads, and a cheap password hash."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_django import Settings


@pytest.fixture(autouse=True)
def uploads(settings: Settings, tmp_path: Path) -> Path:
    """The folder where uploads land; the demo's own data folder is never touched."""
    folder, temporary = tmp_path / "uploads", tmp_path / "tmp"
    temporary.mkdir()
    settings.MEDIA_ROOT = folder
    settings.FILE_UPLOAD_TEMP_DIR = temporary
    return folder


@pytest.fixture(autouse=True)
def cheap_passwords(settings: Settings) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
