"""Kill a loaded server again and again, and count what was lost: `python -m tests.crash.run`.

Clients submit background jobs and workers do them as fast as they can, while the server is killed
with SIGKILL at random moments and started again. Everybody writes down when what happened. In the
end:

* every job whose JOB_CREATED a client has got has run;
* no two jobs have one handle, and a job has the handle that its client was told;
* a job has run again only after a kill, and only if it was running then or its end was not yet
  written. That the end *was* written is known from the order of writing: once a worker had the
  answer to what it sent behind its WORK_COMPLETE, everything that was submitted later is written
  later, so if a later submission was answered in the same life of the server, the end was on the
  disk;
* at the very end the queue is empty, in memory and in the store.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.process import DurableServer, Link
from tests.postgres import Cluster
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    GRAB_JOB_UNIQ,
    JOB_ASSIGN_UNIQ,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUTSTANDING = 64
BACKLOG = 3000
"""Jobs that wait at most: else the workers would still be busy long after the last kill."""

LONGEST_LIFE = 0.6
"""Seconds a server lives at most, from its first connection on."""

END_SECONDS = 120.0


@dataclass
class Created:
    """A job that a client was told to exist."""

    handle: bytes
    life: int
    sent: float


@dataclass
class Run:
    """One time that a worker got a job. ``answered`` is when it had the answer to what it sent
    behind its WORK_COMPLETE."""

    handle: bytes
    life: int
    answered: float | None = None


@dataclass
class Record:
    """What everybody has written down. Each job is named by its workload."""

    submitted: int = 0
    created: dict[bytes, Created] = field(default_factory=dict)
    runs: dict[bytes, list[Run]] = field(default_factory=lambda: defaultdict(list))
    strange: list[str] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What must not have happened."""
        found = list(self.strange)
        horizon: dict[int, float] = {}
        for job in self.created.values():
            horizon[job.life] = max(horizon.get(job.life, 0.0), job.sent)
        handles: dict[bytes, bytes] = {}
        for name, job in self.created.items():
            if name not in self.runs:
                found.append(f"{name!r} was acknowledged in life {job.life} and never ran")
            if handles.setdefault(job.handle, name) != name:
                found.append(f"{name!r} and {handles[job.handle]!r} have one handle")
        for name, runs in self.runs.items():
            told = self.created[name].handle if name in self.created else runs[0].handle
            if {run.handle for run in runs} != {told}:
                found.append(f"{name!r} has not kept its handle")
            for run, again in pairwise(runs):
                if run.life == again.life:
                    found.append(f"{name!r} ran twice in life {run.life}")
                elif run.answered is not None and horizon.get(run.life, 0.0) > run.answered:
                    found.append(f"{name!r} ran again although its end in {run.life} was written")
        return found

    def again(self) -> int:
        """How many runs were not the first of their job."""
        # Workers may still be at it.
        return sum(len(runs) - 1 for runs in list(self.runs.values()))


