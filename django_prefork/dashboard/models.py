"""A model without a table: it is what the admin lists, and what the permission `prefork.view_server` belongs to."""

from __future__ import annotations

from django.db import models


class Nothing(models.Manager["Server"]):
    """`dumpdata` asks every model, those without a table, too."""

    def get_queryset(self) -> models.QuerySet[Server]:
        return super().get_queryset().none()


class Server(models.Model):
    objects = Nothing()

    class Meta:
        managed = False
        default_permissions = ("view",)
        base_manager_name = "objects"
        verbose_name = verbose_name_plural = "Server"
