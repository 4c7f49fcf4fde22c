"""What servers answer to text commands, taken apart: trigear, gearmand and Perl's server alike.

A line that does not look as expected becomes a row all the same, with what is missing left open:
a person who asks what is the matter with a server shall see what it says.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from trigear.cli.tables import columns
from trigear.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.cli.tables import Cell, Column
    from trigear.runtime.blocking import BlockingClient

_WORKER: Final = re.compile(r"(\S+) (\S+) (.*?) ?:(?: (.*))?")


class Listing(NamedTuple):
    """A text command whose answer is a list of rows: its columns, and which are numbers."""

    line: str
    heads: tuple[Column, ...]
    numbers: frozenset[str]
    flags: frozenset[str] = frozenset()

    def rows(self, client: BlockingClient) -> list[list[Cell]]:
        return [self.row(line.split("\t")) for line in client.admin(self.line)]

    def row(self, fields: Sequence[str]) -> list[Cell]:
        row: list[Cell] = []
        for place, head in enumerate(self.heads):
            field = fields[place] if place < len(fields) else None
            row.append(self.cell(head.key, field))
        return row

    def cell(self, key: str, field: str | None) -> Cell:
        if field is not None and key in self.flags:
            return field != "0"
        return number(field) if key in self.numbers else field


STATUS: Final = Listing(
    "status",
    columns("function", "total", "running", "workers"),
    frozenset({"total", "running", "workers"}),
)
PRIORITY_STATUS: Final = Listing(
    "prioritystatus",
    columns("function", "high", "normal", "low", "workers"),
    frozenset({"high", "normal", "low", "workers"}),
)
SHOW_JOBS: Final = Listing(
    "show jobs",
    columns("handle", "losses", "ignored", "background"),
    frozenset({"losses"}),
    frozenset({"ignored", "background"}),
)
SHOW_UNIQUE_JOBS: Final = Listing("show unique jobs", columns("unique"), frozenset())
JOBS: Final = Listing(
    "jobs", columns("handle", "unique", "worker", "clients"), frozenset({"clients"})
)

SHOW_FUNCTIONS: Final = Listing(
    "show functions",
    columns("function", "total", "running", "workers", "completed", "failed", "dropped", "age"),
    frozenset({"total", "running", "workers", "completed", "failed", "dropped", "age"}),
)

FUNCTION_COLUMNS: Final = columns("function", "high", "normal", "low", "running", "workers")
JOB_COLUMNS: Final = columns("handle", "background", "losses", "unique", "worker", "clients")
WORKER_COLUMNS: Final = columns("fd", "address", "id", "functions")
CLIENT_COLUMNS: Final = columns("address", "handle", "unique", "worker")


def is_unknown_command(error: Refused) -> bool:
    """Whether a server refused because it has no such command: gearmand or Perl's server."""
    return (
        error.code in {"UNKNOWN_COMMAND", "UNKNOWN_SHOW_ARGUMENTS"}
        or error.text.strip() == "unknown_command"
    )


def number(field: str | None) -> Cell:
    """A field as a number, if it is one."""
    return int(field) if field is not None and field.isascii() and field.isdigit() else field


def as_cell(value: float | None) -> int | str | None:
    """A number of a worker's; JSON has it as a number where it is whole."""
    return value if value is None or isinstance(value, int) else f"{value:g}"


def functions(client: BlockingClient) -> list[list[Cell]]:
    """Every function with its queued jobs by priority, its running jobs and its workers."""
    waiting: dict[Cell, list[Cell]] = {}
    with contextlib.suppress(Refused):  # Perl's server tells no priorities
        waiting = {row[0]: row[1:4] for row in PRIORITY_STATUS.rows(client)}
    return [
        [name, *waiting.get(name, [None] * 3), running, workers]
        for name, _, running, workers in STATUS.rows(client)
    ]


def jobs(client: BlockingClient) -> list[list[Cell]]:
    """Every job, with what the second list of jobs adds where the server has one."""
    kinds = {row[0]: [row[3], row[1]] for row in SHOW_JOBS.rows(client)}
    people: dict[Cell, list[Cell]] = {}
    with contextlib.suppress(Refused):  # gearmand has no second list
        for handle, unique, worker, clients in JOBS.rows(client):
            people[handle] = [unique or None, None if worker == "-" else worker, clients]
    # What began or ended between the two answers stands in one of them.
    return [
        [handle, *kinds.get(handle, [None] * 2), *people.get(handle, [None] * 3)]
        for handle in dict.fromkeys([*kinds, *people])
    ]


def workers(client: BlockingClient) -> list[list[Cell]]:
    """Every connection with its functions."""
    rows: list[list[Cell]] = []
    for line in client.admin("workers"):
        found = _WORKER.fullmatch(line)
        if found is None:
            rows.append([line, None, None, ()])
        else:
            descriptor, address, name, does = found.groups()
            named = None if name == "-" else name
            rows.append([number(descriptor), address, named, tuple((does or "").split())])
    return rows


def clients(client: BlockingClient) -> list[list[Cell]]:
    """Every connection with the jobs it waits for, one row for each."""
    rows: list[list[Cell]] = []
    alone = False  # the last row is a connection of which no job was told yet
    for line in client.admin("clients"):
        if line.startswith("\t"):
            handle, unique, worker = (*line[1:].split("\t"), None, None)[:3]
            address = rows[-1][0] if rows else None
            if alone:
                rows.pop()
            alone = False
            rows.append([address, handle, unique or None, None if worker == "-" else worker])
        else:
            alone = True
            rows.append([line, None, None, None])
    return rows


def workers_of(client: BlockingClient) -> dict[str, int]:
    """How many workers can do each function that the server lists."""
    return {
        function: workers
        for function, _, _, workers in STATUS.rows(client)
        if isinstance(function, str) and isinstance(workers, int)
    }
