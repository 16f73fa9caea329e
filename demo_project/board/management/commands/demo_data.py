"""manage.py demo_data: something to look at on a new board."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.files.base import ContentFile
from django.core.management.base import BaseCommand
from django.db import transaction
from django.utils import timezone

from ...models import Measurement, Notice, SharedFile
from ...weather import readings

NOTICES: Final = 137  # seven pages, the last one not full
MEASUREMENTS: Final = 10_000

TEMPLATES: Final = (
    ("Lost: {colour} scarf", "I left it near {place} on {day}. It was a present, so I would dearly like it back."),
    (
        "Found: {colour} umbrella",
        "It was leaning against the railings at {place}. Describe the handle and it is yours.",
    ),
    ("For sale: {colour} bicycle", "Three gears, good brakes, new chain. To be seen at {place} on {day} after five."),
    ("Room to let near {place}", "Quiet, bright, with a desk and a view of the trees. Viewings on {day}."),
    (
        "Choir looks for tenors",
        "We rehearse on {day} evenings at {place}. No audition; reading music helps but is not needed.",
    ),
    ("Chess on {day}", "Boards and clocks are there from seven, at {place}. Beginners are very welcome."),
    ("Walk along the river", "We meet at {place} on {day} at nine. About twelve kilometres, with a stop for soup."),
    (
        "Free to a good home: {colour} sofa",
        "You carry it. Two flights of stairs, not far from {place}. Any time on {day}.",
    ),
    ("Repair café at {place}", "Bring what is broken on {day}. Last time we mended eleven toasters and one accordion."),
    (
        "Cat missing",
        "Answers to Pixel, wears a {colour} collar, was last seen near {place} on {day}. Please look in your shed.",
    ),
    ("Lessons in Portuguese", "One hour a week, {day} or by arrangement, at {place}. The first lesson costs nothing."),
    (
        "Seedlings to swap",
        "Tomatoes, beans and far too much basil. Find me at {place} on {day}, with the {colour} cart.",
    ),
    ("Water off on {day}", "Between nine and noon, in all the houses around {place}. Fill a kettle beforehand."),
    ("Book club", "This month something short. {day}, half past seven, {place}. Finishing it is not required."),
    ("Lift wanted", "Every {day} from {place} to the station, early. I share petrol and bring coffee."),
)
COLOURS: Final = ("blue", "green", "red", "grey", "yellow", "striped")
PLACES: Final = ("the library", "Mill Pond", "the old market", "the harbour", "Hill Road", "the town hall")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
AUTHORS: Final = ("Ada", "Björn", "Chidi", "Dolores", "Emeka", "Fatima", "Grete", "Hiroshi", "Ines", "")

WELCOME: Final = """\
Everything here can be tried out: post a notice, share a file, sign in to the admin.

The addresses at the foot of every page give the server something to do. The report waits, the busy loop computes, \
the export streams a hundred thousand lines, and one page always fails.
"""


class Command(BaseCommand):
    help = (
        "Fills an empty board with sample data and makes the superuser admin (password admin). "
        "What is already there stays as it is, so it can be run again."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        with transaction.atomic():
            if not Notice.objects.exists():
                Notice.objects.bulk_create(sample_notices())
            if not Measurement.objects.exists():
                rows = (Measurement(**row._asdict()) for row in islice(readings(), MEASUREMENTS))
                Measurement.objects.bulk_create(rows, batch_size=1000)
            if not SharedFile.objects.exists():
                SharedFile(file=ContentFile(WELCOME.encode(), name="welcome.txt")).save()
            users = get_user_model().objects
            new_admin = not users.filter(username="admin").exists()
            if new_admin:
                users.create_superuser("admin", "admin@example.com", "admin")
        self.stdout.write(
            f"Sample data: {Notice.objects.count()} notices, {Measurement.objects.count()} measurements, "
            f"{SharedFile.objects.count()} files."
        )
        if new_admin:
            self.stdout.write(
                "Sign in at /admin/ as admin with the password admin. Only for a demo: change it elsewhere."
            )
        else:
            self.stdout.write("The user admin was already there and keeps its password (admin, unless you changed it).")


def sample_notices() -> Iterator[Notice]:
    """A welcome on top and, below it, NOTICES - 1 others some hours apart; the same ones every time."""
    chance = random.Random(1)
    posted = timezone.now()
    yield Notice(title="Welcome to the board", body=WELCOME.strip(), author="admin", pinned=True, created_at=posted)
    for number in range(NOTICES - 1):
        title, body = TEMPLATES[number % len(TEMPLATES)]
        words = {"colour": chance.choice(COLOURS), "place": chance.choice(PLACES), "day": chance.choice(DAYS)}
        posted -= timedelta(minutes=chance.randrange(40, 600))
        yield Notice(
            title=title.format(**words),
            body=body.format(**words),
            author=chance.choice(AUTHORS),
            created_at=posted,
        )
