"""`trigear dead`: background jobs that were given up, run again or forgotten."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from trigear.cli.connecting import (
    Servers,
    connected,
    each_server,
    said_for,
    with_server_and_tenant,
    with_server_in_front,
)
from trigear.cli.groups import NearGroup
from trigear.cli.job_steer import each_job
from trigear.cli.manners import ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.steer import admin_of
from trigear.cli.tables import columns, json_option, plain, show, show_pairs, write, write_json
from trigear.model import counted, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from trigear.protocol.dead_talks import DeadLetterDetails
    from trigear.runtime.blocking_admin import BlockingAdmin

COLUMNS: Final = columns("handle", "function", "reason", "attempts", "died", "size", "unique")

GONE: Final = "no dead letter has this handle: see 'trigear dead list'"

SHOWN: Final = 4096
"""Bytes of a workload that are shown to people; --raw and --json have all of them."""


@click.group(
    cls=NearGroup,
    name="dead",
    epilog=examples(
        """
        trigear dead list --function resize
        trigear dead show H:host:00000000000000000001
        trigear dead retry --all --function resize
        """
    ),
)
@with_manners
@with_server_in_front
@click.help_option("--help")
def dead_group() -> None:
    """Look after dead letters: background jobs that were given up.

    A job is given up when its attempts are used up, when nobody took it in time, or, where its
    function says so, when its worker let it fail. What is left of it can be looked at, run again,
    and forgotten.
    """


function_option = click.option(
    "-f", "--function", metavar="FUNCTION", help="Those of this function only."
)


def chosen(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what says which dead letters, and how careful it is to be."""
    for option in (
        click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
        click.option("-y", "--yes", is_flag=True, help="Do not ask."),
        function_option,
        click.option("--all", "every", is_flag=True, help="All of them."),
        click.argument("handles", metavar="[HANDLE...]", nargs=-1),
    ):
        command = option(command)
    return command


@dead_group.command(
    name="list",
    short_help="List the dead letters.",
    epilog=examples(
        """
        trigear dead list
        trigear dead list --json | jq -r 'select(.reason == "expired") | .handle'
        """
    ),
)
@function_option
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def list_command(*, function: str | None, as_json: bool, servers: Servers) -> int:
    """List the dead letters, in the order in which they died.

    Columns: handle; function; reason: 'attempts' (they are used up), 'timeout', 'expired' (nobody
    took it in time), 'failed' or 'exception'; attempts; died: when; size: of the workload, in
    bytes; unique.
    """
    with connected(servers, "'dead list'") as client:
        found = admin_of(client).dead_list(function)
    rows = [
        (
            letter.handle,
            letter.function,
            letter.reason,
            letter.attempts,
            moment(letter.died),
            letter.size,
            letter.unique,
        )
        for letter in found
    ]
    show(COLUMNS, rows, as_json=as_json, nothing="no dead letters")
    return Status.DONE


@dead_group.command(
    name="show",
    short_help="Show all of a dead letter.",
    epilog=examples(
        """
        trigear dead show H:host:00000000000000000001
        trigear dead show --raw H:host:00000000000000000001 > workload
        """
    ),
)
@click.argument("handle")
@click.option("--raw", is_flag=True, help="Print the workload alone, as it is.")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def show_command(handle: str, *, raw: bool, as_json: bool, servers: Servers) -> int:
    """Show all that is known of a dead letter, with its workload.

    What is no text in it is shown as \\xNN, and no more than 4 KiB of it; --raw prints all of it as
    it is. With --json 'workload' is its text, null if it is none, and 'workload_base64' has it in
    any case. Of several servers each is asked. Exit status 1: there is no such dead letter.
    """
    if raw and as_json:
        raise click.UsageError("--raw and --json contradict each other: leave one out")
    for client in each_server(servers):
        with said_for(client, "'dead show'"):
            letter = admin_of(client).dead_show(handle)
        if letter is not None:
            tell(letter, raw=raw, as_json=as_json)
            return Status.DONE
    raise Failure(f"no dead letter {plain(handle)}: see 'trigear dead list'")


