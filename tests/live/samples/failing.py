from __future__ import annotations

import requests

from django_prefork.test import PreforkLiveServerTestCase, PreforkServer


class WithACase(PreforkLiveServerTestCase):
    def test_boom(self) -> None:
        self.assertEqual(requests.get(f"{self.live_server_url}/boom/", timeout=30).status_code, 200)

    def test_two_parts(self) -> None:
        for path in ("greeting", "boom"):
            with self.subTest(path):
                self.assertEqual(requests.get(f"{self.live_server_url}/{path}/", timeout=30).status_code, 200)


def test_with_the_fixture(prefork_server: PreforkServer) -> None:
    assert requests.get(f"{prefork_server}/boom/", timeout=30).status_code == 200


def test_after_it(prefork_server: PreforkServer) -> None:
    assert requests.get(f"{prefork_server}/greeting/", timeout=30).status_code == 404