class Crash:
    """One series of kills.

    Args:
        folder: where the server's files are.
        kills: how many.
        chance: when.
        say: is told how it goes.
        cluster: where the queue is if not in a file; it runs.
        url: how it is named, if not by its own name.
        options: more arguments for the server.
    """

    def __init__(
        self,
        folder: Path,
        kills: int,
        chance: random.Random,
        say: Callable[[str], object] = lambda _text: None,
        cluster: Cluster | None = None,
        url: str | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.record = Record()
        self.cluster = cluster
        if cluster is not None and url is None:
            url = cluster.url()
        self.server = DurableServer(folder, store=url, options=options)
        self._kills = kills
        self._chance = chance
        self._say = say
        self._changed = threading.Condition()
        self._life = 0
        self._up = False
        self._submitting = True
        self._working = True

    def run(self) -> list[str]:
        """Do it all; returns what was wrong."""
        clients = [threading.Thread(target=self._client, args=(b"%d" % n,)) for n in range(2)]
        threads = [*clients, *(threading.Thread(target=self._worker) for _ in range(2))]
        for thread in threads:
            thread.start()
        try:
            for number in range(self._kills):
                self._live()
                self._wait_and_disturb()
                with self._changed:
                    self._up = False
                self.server.kill()
                self._examine()
                self._say(
                    f"kill {number + 1}: {len(self.record.created)} acknowledged,"
                    f" {self.record.again()} run again"
                )
            self._live()
            self._finish(clients)
            self.server.stop()
        finally:
            with self._changed:
                self._submitting = self._working = False
                self._up = True
                self._changed.notify_all()
            self.server.kill()
            for thread in threads:
                thread.join()
        return self.record.faults()

    def _wait_and_disturb(self) -> None:
        """What happens between start and kill."""
        # Nothing sets it: the moment of the kill is chance alone.
        threading.Event().wait(self._chance.uniform(0.0, LONGEST_LIFE))

    def _examine(self) -> None:
        """What happens between kill and start."""

    def _result_of(self, name: bytes) -> bytes:
        """What a worker answers for a job."""
        return b""

    def _live(self) -> None:
        self.server.start()
        with self._changed:
            self._life += 1
            self._up = True
            self._changed.notify_all()

    def _finish(self, clients: list[threading.Thread]) -> None:
        """Let everything that was acknowledged be done."""
        self._submitting = False
        with self._changed:
            self._changed.notify_all()
        for thread in clients:
            thread.join()
        with self.server.link() as link:
            link.wait_until_loaded()
            give_up = time.monotonic() + END_SECONDS
            while any(line.split("\t")[1] != "0" for line in link.command("status")):
                if time.monotonic() > give_up:
                    self.record.strange.append("after the last start not everything gets done")
                    break
                time.sleep(0.01)
        self._working = False
        self.server.stop()
        if left := self._left():
            self.record.strange.append(f"{left} jobs are left in the store")

    def _left(self) -> int:
        """How many jobs the store has now that the server is stopped."""
        if self.cluster is not None:
            return int(self.cluster.run("SELECT count(*) FROM trigear_job")[0][0])
        with closing(sqlite3.connect(self.server.database)) as connection:
            return int(connection.execute("SELECT count(*) FROM job").fetchone()[0])

    # Clients and workers

    def _next_life(self) -> tuple[int, Link] | None:
        """A connection to the server that lives now; None when there is nothing more to do."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._up)
                life = self._life
            if not self._working:
                return None
            try:
                link = self.server.link()
            except OSError:
                continue  # killed, and about to be said to be down
            with self._changed:
                if self._up and self._life == life:
                    return life, link
            link.close()  # whose life this is cannot be told

    def _client(self, who: bytes) -> None:
        record = self.record
        number = 0
        while self._submitting and (found := self._next_life()) is not None:
            life, link = found
            try:
                with link:
                    while self._submitting:
                        self._wait_for_room()
                        names = [b"%s-%d" % (who, number + n) for n in range(OUTSTANDING)]
                        number += OUTSTANDING
                        record.submitted += OUTSTANDING
                        sent = time.monotonic()
                        link.send_all([request(SUBMIT_JOB_BG, b"f", b"", name) for name in names])
                        for name in names:
                            said, handle = link.receive()
                            if said == JOB_CREATED:
                                record.created[name] = Created(handle, life, sent)
                            else:
                                self._refused(name, said, handle)
            except OSError:
                continue

    def _refused(self, name: bytes, said: int, why: bytes) -> None:
        """A client was told this instead of JOB_CREATED."""
        self.record.strange.append(f"{name!r} was answered {said}: {why!r}")

    def _wait_for_room(self) -> None:
        record = self.record
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    len(record.created) - len(record.runs) < BACKLOG
                    or not (self._up and self._submitting)
                )
            )

    def _worker(self) -> None:
        while (found := self._next_life()) is not None:
            life, link = found
            try:
                with link:
                    self._work(link, life)
            except OSError:
                continue

    def _work(self, link: Link, life: int) -> None:
        link.send(CAN_DO, b"f")
        link.send(GRAB_JOB_UNIQ)
        before: Run | None = None
        while True:
            said, payload = link.receive()
            if before is not None:
                before.answered = time.monotonic()
                before = None
            if said == JOB_ASSIGN_UNIQ:
                handle, _, _, name = payload.split(b"\0", 3)
                before = Run(handle, life)
                self.record.runs[name].append(before)
                result = self._result_of(name)
                link.send_all([request(WORK_COMPLETE, handle, result), request(GRAB_JOB_UNIQ)])
                with self._changed:
                    self._changed.notify_all()
            elif said == NO_JOB:
                if not self._working:
                    return
                link.send(PRE_SLEEP)
            elif said == NOOP:
                link.send(GRAB_JOB_UNIQ)
            else:
                self.record.strange.append(f"a worker was told {said}: {payload!r}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if nothing was wrong, else 1."""
    parser = argparse.ArgumentParser(prog="tests.crash.run", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, help="how often (default: 500, PostgreSQL: 200)")
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seed", type=int, help="the kills of an earlier run, as far as they go")
    options = parser.parse_args(arguments)
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    kills = options.kills or {"sqlite": 500, "postgresql": 200}[options.store]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="trigear-crash-"))
        cluster = None
        if options.store == "postgresql":
            cluster = Cluster()
            stack.callback(cluster.remove)
            cluster.start()
        crash = Crash(Path(folder), kills, random.Random(seed), _say, cluster)
        faults = crash.run()
    record = crash.record
    print(
        f"{kills} kills, {record.submitted} submitted, {len(record.created)} acknowledged,"
        f" {record.again()} run again, {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
