"""`trigear job requeue` and `trigear job priority`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from trigear.cli.connecting import Servers, each_server, said_for, with_server_and_tenant
from trigear.cli.manners import remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Status
from trigear.cli.steer import admin_of
from trigear.cli.tables import plain
from trigear.model import Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trigear.runtime.blocking_admin import BlockingAdmin

GONE: Final = "it is over, was cancelled or never was: try 'trigear job result'"


@click.command(
    name="requeue",
    short_help="Queue jobs anew.",
    epilog=examples("trigear job requeue H:host:00000000000000000001"),
)
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def requeue_command(handles: tuple[str, ...], *, servers: Servers) -> int:
    """Put jobs at the end of their queues, without counting an attempt.

    One that runs is taken from its worker, which is told if it is one of trigear's; it goes to
    another. One that waits for its time, or out a delay after a lost attempt, waits no longer. Exit
    status 1: one of the jobs was not there.
    """

    def requeue(admin: BlockingAdmin, handle: str) -> bool:
        return admin.requeue(handle)

    return each_job(servers, handles, requeue, "requeued")


@click.command(
    name="priority",
    short_help="Give jobs another priority.",
    epilog=examples("trigear job priority high H:host:00000000000000000001"),
)
@click.argument("level", type=click.Choice([level.name.lower() for level in Priority]))
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def priority_command(level: str, handles: tuple[str, ...], *, servers: Servers) -> int:
    """Give jobs another priority. Among those of that priority they stand where their age puts
    them; one that runs has it when it is queued again. Exit status 1: one of the jobs was not
    there.
    """
    priority = Priority[level.upper()]

    def prioritize(admin: BlockingAdmin, handle: str) -> bool:
        return admin.set_priority(handle, priority)

    return each_job(servers, handles, prioritize, f"priority {level}")


def each_job(
    servers: Servers,
    handles: Iterable[str],
    act: Callable[[BlockingAdmin, str], bool],
    done: str,
    gone: str = GONE,
) -> int:
    """Do something with each of these jobs, at the server that has it.

    Args:
        servers: where they may be; each is asked until one has the job.
        handles: the jobs.
        act: does it; returns whether the job was there.
        done: what is said of a job then.
        gone: what is said of one that no server has.

    Returns:
        The exit status.
    """
    missing = False
    for handle in handles:
        for client in each_server(servers):
            with said_for(client):
                found = act(admin_of(client), handle)
            if found:
                remark(f"{done}: {handle}")
                break
        else:
            missing = True
            remark(f"no job {plain(handle)}: {gone}")
    return Status.NO if missing else Status.DONE
