"""`trigear admin`: the text commands of a server, with tables for people and rows for programs."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from trigear.cli import answers, job, sessions, steer
from trigear.cli.connecting import (
    Servers,
    checked_word,
    connected,
    refusal,
    with_server_and_tenant,
    with_server_in_front,
)
from trigear.cli.groups import NearGroup
from trigear.cli.job_show import show_command
from trigear.cli.manners import ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import encoded, json_option, show, write, write_json
from trigear.cli.values import Whole
from trigear.errors import LocalProtocolError, Refused
from trigear.model import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.cli.tables import Cell, Column
    from trigear.runtime.blocking import BlockingClient


@click.group(
    cls=NearGroup,
    name="admin",
    epilog=examples(
        """
        trigear admin status
        trigear admin functions --json
        trigear admin maxqueue resize 1000 --server jobs.example
        """
    ),
)
@with_manners
@with_server_in_front
@click.help_option("--help")
def admin_group() -> None:
    """Look into a server and steer it.

    On a terminal lists are tables. Else they are rows without a heading, with TABs between the
    columns, or with --json one object per row.
    """


def listing(
    name: str,
    heads: Sequence[Column],
    rows_of: Callable[[BlockingClient], Sequence[Sequence[Cell]]],
    about: str,
    nothing: str,
    *,
    of_jobs: bool = False,
) -> None:
    """A command that prints rows. Those ``of_jobs`` are not all there while a server loads them."""

    def run(*, as_json: bool, servers: Servers) -> int:
        with connected(servers, f"'{name}'") as client:
            loads = of_jobs and answers.loads(client)
            rows = rows_of(client)
        show(heads, rows, as_json=as_json, nothing=nothing)
        if loads:
            remark(answers.STILL_LOADING)
        return Status.DONE

    run.__doc__ = f"{about}\n\nColumns: {', '.join(head.key for head in heads)}."
    example = examples(f"trigear admin {name}\ntrigear admin {name} --json")
    make = admin_group.command(name=name, epilog=example, short_help=about)
    make(json_option(with_manners(with_server_and_tenant(click.help_option("--help")(run)))))


listing(
    "status",
    answers.STATUS.heads,
    answers.STATUS.rows,
    "List the functions: jobs queued and running, jobs running, workers.",
    "no functions: none was ever submitted to or served",
    of_jobs=True,
)
listing(
    "priority-status",
    answers.PRIORITY_STATUS.heads,
    answers.PRIORITY_STATUS.rows,
    "List the functions: queued jobs by priority, workers.",
    "no functions: none was ever submitted to or served",
    of_jobs=True,
)
listing(
    "show-functions",
    answers.SHOW_FUNCTIONS.heads,
    answers.SHOW_FUNCTIONS.rows,
    "List the functions with the jobs that have ended since the server started.",
    "no functions: none was ever submitted to or served",
    of_jobs=True,
)
listing(
    "workers",
    answers.WORKERS.heads,
    answers.WORKERS.rows,
    "List the connections and the functions they serve.",
    "no connections",
)
listing(
    "jobs",
    answers.JOBS.heads,
    answers.JOBS.rows,
    "List the jobs, as 'trigear job list' does.",
    "no jobs",
    of_jobs=True,
)
listing(
    "show-jobs",
    answers.SHOW_JOBS.heads,
    answers.SHOW_JOBS.rows,
    "List the jobs as gearmand tells of them.",
    "no jobs",
    of_jobs=True,
)
listing(
    "show-unique-jobs",
    answers.SHOW_UNIQUE_JOBS.heads,
    answers.SHOW_UNIQUE_JOBS.rows,
    "List the unique of every job.",
    "no jobs",
    of_jobs=True,
)
listing(
    "clients",
    answers.CLIENT_COLUMNS,
    answers.clients,
    "List the connections and the jobs they wait for.",
    "no connections",
)


listing(
    "tenants",
    answers.TENANTS.heads,
    answers.TENANTS.rows,
    "List what tenants may have and what they have: an operator sees all of them.",
    "no tenants",
)


def value(name: str, about: str) -> None:
    """A command that prints one word."""

    def run(*, as_json: bool, servers: Servers) -> int:
        with connected(servers, f"'{name}'") as client:
            (line,) = client.admin(name)
        word = line.removeprefix("OK").strip()
        if as_json:
            write_json({name: answers.number(word)})
        else:
            write(encoded(word) + b"\n")
        return Status.DONE

    run.__doc__ = about
    make = admin_group.command(name=name, epilog=examples(f"trigear admin {name}"))
    make(json_option(with_manners(with_server_and_tenant(click.help_option("--help")(run)))))


value("version", "Print the server's version.")
value("loading", "Say whether jobs are still on their way from the store into memory.")
value("getpid", "Print the server's process id.")
value("verbose", "Print the server's log level.")


def give(client: BlockingClient, line: str) -> None:
    """Give a command that is answered by OK.

    Raises:
        Failure: the server refused; the message is its own.
    """
    try:
        client.admin(line)
    except Refused as error:
        raise refusal(client, error, f"'{line}'") from error


@admin_group.command(
    name="create-function",
    epilog=examples("trigear admin create-function resize"),
    short_help="Make a function known before anybody serves it.",
)
@click.argument("function")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def create_command(function: str, *, servers: Servers) -> int:
    """Make a function known before anybody serves it, so that it is listed and can be limited."""
    checked_word(function, "function")
    with connected(servers) as client:
        give(client, f"create function {function}")
        remark(f"function '{function}' exists at {client.address}")
    return Status.DONE


@admin_group.command(
    name="drop-function",
    short_help="Forget a function and its queued jobs.",
    epilog=examples(
        """
        trigear admin drop-function resize --dry-run
        trigear admin drop-function resize --yes
        """
    ),
)
@click.argument("function")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be dropped, and drop nothing.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def drop_command(function: str, *, yes: bool, dry_run: bool, servers: Servers) -> int:
    """Forget a function that has no worker, together with its queued jobs."""
    checked_word(function, "function")
    with connected(servers) as client:
        total, running, workers = state_of(client, function, "`trigear admin status` lists them")
        what = f"function '{function}' with its {counted(total, 'queued job')}"
        if workers or running:
            raise Failure(
                f"'{function}' has {counted(workers, 'worker')} and"
                f" {counted(running, 'running job')} at {client.address}: stop the workers first"
            )
        if dry_run:
            remark(f"would drop {what}")
            return Status.DONE
        if not ask(f"Drop {what} at {client.address}?", yes=yes):
            raise Failure("nothing was dropped")
        client.close()
    # Anew: a server may have hung up on us while the question stood there.
    with connected(servers.only(client.address)) as client:
        give(client, f"drop function {function}")
        remark(f"dropped {what}")
    return Status.DONE


def state_of(client: BlockingClient, function: str, then: str) -> tuple[Cell, Cell, Cell]:
    """A function's jobs, running jobs and workers.

    Raises:
        Failure: the server does not know it, nor one that may be meant; ``then`` says what to do.
    """
    names = []
    for name, total, running, workers in answers.STATUS.rows(client):
        if name == function:
            return total, running, workers
        names.append(str(name))
    near = difflib.get_close_matches(function, names, n=1)
    then = f"did you mean '{near[0]}'?" if near else then
    raise Failure(f"no function '{function}' at {client.address}: {then}")


@admin_group.command(
    name="maxqueue",
    short_help="Limit how many jobs of a function are taken.",
    epilog=examples(
        """
        trigear admin maxqueue resize 1000           # of each priority
        trigear admin maxqueue resize 100 1000 5000  # high, normal, low
        trigear admin maxqueue resize                # no limit any more
        """
    ),
)
@click.argument("function")
@click.argument("limits", metavar="[ALL | HIGH NORMAL LOW]", nargs=-1, type=Whole(0))
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def max_queue_command(function: str, limits: tuple[int, ...], *, servers: Servers) -> int:
    """Limit how many jobs of a function the server takes; 0 or nothing: any number."""
    if len(limits) not in (0, 1, 3):
        raise click.UsageError("name one limit for all priorities, or three: high, normal, low")
    checked_word(function, "function")
    with connected(servers) as client:
        # A limit for what is not there is answered by OK and forgotten.
        state_of(client, function, f"make it with `trigear admin create-function {function}`")
        give(client, " ".join(["maxqueue", function, *map(str, limits)]))
        kinds = ("high", "normal", "low") if len(limits) == 3 else ("each priority",)
        told = (
            f"{f'at most {limit}' if limit else 'any number'} of {kind}"
            for kind, limit in zip(kinds, limits or (0,), strict=True)
        )
        remark(f"jobs of '{function}' that {client.address} takes: {', '.join(told)}")
    return Status.DONE


@admin_group.command(
    name="send",
    short_help="Send a text command as it stands.",
    epilog=examples(
        """
        trigear admin send status
        trigear admin send maxqueue resize 10
        """
    ),
)
@click.argument("words", metavar="WORD...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def send_command(words: tuple[str, ...], *, servers: Servers) -> int:
    """Send a text command as it stands and print the lines of the answer.

    For commands that have no name here, and for seeing what exactly a server says. Exit status 1:
    it answered by ERR.
    """
    line = " ".join(words)
    with connected(servers) as client:
        try:
            lines = client.admin(line)
        except Refused as error:
            raise Failure(f"{client.address} answers ERR {error.code} {error.text}") from error
        except LocalProtocolError as error:
            raise click.UsageError(str(error)) from error
    write(encoded("".join(f"{one}\n" for one in lines)))
    return Status.DONE


admin_group.add_command(job.cancel_command, "cancel-job")
for command in (*steer.COMMANDS, *sessions.COMMANDS):
    admin_group.add_command(command)
admin_group.add_command(show_command, "show-job")
