from __future__ import annotations

import threading
import time

import requests

from django_prefork.test import PreforkServer


def test_that_is_killed(prefork_server: PreforkServer) -> None:
    answer = requests.get(f"{prefork_server}/left_behind/", timeout=30)
    threading.Thread(target=requests.get, args=(f"{prefork_server}/stuck/",), daemon=True).start()
    while "GET /left_behind/" not in prefork_server.said():
        time.sleep(0.01)
    with open(".pid", "w") as file:
        file.write(answer.text)
    time.sleep(600)
