"""The three tables, as makemigrations wrote them."""

# ruff: noqa: RUF012 -- Django reads a migration's lists and never writes to them
from __future__ import annotations

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="SharedFile",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("file", models.FileField(max_length=255, upload_to="")),
                ("name", models.CharField(editable=False, max_length=255)),
                ("size", models.PositiveBigIntegerField(editable=False)),
                ("sha256", models.CharField(editable=False, max_length=64, verbose_name="SHA-256")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ("-created_at", "-pk"),
            },
        ),
        migrations.CreateModel(
            name="Measurement",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("station", models.CharField(max_length=40)),
                ("taken_at", models.DateTimeField()),
                ("temperature", models.FloatField()),
                ("humidity", models.FloatField()),
            ],
            options={
                "ordering": ("pk",),
                "indexes": [models.Index(fields=["station", "taken_at"], name="board_measurement_station")],
            },
        ),
        migrations.CreateModel(
            name="Notice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("title", models.CharField(max_length=120)),
                ("body", models.TextField(max_length=4000, verbose_name="text")),
                ("author", models.CharField(blank=True, max_length=60, verbose_name="your name")),
                ("pinned", models.BooleanField(default=False, help_text="Pinned notices stay on top.")),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
            ],
            options={
                "ordering": ("-pinned", "-created_at", "-pk"),
                "indexes": [models.Index(fields=["-pinned", "-created_at", "-id"], name="board_notice_order")],
            },
        ),
    ]
