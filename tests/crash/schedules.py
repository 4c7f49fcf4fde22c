"""Kill a server around the moments at which its schedules run: `python -m tests.crash.schedules`.

Some hundreds of schedules are due every second, all at the same moment, and make jobs that nobody
does. The server is killed with SIGKILL a little before or after that moment and started again. In
the end:

* each schedule counts as many runs as there are jobs of it in the store: none was lost between the
  two, none was made without being counted;
* between two due times no schedule has run more than once;
* no two jobs have one handle, and every schedule is there under the handle that was acknowledged;
* after each start every schedule has run again: the one run that makes up for what was missed.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.process import DurableServer

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULES = 600

BEFORE, AFTER = 0.005, 0.05
"""Seconds around a due time in which the kills come."""

PATIENCE = 60.0
"""Seconds in which every schedule has to run again."""


class ScheduleCrash:
    """One series of kills; arguments as of :class:`tests.crash.run.Crash`."""

    def __init__(
        self,
        folder: Path,
        kills: int,
        chance: random.Random,
        say: Callable[[str], object] = lambda _text: None,
    ) -> None:
        self.server = DurableServer(folder)
        self._kills = kills
        self._chance = chance
        self._say = say
        self.handles: dict[str, str] = {}
        """The acknowledged handle of each schedule."""
        self.strange: list[str] = []
        self.cut = 0
        """Kills at which some schedules had run for that second and others had not."""

    def run(self) -> list[str]:
        """Do it all; returns what was wrong."""
        try:
            self.server.start()
            self._add()
            for number in range(self._kills):
                self._wait_for_runs()
                now = time.time()
                due = self._since + int(now - self._since) + 2
                moment = due + self._chance.uniform(-BEFORE, AFTER)
                # Nothing sets it: the moment of the kill is chance alone.
                threading.Event().wait(moment - now)
                self.server.kill()
                counts = set(self._counted().values())
                self.cut += len(counts) > 1
                self._say(f"kill {number + 1}: each schedule has run {sorted(counts)} times")
                self.server.start()
            self._wait_for_runs()
            self.server.stop()
            return [*self.strange, *self.faults()]
        finally:
            self.server.kill()

    def _add(self) -> None:
        """Have the schedules, all due at the same moments as far as that goes."""
        names = [f"s{number}" for number in range(SCHEDULES)]
        with self.server.link() as link:
            link.send_all([f"schedule add {name} @every 1s\n".encode() for name in names])
            for name in names:
                self.handles[name] = link.line().removeprefix("OK ")
            self._since = time.time()

    def _wait_for_runs(self) -> None:
        """Until every schedule has run since the server has started, and loaded its jobs: that is
        what it is busy with before."""
        with self.server.link() as link:
            link.wait_until_loaded()
            started = time.time()
            while time.time() < started + PATIENCE:
                rows = [line.split("\t") for line in link.command("schedule list")]
                found = {row[1]: row[0] for row in rows}
                if found != self.handles:
                    self.strange.append(f"of {len(self.handles)} schedules there are {len(found)}")
                    return
                if all(row[7] != "-" and int(row[7]) >= int(started) for row in rows):
                    return
                # Nothing tells when; the list is long, and the server has better to do.
                time.sleep(0.05)
        self.strange.append("not every schedule has run again after a start")

    def _counted(self) -> dict[str, int]:
        """How often each schedule has run, by its record."""
        return {name: about["runs"] for name, about in self._records().items()}

    def _records(self) -> dict[str, dict[str, object]]:
        with closing(sqlite3.connect(self.server.database)) as connection:
            found = connection.execute(
                "SELECT function, about FROM record WHERE kind = 'schedule'"
            ).fetchall()
        return {function.decode(): json.loads(about) for function, about in found}

    def faults(self) -> list[str]:
        """What must not have happened, as far as the store tells."""
        found = []
        records = self._records()
        with closing(sqlite3.connect(self.server.database)) as connection:
            jobs = connection.execute("SELECT function, handle, submitted FROM job").fetchall()
        if len({handle for _, handle, _ in jobs}) < len(jobs):
            found.append("two jobs have one handle")
        made: dict[str, list[float]] = defaultdict(list)
        for function, _, submitted in jobs:
            made[function.decode()].append(submitted)
        for name, about in records.items():
            moments = made[name]
            if about["runs"] != len(moments):
                found.append(f"{name} counts {about['runs']} runs and has {len(moments)} jobs")
            if len({int(moment - about["since"]) for moment in moments}) < len(moments):
                found.append(f"{name} ran twice between two due times")
        if records.keys() != self.handles.keys():
            found.append("schedules are missing in the store")
        return found


def main() -> int:
    """Returns 0 if nothing was wrong, else 1."""
    parser = argparse.ArgumentParser(
        prog="tests.crash.schedules", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=100, help="how often (default: 100)")
    parser.add_argument("--seed", type=int, help="the kills of an earlier run, as far as they go")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trigear-crash-") as folder:
        crash = ScheduleCrash(Path(folder), options.kills, random.Random(seed), _say)
        faults = crash.run()
    print(
        f"{options.kills} kills, {crash.cut} of them between the runs of one moment,"
        f" {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
