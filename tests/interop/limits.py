"""What each feature consists of, and what a peer's own interface keeps it from.

A point a cell misses must be here, in the name of its client, its worker or its server; a point
that is here must be missed. Limits of peers hold at both servers.
"""

from __future__ import annotations

from dataclasses import dataclass

# The first point of each feature is the feature itself; a cell without it does not pass.
POINTS = {
    "result": ("result",),
    "exception": ("exception", "failure", "worker goes on"),
    "status": ("progress", "progress asked for"),
    "background": ("runs without its client", "state asked for"),
    "priority": ("order",),
    "unique": ("one run for two", "worker sees the unique"),
}


@dataclass(frozen=True)
class Limit:
    """A point of a feature that somebody cannot fulfil. Empty stands for everybody."""

    feature: str
    point: str
    reason: str
    clients: tuple[str, ...] = ()
    workers: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()

    def holds(self, server: str, client: str, worker: str) -> bool:
        return (
            (not self.clients or client in self.clients)
            and (not self.workers or worker in self.workers)
            and (not self.servers or server in self.servers)
        )


LIMITS = (
    Limit(
        "exception",
        "exception",
        "The `gearman` tool as a worker can only fail a job, by a command that exits with a status "
        "other than 0: the client hears of a failure.",
        workers=("gearman",),
    ),
    Limit(
        "exception",
        "exception",
        "The `gearman` tool as a client does not ask for exceptions and is told of a failure.",
        clients=("gearman",),
    ),
    Limit(
        "exception",
        "failure",
        "gearmand turns the exception into a `WORK_FAIL` that carries one NUL too many, which the "
        "tool's library takes for somebody else's: the tool waits for ever.",
        clients=("gearman",),
        workers=("php", "perl", "gear", "trigear"),
        servers=("gearmand",),
    ),
    Limit(
        "exception",
        "worker goes on",
        "Perl's worker sends `WORK_FAIL` after `WORK_EXCEPTION`; gearmand answers that with "
        "`ERROR`, of which the worker dies.",
        workers=("perl",),
        servers=("gearmand",),
    ),
    Limit(
        "status",
        "progress",
        "The `gearman` tool as a worker cannot report progress.",
        workers=("gearman",),
    ),
    Limit(
        "status",
        "progress asked for",
        "The `gearman` tool as a worker cannot report progress.",
        workers=("gearman",),
    ),
    Limit(
        "status",
        "progress asked for",
        "The `gearman` tool as a client cannot ask for the state of a job; it only hears of the "
        "progress of one it waits for.",
        clients=("gearman",),
    ),
    Limit(
        "background",
        "state asked for",
        "The `gearman` tool as a client cannot ask for the state of a job it left behind.",
        clients=("gearman",),
    ),
    Limit(
        "unique",
        "worker sees the unique",
        "The worker's interface does not show a job's unique.",
        workers=("gearman", "perl"),
    ),
)
