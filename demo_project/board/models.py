"""What the board remembers: notices, shared files and weather measurements."""

from __future__ import annotations

import hashlib
from typing import Any

from django.db import models, transaction
from django.db.models.signals import post_delete
from django.dispatch import receiver
from django.urls import reverse
from django.utils import timezone


class Notice(models.Model):
    """Something that somebody pinned to the board."""

    title = models.CharField(max_length=120)
    body = models.TextField("text", max_length=4000)
    author = models.CharField("your name", max_length=60, blank=True)
    pinned = models.BooleanField(default=False, help_text="Pinned notices stay on top.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        # The key comes last so that notices of the same instant keep their places from page to page.
        ordering = ("-pinned", "-created_at", "-pk")
        indexes = (models.Index(fields=("-pinned", "-created_at", "-id"), name="board_notice_order"),)

    def __str__(self) -> str:
        return self.title

    def get_absolute_url(self) -> str:
        return reverse("board:notice", args=(self.pk,))


class SharedFile(models.Model):
    """An uploaded file, with its length in bytes and its SHA-256 (hex) as they were when it arrived."""

    file = models.FileField(max_length=255)
    # The name the visitor gave; the name on disk gets a suffix where two visitors chose the same.
    name = models.CharField(max_length=255, editable=False)
    size = models.PositiveBigIntegerField(editable=False)
    sha256 = models.CharField("SHA-256", max_length=64, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("-created_at", "-pk")

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("board:file", args=(self.pk,))

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self._state.adding:
            # Before super() moves the upload to its place: these are facts about the bytes that came in.
            digest = hashlib.sha256()
            for chunk in self.file.chunks():
                digest.update(chunk)
            self.name = self.file.name
            self.size = self.file.size
            self.sha256 = digest.hexdigest()
        super().save(*args, **kwargs)


@receiver(post_delete, sender=SharedFile)
def delete_stored_bytes(instance: SharedFile, **kwargs: Any) -> None:
    """Remove the file from disk once its row is gone for good; a rollback must leave both."""
    storage, name = instance.file.storage, instance.file.name
    transaction.on_commit(lambda: storage.delete(name))


class Measurement(models.Model):
    """One reading of one weather station: degrees Celsius and per cent of relative humidity."""

    station = models.CharField(max_length=40)
    taken_at = models.DateTimeField()
    temperature = models.FloatField()
    humidity = models.FloatField()

    class Meta:
        ordering = ("pk",)
        indexes = (models.Index(fields=("station", "taken_at"), name="board_measurement_station"),)

    def __str__(self) -> str:
        return f"{self.station} {self.taken_at:%Y-%m-%d %H:%M}"
