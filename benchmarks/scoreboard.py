"""python -m benchmarks.scoreboard: what it costs a request that the scoreboard tells of it, in process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from django_prefork.scoreboard import Scoreboard

_ROUNDS = 15
_TIMES = 100_000


def main() -> None:
    row = Scoreboard.create(4).row(0)
    label, line, name = b"192.0.2.7\n", b"GET /notices/17?page=2 HTTP/1.1", b"board.views.notice"

    def nothing() -> None:
        label + line

    def told() -> None:
        row.waited(0.0)
        row.begin(label + line, 1000.0)
        row.received += 400
        row.sent += 5000
        row.end(1000.5, 0.5, 200, 5000)

    def told_with_its_view() -> None:
        told()
        row.view(name)

    cases: tuple[Callable[[], None], ...] = (nothing, told, told_with_its_view)
    costs: dict[str, list[float]] = {case.__name__: [] for case in cases}
    for _ in range(_ROUNDS):
        for case in cases:
            began = time.process_time()
            for _ in range(_TIMES):
                case()
            costs[case.__name__].append((time.process_time() - began) / _TIMES * 1e6)
    empty = statistics.median(costs["nothing"])
    for case in cases[1:]:
        print(f"{case.__name__}: {statistics.median(costs[case.__name__]) - empty:.2f} us a request")


if __name__ == "__main__":
    main()
