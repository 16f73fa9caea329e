"""Random sequences of faults: `python -m tests.faults --steps 200 --seed 1`; ends with 1 if something does not hold.

With `--only` the sequence is made of these moves alone.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.faults import sequence


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="else the time gives one")
    parser.add_argument("--only", nargs="+", default=(), choices=sequence.moves())
    parser.add_argument("--quiet", action="store_true", help="say only how it ended")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    try:
        told = sequence.play(
            seed, options.steps, (lambda _: None) if options.quiet else lambda t: print(t, flush=True), options.only
        )
    except AssertionError as error:
        print(error, flush=True)
        return 1
    print(f"{told}, {time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
