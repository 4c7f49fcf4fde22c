"""What servers answer to text commands as rows: trigear, gearmand and Perl's server alike.

What programs would ask as well is understood by the library (:mod:`trigear.protocol.talks`). Of
the other lists each line becomes a row as it stands, with what is missing left open.
"""

from __future__ import annotations

import contextlib
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from trigear.cli.tables import columns
from trigear.errors import Refused
from trigear.protocol import session_talks, talks
from trigear.runtime.talking import hold_blocking

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.cli.tables import Cell, Column
    from trigear.protocol.talks import Talk
    from trigear.runtime.blocking import BlockingClient


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


class Told(NamedTuple):
    """A list that the library knows how to ask for: its columns are the fields of what it tells."""

    talk: Callable[[], Talk[list[Any]]]
    heads: tuple[Column, ...]

    def rows(self, client: BlockingClient) -> list[list[Cell]]:
        return [list(astuple(each)) for each in hold_blocking(client.admin, self.talk())]


def told(talk: Callable[[], Talk[list[Any]]], kind: type[Any]) -> Told:
    return Told(talk, columns(*(field.name for field in fields(kind))))


STATUS: Final = told(talks.status, talks.FunctionStatus)
PRIORITY_STATUS: Final = told(talks.priority_status, talks.PriorityStatus)
WORKERS: Final = told(talks.workers, talks.ConnectionStatus)
JOBS: Final = told(talks.jobs, talks.ListedJob)
SHOW_JOBS: Final = Listing(
    "show jobs",
    columns("handle", "losses", "ignored", "background"),
    frozenset({"losses"}),
    frozenset({"ignored", "background"}),
)
SHOW_UNIQUE_JOBS: Final = Listing("show unique jobs", columns("unique"), frozenset())
SHOW_FUNCTIONS: Final = Listing(
    "show functions",
    columns(
        *("function", "total", "running", "workers", "completed", "failed", "dropped", "age"),
        "paused",
    ),
    frozenset({"total", "running", "workers", "completed", "failed", "dropped", "age"}),
)

TENANTS: Final = told(session_talks.tenants, session_talks.TenantQuota)

FUNCTION_COLUMNS: Final = columns(
    "function", "high", "normal", "low", "running", "workers", "paused"
)
CLIENT_COLUMNS: Final = columns("address", "handle", "unique", "worker")


def is_unknown_command(error: Refused) -> bool:
    """Whether a server refused because it has no such command: gearmand or Perl's server."""
    return (
        error.code in {"UNKNOWN_COMMAND", "UNKNOWN_SHOW_ARGUMENTS"}
        or error.text.strip() == "unknown_command"
    )


def loads(client: BlockingClient) -> bool:
    """Whether the server has not all its jobs in memory yet; no, where it does not tell."""
    try:
        return hold_blocking(client.admin, talks.loading())
    except Refused:
        return False


STILL_LOADING: Final = "the server is still loading its jobs; not all of them are shown"


def number(field: str | None) -> Cell:
    """A field as a number, if it is one."""
    return int(field) if field is not None and field.isascii() and field.isdigit() else field


def as_cell(value: float | None) -> int | str | None:
    """A number of a worker's; JSON has it as a number where it is whole."""
    return value if value is None or isinstance(value, int) else f"{value:g}"


def functions(client: BlockingClient) -> list[list[Cell]]:
    """Every function with its queued jobs by priority, its running jobs, its workers, and whether
    it is paused; None for what other servers do not tell."""
    waiting: dict[Cell, list[Cell]] = {}
    with contextlib.suppress(Refused):  # Perl's server tells no priorities
        waiting = {row[0]: row[1:4] for row in PRIORITY_STATUS.rows(client)}
    paused: dict[Cell, bool] = {}
    with contextlib.suppress(Refused):  # only trigear has pauses
        paused = {
            each.function: each.value == "yes"
            for each in hold_blocking(client.admin, talks.functions())
            if each.setting == "paused"
        }
    return [
        [name, *waiting.get(name, [None] * 3), running, workers, paused.get(name)]
        for name, _, running, workers in STATUS.rows(client)
    ]


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
