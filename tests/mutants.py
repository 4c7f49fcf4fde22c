"""How many of mutmut's mutants the tests noticed, by room; fails below the least that is allowed.

Run after ``mutmut run``, as ``nox -s mutants`` does.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

LEAST = 0.85
NOTICED = {"killed", "timeout", "segfault", "suspicious"}


def verdicts() -> dict[str, Counter[str]]:
    """For each room, how many mutants came to which end."""
    done = subprocess.run(
        ["mutmut", "results", "--all", "true"], capture_output=True, text=True, check=True
    )
    rooms: dict[str, Counter[str]] = {}
    for line in done.stdout.splitlines():
        name, _, verdict = line.strip().rpartition(": ")
        if name.startswith("trigear."):
            rooms.setdefault(name.split(".")[1], Counter())[verdict] += 1
    return rooms


def main() -> int:
    failed = False
    for room, ends in sorted(verdicts().items()):
        rate = sum(ends[end] for end in NOTICED) / ends.total()
        print(f"{room}: {rate:.1%} of {ends.total()} noticed ({dict(ends)})")
        failed = failed or rate < LEAST or bool(ends["not checked"])
    if failed:
        print(f"at least {LEAST:.0%} of each room's mutants, all checked, is what is asked for")
        print("`mutmut results` lists those that lived, `mutmut show NAME` shows one")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
