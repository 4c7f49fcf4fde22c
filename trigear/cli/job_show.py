"""`trigear job show`: all that a server knows of one job, in one view."""

from __future__ import annotations

import contextlib
import datetime
import sys
from typing import TYPE_CHECKING, Final

import click

from trigear.cli import answers
from trigear.cli.connecting import (
    Servers,
    checked_word,
    each_server,
    said_for,
    with_server_and_tenant,
)
from trigear.cli.manners import with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import (
    Cell,
    columns,
    json_option,
    plain,
    show,
    show_pairs,
    write_json,
)
from trigear.cli.values import spell_duration
from trigear.errors import Refused
from trigear.model import counted

if TYPE_CHECKING:
    from trigear.runtime.blocking import BlockingClient

GONE: Final = "it is over, was cancelled or never was: try 'trigear job result'"

KEYS: Final = (
    *("handle", "function", "unique", "state", "priority", "background", "size"),
    *("attempts", "losses", "numerator", "denominator", "due", "age"),
    *("worker", "worker_id", "left", "clients", "waiting", "server"),
)

Facts = dict[str, Cell]
"""What is known of a job; None for what the server does not tell, or what does not apply."""


@click.command(
    name="show",
    short_help="Show all that is known of a job.",
    epilog=examples(
        """
        trigear job show H:host:00000000000000000001
        trigear job show --json H:host:00000000000000000001 | jq .worker
        """
    ),
)
@click.argument("handle")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def show_command(handle: str, *, as_json: bool, servers: Servers) -> int:
    """Show all that is known of a job: what it is, where it stands, who has it and who waits.

    Of several servers each is asked. Other servers than trigear's tell less: what they leave out
    is left open. Times are seconds, sizes bytes; `age` counts from when the job could first have
    begun, `left` is what its worker has until its deadline. Exit status 1: no server knows the job.
    """
    for client in each_server(servers):
        with said_for(client, "'show job'"):
            facts = facts_of(client, checked_word(handle, "handle"))
        if facts is not None:
            tell(facts, as_json=as_json)
            return Status.DONE
    raise Failure(f"no job {plain(handle)}: {GONE}")


def facts_of(client: BlockingClient, handle: str) -> Facts | None:
    """What a server knows of a job; None if it does not know it.

    Raises:
        Refused: it does not say.
    """
    try:
        lines = client.admin(f"show job {handle}")
    except Refused as error:
        if error.code == "UNKNOWN_JOB":
            return None
        if not answers.is_unknown_command(error):
            raise
        found = pieced_together(client, handle)
    else:
        found = read(lines)
    return (
        None if found is None else {**dict.fromkeys(KEYS), **found, "server": str(client.address)}
    )


def read(lines: list[str]) -> Facts:
    """The answer of a trigear server."""
    facts: Facts = {}
    waiting: list[str] = []
    for line in lines:
        name, _, value = line.partition("\t")
        if name == "waiter":
            waiting.append(value)
        else:
            key = name.replace("-", "_")
            text = key in {"handle", "function", "unique", "worker", "worker_id"}
            facts[key] = value if text else answers.number(value)
    for key, nothing in (("unique", ""), ("worker_id", "-")):
        if facts.get(key) == nothing:
            facts[key] = None
    facts["background"] = facts.get("background") == 1
    return {**facts, "clients": len(waiting), "waiting": tuple(waiting)}


def pieced_together(client: BlockingClient, handle: str) -> Facts | None:
    """What a server tells that has no command for one job."""
    status = client.status(handle)
    if not status.known:
        return None
    facts: Facts = {
        "handle": handle,
        "state": "running" if status.running else "queued",
        "numerator": answers.as_cell(status.numerator),
        "denominator": answers.as_cell(status.denominator),
    }
    rows: list[list[Cell]] = []
    with contextlib.suppress(Refused):  # Perl's server lists functions, not jobs
        rows = answers.JOBS.rows(client)
    for row in rows:
        told = dict(zip((head.key for head in answers.JOBS.heads), row, strict=True))
        if told["handle"] == handle:
            facts |= told
    if isinstance(losses := facts.get("losses"), int):
        facts["attempts"] = losses + status.running
    return facts


def tell(facts: Facts, *, as_json: bool) -> None:
    """Print it, for programs all of it, for people what matters."""
    if as_json:
        write_json(facts)
    elif sys.stdout.isatty():
        show_pairs(list(in_words(facts)))
    else:
        show(columns("name", "value"), list(facts.items()), as_json=False)


def in_words(facts: Facts) -> list[tuple[str, str]]:
    """The view for people: a line for each thing that there is to say."""
    background = "goes on without its client" if facts["background"] else None
    kind = [facts["priority"] and f"{facts['priority']} priority", background]
    lines: list[tuple[str, str | None]] = [
        ("function", words(facts["function"])),
        ("state", words(facts["state"])),
        ("unique", words(facts["unique"])),
        ("kind", ", ".join(str(one) for one in kind if one) or None),
        ("workload", None if facts["size"] is None else counted(facts["size"], "byte")),
        ("waits for", due_in_words(facts["due"])),
        ("since", None if facts["age"] is None else f"{lasting(facts['age'])} ago"),
        ("attempts", attempts_in_words(facts)),
        ("progress", progress_in_words(facts)),
        ("worker", worker_in_words(facts)),
        ("waiting", waiting_in_words(facts)),
        ("server", words(facts["server"])),
    ]
    return [("job", str(facts["handle"])), *((name, text) for name, text in lines if text)]


def words(cell: Cell) -> str | None:
    return None if cell is None else plain(cell)


def lasting(seconds: Cell) -> str:
    return spell_duration(seconds) if isinstance(seconds, int) else plain(seconds)


def due_in_words(due: Cell) -> str | None:
    if not isinstance(due, int):
        return None
    try:
        return datetime.datetime.fromtimestamp(due).astimezone().isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return f"{due} s after 1970"


def attempts_in_words(facts: Facts) -> str | None:
    attempts, losses = facts["attempts"], facts["losses"]
    if attempts is None:
        return None
    return f"{attempts}, {losses} of them came to nothing" if losses else plain(attempts)


def progress_in_words(facts: Facts) -> str | None:
    numerator, denominator = facts["numerator"], facts["denominator"]
    if not denominator:
        return None
    share = ""
    if isinstance(numerator, int) and isinstance(denominator, int):
        share = f" ({numerator / denominator:.0%})"
    return f"{numerator}/{denominator}{share}"


def worker_in_words(facts: Facts) -> str | None:
    worker, name, left = facts["worker"], facts["worker_id"], facts["left"]
    if worker is None:
        return None
    until = "" if left is None else f", {lasting(left)} left until its deadline"
    return f"{worker}{'' if name is None else f' ({name})'}{until}"


def waiting_in_words(facts: Facts) -> str | None:
    clients, addresses = facts["clients"], facts["waiting"]
    if clients is None:
        return None
    if not clients:
        return "nobody"
    where = f": {' '.join(addresses)}" if isinstance(addresses, tuple) else ""
    return f"{counted(clients, 'submission')}{where}"
