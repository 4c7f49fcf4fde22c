"""`trigear job`: ask about jobs, list them, cancel them, steer them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from trigear.cli import answers
from trigear.cli.connecting import (
    Servers,
    checked_word,
    connected,
    each_server,
    said_for,
    with_server_and_tenant,
    with_server_in_front,
)
from trigear.cli.groups import NearGroup
from trigear.cli.job_result import drop_command, result_command
from trigear.cli.job_show import GONE, show_command
from trigear.cli.job_steer import priority_command, requeue_command
from trigear.cli.manners import ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import columns, json_option, plain, show
from trigear.errors import Refused
from trigear.model import counted

if TYPE_CHECKING:
    from trigear.runtime.address import Address
    from trigear.runtime.values import JobStatus


@click.group(
    cls=NearGroup,
    name="job",
    epilog=examples(
        """
        trigear job list
        trigear job show H:host:00000000000000000001
        trigear job status H:host:00000000000000000001
        trigear job result H:host:00000000000000000001
        trigear job cancel H:host:00000000000000000001
        """
    ),
)
@with_manners
@with_server_in_front
@click.help_option("--help")
def job_group() -> None:
    """Ask about jobs and their results, list them, cancel them."""


@job_group.command(
    name="status",
    short_help="Say whether a job waits or runs.",
    epilog=examples(
        """
        trigear job status H:host:00000000000000000001
        trigear job status --unique order-17 --json
        """
    ),
)
@click.argument("handle", required=False)
@click.option("-u", "--unique", metavar="UNIQUE", help="The job with this unique instead.")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def status_command(
    handle: str | None, *, unique: str | None, as_json: bool, servers: Servers
) -> int:
    """Say whether a job waits or runs, and how far it is.

    Exit status 1: the server does not know the job, which is so, too, when it is over.
    """
    name, by_unique = handle, False
    if unique is not None:
        name, by_unique = unique, True
    if name is None or (handle is not None and unique is not None):
        raise click.UsageError("name one job: its handle, or --unique and its unique")
    where, status = find_job(servers, name, by_unique=by_unique)
    if status is None or where is None:
        if as_json:
            show_status(name, None, None, as_json=True)
        raise Failure(f"no job {plain(name)}: {GONE}")
    show_status(name, where, status, as_json=as_json)
    return Status.DONE


def find_job(
    servers: Servers, name: str, *, by_unique: bool = False
) -> tuple[Address | None, JobStatus | None]:
    """The server that knows a job, and what it knows; nothing if no server does."""
    for client in each_server(servers):
        with said_for(client):
            status = client.status_of_unique(name) if by_unique else client.status(name)
        if status.known:
            return client.address, status
    return None, None


def show_status(
    name: str, where: Address | None, status: JobStatus | None, *, as_json: bool
) -> None:
    known = status is not None
    state = "unknown" if status is None else "running" if status.running else "queued"
    share = (
        f"{status.numerator:g}/{status.denominator:g}" if status and status.denominator else None
    )
    clients = None if status is None else status.clients
    address = None if where is None else str(where)
    if as_json:
        heads = columns("job", "state", "numerator", "denominator", "clients", "server")
        numbers = (status.numerator, status.denominator) if status and known else (None, None)
        show(heads, [(name, state, *map(answers.as_cell, numbers), clients, address)], as_json=True)
    else:
        heads = columns("job", "state", "progress", "clients", "server")
        show(heads, [(name, state, share, clients, address)], as_json=False)


@job_group.command(
    name="list",
    short_help="List the jobs that are queued or running.",
    epilog=examples(
        """
        trigear job list
        trigear job list --json | jq -r 'select(.worker == null) | .handle'
        """
    ),
)
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def list_command(*, as_json: bool, servers: Servers) -> int:
    """List the jobs that are queued or running.

    Columns: handle; background: goes on without its client; losses: attempts that came to nothing;
    unique; worker: the address of the one that has the job; clients: submissions that wait. What a
    server does not tell is left open.
    """
    with connected(servers, "'show jobs'") as client:
        loads = answers.loads(client)
        rows = answers.JOBS.rows(client)
    show(answers.JOBS.heads, rows, as_json=as_json, nothing="no jobs")
    if loads:
        remark(answers.STILL_LOADING)
    return Status.DONE


@click.command(
    name="cancel",
    short_help="Cancel jobs.",
    epilog=examples(
        """
        trigear job cancel H:host:00000000000000000001
        trigear job cancel --yes $(trigear submit -b resize cat.jpg)
        """
    ),
)
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be cancelled, and cancel nothing.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def cancel_command(handles: tuple[str, ...], *, yes: bool, dry_run: bool, servers: Servers) -> int:
    """Cancel jobs: whoever waits for one hears that it failed.

    A worker that has the job already is not stopped; what it answers is dropped. Exit status 1: one
    of the jobs was not there.
    """
    found: list[tuple[str, Address]] = []
    for handle in handles:
        where, status = find_job(servers, checked_word(handle, "handle"))
        if where is None or status is None:
            remark(f"no job {plain(handle)}: {GONE}")
            continue
        found.append((handle, where))
        state = "running" if status.running else "queued"
        if not yes or dry_run:
            remark(f"{'would cancel' if dry_run else 'to be cancelled'}: {handle} ({state})")
    if found and not dry_run:
        if not ask(f"Cancel {counted(len(found), 'job')}?", yes=yes):
            raise Failure("nothing was cancelled")
        found = [(handle, where) for handle, where in found if cancel(handle, servers.only(where))]
    return Status.DONE if len(found) == len(handles) else Status.NO


def cancel(handle: str, servers: Servers) -> bool:
    """Cancel one job, and say how that went."""
    with connected(servers) as client:
        try:
            client.admin(f"cancel job {handle}")
        except Refused as error:
            # It may have ended since we looked; or the server cannot cancel at all.
            why = GONE if error.code == "UNKNOWN_JOB" else f"{error.code}: {error.text}"
            remark(f"not cancelled: {handle}: {why}")
            return False
    remark(f"cancelled: {handle}")
    return True


job_group.add_command(cancel_command)
job_group.add_command(show_command)
job_group.add_command(result_command)
job_group.add_command(drop_command)
job_group.add_command(requeue_command)
job_group.add_command(priority_command)
