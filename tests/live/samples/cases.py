from __future__ import annotations

import unittest.mock
from typing import ClassVar

import requests
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.test import override_settings

from django_prefork.test import PreforkLiveServerTestCase
from tests.live import site


@override_settings(GREETING="overridden")
class Settings(PreforkLiveServerTestCase):
    def test_those_of_the_class_hold(self) -> None:
        self.assertEqual(requests.get(f"{self.live_server_url}/greeting/", timeout=30).text, "overridden")


class Patches(PreforkLiveServerTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(unittest.mock.patch.object(site.time, "sleep", lambda seconds: None))
        super().setUpClass()

    def test_those_of_the_class_hold(self) -> None:
        # It would sleep for ten minutes.
        self.assertEqual(requests.get(f"{self.live_server_url}/stuck/", timeout=30).status_code, 500)


class Data(PreforkLiveServerTestCase):
    def setUp(self) -> None:
        User.objects.create(username="ada")

    def test_both_sides_write(self) -> None:
        self.assertEqual(requests.get(f"{self.live_server_url}/users/?add=bob", timeout=30).json(), ["ada", "bob"])
        self.assertEqual(User.objects.count(), 2)

    def test_each_test_begins_anew(self) -> None:
        self.assertEqual(requests.get(f"{self.live_server_url}/users/", timeout=30).json(), ["ada"])


class Memory(PreforkLiveServerTestCase):
    """The rows of content types get other ids after each test; who cached them would be wrong."""

    prefork: ClassVar = {"WORKERS": 1}

    def look(self) -> None:
        for time in (1, 2):
            pk, asked = requests.get(f"{self.live_server_url}/remembers/", timeout=30).json()
            self.assertEqual(pk, ContentType.objects.filter(model="user").values_list("pk", flat=True).get())
            self.assertEqual(asked, time)

    def test_one(self) -> None:
        self.look()

    def test_two(self) -> None:
        self.look()