def tell(letter: DeadLetterDetails, *, raw: bool, as_json: bool) -> None:
    """Print a dead letter."""
    if raw:
        write(letter.workload)
        return
    facts: dict[str, Any] = {
        "handle": letter.handle,
        "function": letter.function,
        "unique": letter.unique,
        "priority": letter.priority.name.lower(),
        "reducer": letter.reducer,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "submitted": letter.submitted and moment(letter.submitted),
        "died": moment(letter.died),
        "worker": letter.worker,
        "text": letter.text or None,
        "size": len(letter.workload),
    }
    if as_json:
        write_json({**facts, **workload_in_json(letter.workload)})
        return
    shown = printable(letter.workload[:SHOWN])
    more = len(letter.workload) - SHOWN
    facts["workload"] = shown + (f" … and {counted(more, 'byte')} more" if more > 0 else "")
    if sys.stdout.isatty():
        show_pairs([(name, plain(value)) for name, value in facts.items() if value is not None])
    else:
        heads = columns("name", "value")
        show(heads, [(name, plain(value)) for name, value in facts.items()], as_json=False)


def workload_in_json(workload: bytes) -> dict[str, Any]:
    from base64 import b64encode

    try:
        text: str | None = workload.decode()
    except UnicodeDecodeError:
        text = None
    return {"workload": text, "workload_base64": b64encode(workload).decode()}


class Act(NamedTuple):
    """What can be done with dead letters.

    ``will`` and ``done`` say it before and after; ``asks``: also before a single one is touched.
    """

    one: Callable[[BlockingAdmin, str], bool]
    every: Callable[[BlockingAdmin, str | None], int]
    will: str
    done: str
    asks: bool


RETRY: Final = Act(
    lambda admin, handle: admin.dead_retry(handle),
    lambda admin, function: admin.dead_retry_all(function),
    "run again",
    "queued again",
    asks=False,
)
DELETE: Final = Act(
    lambda admin, handle: admin.dead_delete(handle),
    lambda admin, function: admin.dead_delete_all(function),
    "delete for good",
    "deleted",
    asks=True,
)


@dead_group.command(
    name="retry",
    short_help="Run dead letters again.",
    epilog=examples(
        """
        trigear dead retry H:host:00000000000000000001
        trigear dead retry --all --function resize --dry-run
        """
    ),
)
@chosen
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def retry_command(**choice: Any) -> int:  # noqa: ANN401
    """Make dead letters jobs again: queued at once, under the same handles, with all their
    attempts. Exit status 1: one of them was not there.
    """
    return carry_out(RETRY, **choice)


@dead_group.command(
    name="delete",
    short_help="Forget dead letters.",
    epilog=examples(
        """
        trigear dead delete H:host:00000000000000000001
        trigear dead delete --all --function resize --dry-run
        """
    ),
)
@chosen
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def delete_command(**choice: Any) -> int:  # noqa: ANN401
    """Forget dead letters for good. Exit status 1: one of them was not there."""
    return carry_out(DELETE, **choice)


def carry_out(
    act: Act,
    *,
    handles: tuple[str, ...],
    every: bool,
    function: str | None,
    yes: bool,
    dry_run: bool,
    servers: Servers,
) -> int:
    """Do it with those that are named, or with all of them; returns the exit status."""
    if every == bool(handles):
        raise click.UsageError("name dead letters by their handles, or say --all")
    if every:
        return with_all(act, function, servers, yes=yes, dry_run=dry_run)
    if function is not None:
        raise click.UsageError("--function goes with --all: handles say which they are")
    if dry_run:
        return each_job(servers, handles, is_there, f"would {act.will}", GONE)
    what = counted(len(handles), "dead letter")
    if act.asks and not ask(f"{act.will.capitalize()}: {what}?", yes=yes):
        raise Failure("nothing was done")
    return each_job(servers, handles, act.one, act.done, GONE)


def is_there(admin: BlockingAdmin, handle: str) -> bool:
    return admin.dead_show(handle) is not None


def with_all(act: Act, function: str | None, servers: Servers, *, yes: bool, dry_run: bool) -> int:
    """Do it with all dead letters of a server, or of one of its functions."""
    with connected(servers, "'dead list'") as client:
        found = admin_of(client).dead_list(function)
        of_which = "" if function is None else f" of '{function}'"
        what = f"{counted(len(found), 'dead letter')}{of_which} at {client.address}"
        if dry_run or not found:
            remark(f"would {act.will}: {what}")
            return Status.DONE
        if not ask(f"{act.will.capitalize()}: {what}?", yes=yes):
            raise Failure("nothing was done")
        client.close()
    # Anew: a server may have hung up on us while the question stood there.
    with connected(servers.only(client.address), f"to {act.will}") as client:
        changed = act.every(admin_of(client), function)
        remark(f"{act.done}: {counted(changed, 'dead letter')}{of_which}")
    return Status.DONE


def moment(when: datetime) -> str:
    """A time for people, in their zone."""
    return when.astimezone().isoformat(timespec="seconds")
