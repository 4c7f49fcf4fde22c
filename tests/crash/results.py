"""Kill a loaded server that keeps results again and again: `python -m tests.crash.results`.

As in :mod:`tests.crash.run`, and all jobs are of a function that keeps results. After each kill,
and in the end, the store is looked into: of each job whose JOB_CREATED a client has got there is
either the job or its result, never neither and never both, and the result is what its worker
answered.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.run import Crash

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tests.postgres import Cluster

CONFIG = """
[function.f]
keep-results = "1d"
keep-results-count = 1000000000
keep-results-size = "1GiB"
"""

_LOOK = """
SELECT 'job', handle, workload FROM {prefix}job
UNION ALL SELECT 'result', key, data FROM {prefix}record WHERE kind = 'result'
"""


class ResultsCrash(Crash):
    """One series of kills; arguments as of :class:`Crash`."""

    def __init__(
        self,
        folder: Path,
        kills: int,
        chance: random.Random,
        say: Callable[[str], object] = lambda _text: None,
        cluster: Cluster | None = None,
    ) -> None:
        config = folder / "trigear.toml"
        config.write_text(CONFIG)
        super().__init__(folder, kills, chance, say, cluster, options=("--config", str(config)))
        self.cut = 0
        """Jobs that were there still, of all those that had begun to run before a kill."""

    def _result_of(self, name: bytes) -> bytes:
        return name[::-1] * 3

    def _examine(self) -> None:
        acknowledged = {job.handle: name for name, job in list(self.record.created.items())}
        self.record.strange += self.faults(acknowledged)

    def _finish(self, clients: list[threading.Thread]) -> None:
        super()._finish(clients)
        self._examine()

    def faults(self, acknowledged: dict[bytes, bytes]) -> list[str]:
        """What must not be in the store, or is missing there.

        Args:
            acknowledged: the names of jobs by their handles.
        """
        jobs, results = self.look()
        found = [f"{handle!r} is there and has a result" for handle in jobs.keys() & results.keys()]
        for handle, name in acknowledged.items():
            if handle not in jobs and handle not in results:
                found.append(f"{name!r} is not there and has no result")
            elif handle in results and results[handle] != self._result_of(name):
                found.append(f"{name!r} has the result {results[handle]!r}")
        begun = [runs[0].handle for runs in list(self.record.runs.values())]
        self.cut += sum(handle in jobs for handle in begun)
        return found

    def look(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        """The workloads of the jobs in the store, and the results there, by handle; as they are at
        one moment: a database may be at work still on what the server said last."""
        if self.cluster is not None:
            rows = self.cluster.run(_LOOK.format(prefix="trigear_"))
        else:
            with closing(sqlite3.connect(self.server.database)) as connection:
                rows = connection.execute(_LOOK.format(prefix="")).fetchall()
        jobs = {bytes(handle): bytes(data) for kind, handle, data in rows if kind == "job"}
        results = {bytes(key): bytes(data) for kind, key, data in rows if kind == "result"}
        return jobs, results


def main() -> int:
    """Returns 0 if nothing was wrong, else 1."""
    parser = argparse.ArgumentParser(prog="tests.crash.results", description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="how often (default: 50)")
    parser.add_argument("--seed", type=int, help="the kills of an earlier run, as far as they go")
    options = parser.parse_args()
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="trigear-crash-") as folder:
        crash = ResultsCrash(Path(folder), options.kills, random.Random(seed), _say)
        faults = crash.run()
        kept = len(crash.look()[1])
    record = crash.record
    print(
        f"{options.kills} kills, {len(record.created)} acknowledged, {kept} results,"
        f" {record.again()} run again, {len(faults)} faults"
    )
    for fault in faults[:20]:
        print(f"fault: {fault}")
    return 1 if faults else 0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
