"""`trigear schedule`: have jobs submitted by the calendar, look at that, and steer it."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import answers
from trigear.cli.connecting import (
    Servers,
    connected,
    each_server,
    said_for,
    with_server_and_tenant,
    with_server_in_front,
)
from trigear.cli.groups import NearGroup
from trigear.cli.manners import ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import (
    Cell,
    columns,
    json_option,
    plain,
    show,
    show_pairs,
    write,
    write_json,
)
from trigear.cli.values import DURATION, TIME
from trigear.errors import LocalProtocolError, Refused
from trigear.model import counted
from trigear.protocol import schedule_talks
from trigear.runtime.talking import hold_blocking

if TYPE_CHECKING:
    import datetime
    from collections.abc import Callable, Iterator

    from trigear.protocol.schedule_talks import ScheduleDetails, ScheduleStatus
    from trigear.runtime.blocking import BlockingClient

COLUMNS: Final = columns(
    "handle", "function", "unique", "when", "timezone", "state", "next", "ran", "runs"
)

LOCAL_ZONE: Final = "/etc/localtime"


@click.group(
    cls=NearGroup,
    name="schedule",
    epilog=examples(
        """
        trigear schedule add '0 3 * * mon-fri' report all --unique nightly
        trigear schedule list
        trigear schedule show nightly
        trigear schedule pause nightly
        """
    ),
)
@with_manners
@with_server_in_front
@click.help_option("--help")
def schedule_group() -> None:
    """Have jobs submitted by the calendar, or again and again.

    A schedule is named by its handle, or by its unique where only one schedule has that.
    """


# Adding


@schedule_group.command(
    name="add",
    short_help="Add a schedule, or change it.",
    epilog=examples(
        """
        trigear schedule add '30 2 * * *' backup --timezone Europe/Berlin
        trigear schedule add @hourly report sales --unique report
        trigear schedule add --every 5m poll http://localhost/ --missed skip
        trigear schedule add --at 2026-12-24T18:00:00+01:00 mail hello
        trigear schedule add @daily import --file rules.json
        """
    ),
)
@click.argument("words", metavar="[WHEN] FUNCTION [WORKLOAD]", nargs=-1)
@click.option("--every", metavar="DURATION", type=DURATION, help="In place of WHEN: in intervals.")
@click.option(
    "--at", metavar="TIME", type=TIME, help="In place of WHEN: once, as 'trigear submit --at'."
)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="Whose clocks count, as in Europe/Berlin; 'local' for the zone of this machine."
    " Default: UTC.",
)
@click.option(
    "--missed",
    type=click.Choice(["once", "skip"]),
    help="What becomes of runs that were missed: one for all of them, or none. Default: once.",
)
@click.option(
    "-u",
    "--unique",
    default="",
    metavar="UNIQUE",
    help="Names the schedule; a run that finds the last one unfinished joins it. Without one the"
    " workload tells schedules of a function apart.",
)
@click.option(
    "--priority", type=click.Choice(["high", "normal", "low"]), default="normal", help="Of runs."
)
@click.option(
    "--file", "path", metavar="FILE", help="Take the workload from a file; - for standard input."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def add_command(words: tuple[str, ...], *, servers: Servers, **given: Any) -> int:  # noqa: ANN401
    """Add a schedule and print its handle.

    WHEN are five fields of cron in quotes (minute, hour, day of month, month, day of week with 0
    and 7 for Sunday), or @hourly, @daily, @weekly, @monthly, @yearly. One with the same FUNCTION
    and unique is changed: it keeps its handle, and stays paused if it is.
    """
    when, function, workload = words_of(words, given["every"], given["at"])
    if given["path"] is not None:
        if workload:
            raise click.UsageError("--file and WORKLOAD both give a workload: leave one out")
        workload = read(given["path"])
    unique = os.fsencode(given["unique"])
    if given["at"] is not None:
        return add_once(servers, function, workload, unique, given)
    zone = local_zone() if given["timezone"] == "local" else given["timezone"] or "UTC"
    with connected(servers) as client:
        try:
            handle = client.schedule(
                function,
                when,
                workload,
                unique=unique,
                timezone=zone,
                missed=given["missed"] or "once",
                priority=given["priority"],
            )
        except LocalProtocolError as error:
            raise Failure(str(error), Status.USAGE) from error
        except Refused as error:
            if error.code == "INVALID_ARGUMENT":
                raise Failure(error.text, Status.USAGE) from error
            if answers.is_unknown_command(error) or error.code == "INVALID_COMMAND":
                raise Failure(f"{client.address} knows nothing of schedules") from error
            raise
        found = hold_blocking(client.admin, schedule_talks.details(handle))
    tell_added(handle, found, as_json=given["as_json"])
    return Status.DONE


def words_of(
    words: tuple[str, ...], every: float | None, at: datetime.datetime | None
) -> tuple[str, str, bytes]:
    """When, function and workload.

    Raises:
        click.UsageError: something is missing, or said twice.
    """
    rest = list(words)
    if every is not None and at is not None:
        raise click.UsageError("--every and --at both say when: leave one out")
    if every is not None:
        if every < 1 or not every.is_integer():
            raise click.UsageError("--every takes whole seconds, at least one")
        when = f"@every {every:.0f}s"
    elif at is not None:
        when = "once"
    else:
        when = rest.pop(0) if rest else ""
        if not when.startswith("@") and len(when.split()) < 2:
            raise click.UsageError(
                "say when first: '0 3 * * *' in quotes, @daily, --every 5m or --at TIME"
            )
    if not rest:
        raise click.UsageError("name a function, and a workload if any")
    if len(rest) > 2:
        raise click.UsageError("there is one workload: put it in quotes, or use --file")
    function = rest[0]
    if not function or "\0" in function:
        raise click.UsageError(f"function {function!r} is no name")
    return when, function, os.fsencode(rest[1]) if len(rest) == 2 else b""


def read(path: str) -> bytes:
    """The workload from a file."""
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def local_zone() -> str:
    """The name of this machine's time zone.

    Raises:
        click.UsageError: it has none.
    """
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        return named
    # Not the last of several links: that may have another name for the zone.
    target = os.readlink(LOCAL_ZONE) if os.path.islink(LOCAL_ZONE) else ""
    _, _, name = target.partition("/zoneinfo/")
    if not name:
        raise click.UsageError("this machine does not name its time zone: name one")
    return name


def add_once(
    servers: Servers, function: str, workload: bytes, unique: bytes, given: dict[str, Any]
) -> int:
    """Submit a job for a time; it is a job and no schedule."""
    for name in ("timezone", "missed"):
        if given[name] is not None:
            raise click.UsageError(f"--{name} does not go with --at: leave one out")
    if given["priority"] != "normal":
        raise click.UsageError("--priority does not go with --at: such jobs have normal priority")
    with connected(servers, f"'{plain(function)}'") as client:
        handle = client.submit_background(function, workload, unique=unique, at=given["at"])
    if given["as_json"]:
        at = given["at"].isoformat()
        write_json({"handle": handle.decode("utf-8", "backslashreplace"), "next": at})
    else:
        write(handle + b"\n")
        remark(f"one job, {given['at'].astimezone():%Y-%m-%d %H:%M:%S %Z}; see 'trigear job'")
    return Status.DONE


def tell_added(handle: bytes, found: ScheduleDetails | None, *, as_json: bool) -> None:
    due = None if found is None else found.next
    if as_json:
        text = handle.decode("utf-8", "backslashreplace")
        write_json({"handle": text, "next": in_iso(due)})
        return
    write(handle + b"\n")
    if due is not None:
        remark(f"next run: {in_words(due)}")
    elif found is not None and found.paused:
        remark("it is paused: 'trigear schedule resume' lets it run")


# Looking


@schedule_group.command(
    name="list",
    short_help="List the schedules.",
    epilog=examples("trigear schedule list\ntrigear schedule list --json | jq .next"),
)
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def list_command(*, as_json: bool, servers: Servers) -> int:
    """List the schedules.

    Columns: handle, function, unique, when, timezone (whose clocks count), state (active or
    paused), next and ran (the next and the last run, by this machine's clocks), runs (how many).
    """
    with connected(servers, "'schedule list'") as client:
        found = hold_blocking(client.admin, schedule_talks.schedules())
    told = in_iso if as_json or not sys.stdout.isatty() else in_words
    rows = [row_of(one, told) for one in found]
    show(COLUMNS, rows, as_json=as_json, nothing="no schedules")
    return Status.DONE


def row_of(
    one: ScheduleStatus, told: Callable[[datetime.datetime | None], str | None]
) -> list[Cell]:
    state = "paused" if one.paused else "active"
    when = [told(one.next), told(one.ran)]
    return [one.handle, one.function, one.unique, one.when, one.timezone, state, *when, one.runs]


def in_iso(moment: datetime.datetime | None) -> str | None:
    """A time for programs."""
    return None if moment is None else moment.astimezone().isoformat()


def in_words(moment: datetime.datetime | None) -> str | None:
    """A time for people, by the clocks of this machine."""
    return None if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"


@contextlib.contextmanager
def named(servers: Servers, name: str) -> Iterator[tuple[BlockingClient, ScheduleDetails]]:
    """The server that has a schedule, and what it says of it.

    Raises:
        Failure: none has it.
    """
    for client in each_server(servers):
        with said_for(client, "'schedule show'"):
            found = hold_blocking(client.admin, schedule_talks.details(name))
        if found is not None:
            with said_for(client):
                yield client, found
            return
    raise Failure(f"no schedule {plain(name)}: see 'trigear schedule list'")


@schedule_group.command(
    name="show",
    short_help="Show one schedule and its next five runs.",
    epilog=examples("trigear schedule show nightly\ntrigear schedule show nightly --json"),
)
@click.argument("name")
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def show_command(name: str, *, as_json: bool, servers: Servers) -> int:
    """Show all that is known of a schedule, and when its next five runs are due.

    Times are those of this machine's clocks.
    """
    with named(servers, name) as (_, found):
        told = in_iso if as_json or not sys.stdout.isatty() else in_words
        facts = facts_of(found, told)
        if as_json:
            write_json(facts)
        elif sys.stdout.isatty():
            show_pairs([(key, plain(value)) for key, value in pairs_of(facts)])
        else:
            show(columns("name", "value"), list(pairs_of(facts)), as_json=False)
    return Status.DONE


def facts_of(
    found: ScheduleDetails, told: Callable[[datetime.datetime | None], str | None]
) -> dict[str, Cell]:
    from trigear.cli.submitting import as_text

    text, encoding = (None, None) if found.workload is None else as_text(found.workload)
    return {
        "handle": found.handle,
        "function": found.function,
        "unique": found.unique,
        "when": found.when,
        "timezone": found.timezone,
        "missed": found.missed,
        "priority": found.priority.name.lower(),
        "state": "paused" if found.paused else "active",
        "since": told(found.since),
        "runs": found.runs,
        "ran": told(found.ran),
        "job": found.run,
        "size": found.size,
        "workload": text,
        "encoding": encoding,
        "next": tuple(filter(None, map(told, found.times))),
    }


def pairs_of(facts: dict[str, Cell]) -> Iterator[tuple[str, Cell]]:
    """The facts one below the other, each of the next runs on a line of its own."""
    for key, value in facts.items():
        if isinstance(value, tuple):
            yield from ((key, one) for one in value)
        elif value is not None:
            yield key, value


# Steering


def steering(name: str, about: str, does: Callable[[BlockingClient, str], str]) -> None:
    """A command that does something to each of the schedules that are named."""

    def run(*, names: tuple[str, ...], servers: Servers) -> int:
        for one in names:
            with named(servers, one) as (client, _):
                remark(f"{does(client, one)}: {plain(one)}")
        return Status.DONE

    run.__doc__ = f"{about} Each NAME is a handle or a unique."
    example = examples(f"trigear schedule {name} nightly")
    make = schedule_group.command(name=name, epilog=example, short_help=about)
    argument = click.argument("names", metavar="NAME...", nargs=-1, required=True)
    make(argument(with_manners(with_server_and_tenant(click.help_option("--help")(run)))))


def pause(client: BlockingClient, name: str) -> str:
    hold_blocking(client.admin, schedule_talks.pause(name))
    return "paused"


def resume(client: BlockingClient, name: str) -> str:
    hold_blocking(client.admin, schedule_talks.resume(name))
    return "resumed"


steering("pause", "Have schedules make no runs until they are resumed.", pause)
steering("resume", "Have paused schedules go on; what was due meanwhile is left out.", resume)


@schedule_group.command(
    name="run",
    short_help="Make a run at once.",
    epilog=examples("trigear schedule run nightly"),
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def run_command(*, names: tuple[str, ...], servers: Servers) -> int:
    """Make a run at once, beside those that are due, and print the handle of its job.

    Paused schedules run as well. Each NAME is a handle or a unique.
    """
    for name in names:
        with named(servers, name) as (client, _):
            handle = hold_blocking(client.admin, schedule_talks.run(name))
            write(handle + b"\n")
    return Status.DONE


@schedule_group.command(
    name="remove",
    short_help="Remove schedules.",
    epilog=examples(
        """
        trigear schedule remove nightly
        trigear schedule remove --yes nightly
        """
    ),
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def remove_command(*, names: tuple[str, ...], yes: bool, dry_run: bool, servers: Servers) -> int:
    """Remove schedules. Jobs that they have made stay. Each NAME is a handle or a unique."""
    found = []
    for name in names:
        with named(servers, name) as (client, one):
            found.append((client.address, one))
            if dry_run or not yes:
                verb = "would remove" if dry_run else "to be removed"
                unique = f" {plain(one.unique)}" if one.unique else ""
                remark(f"{verb}: {one.handle} ({plain(one.function)}{unique}, {one.when})")
    if dry_run:
        return Status.DONE
    if not ask(f"Remove {counted(len(found), 'schedule')}?", yes=yes):
        raise Failure("nothing was removed")
    for address, one in found:
        with connected(servers.only(address), "'schedule remove'") as client:
            hold_blocking(client.admin, schedule_talks.remove(one.handle))
        remark(f"removed: {one.handle}")
    return Status.DONE
