"""`trigear job result`: what became of a job, and its result where that is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli.connecting import (
    PATIENCE,
    Servers,
    checked_word,
    connected,
    each_server,
    said_for,
    with_server_and_tenant,
)
from trigear.cli.manners import remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import plain, write, write_json
from trigear.cli.values import DURATION
from trigear.errors import LocalProtocolError, Refused
from trigear.model import SAID, printable, said

if TYPE_CHECKING:
    from trigear.runtime.address import Address
    from trigear.runtime.result import Result

FORGOTTEN: Final = "it never was, or was over so long ago that it is forgotten"


@click.command(
    name="result",
    short_help="Print the result of a job that is over.",
    epilog=examples(
        """
        trigear job result H:host:00000000000000000001 > small.jpg
        trigear job result --wait $(trigear submit -b resize cat.jpg) > small.jpg
        trigear job result --json H:host:00000000000000000001 | jq -r .state
        """
    ),
)
@click.argument("handle")
@click.option("--wait", is_flag=True, help="Wait until the job is over.")
@click.option(
    "--deadline",
    type=DURATION,
    metavar="DURATION",
    help="Wait no longer than this; then with status 5.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def result_command(
    handle: str, *, wait: bool, deadline: float | None, as_json: bool, servers: Servers
) -> int:
    """Print the result of a job as it is: what its worker completed it with.

    A server keeps results of those functions whose settings say so (keep-results), and remembers
    of every job for a while how it ended. Of several servers each is asked.

    Exit status: 0 the result is there, 1 the job failed, is not over, is not known, or its result
    is not kept; 5 the deadline passed.
    """
    until = None if deadline is None else time.monotonic() + deadline
    found = find(servers, handle)
    if found is None:
        if as_json:
            write_json(document(handle, None, None))
        raise Failure(f"no job {plain(handle)}: {FORGOTTEN}")
    where, result = found
    if (wait or deadline is not None) and not result.settled:
        result = wait_for(servers.only(where), handle, until, deadline)
    if as_json:
        write_json(document(handle, result, where))
    return tell(result, as_json=as_json)


@click.command(
    name="drop-result",
    short_help="Drop the kept results of jobs.",
    epilog=examples(
        """
        trigear job drop-result H:host:00000000000000000001
        """
    ),
)
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def drop_command(handles: tuple[str, ...], servers: Servers) -> int:
    """Drop the results that are kept of jobs.

    No new submission is answered from them any more (reuse-results). Exit status 1: of one of
    the jobs no result was kept.
    """
    dropped = 0
    for handle in handles:
        word = checked_word(handle, "handle")
        found = find(servers, handle)
        gone = f"no result is kept of {plain(handle)}"
        if found is None:
            remark(gone)
            continue
        with connected(servers.only(found[0])) as client:
            try:
                client.admin(f"drop result {word}")
            except Refused as error:
                known = error.code == "UNKNOWN_JOB"
                remark(gone if known else f"{plain(handle)}: {error.code}: {error.text}")
                continue
        remark(f"dropped: {plain(handle)}")
        dropped += 1
    return Status.DONE if dropped == len(handles) else Status.NO


def find(servers: Servers, handle: str) -> tuple[Address, Result] | None:
    """The server that knows a job, and what it says.

    Raises:
        Failure: none of them can be asked.
    """
    asked = False
    plain_ones: list[str] = []
    for client in each_server(servers):
        try:
            with said_for(client, "to tell what became of the job"):
                result = client.result(handle)
        except LocalProtocolError as error:
            plain_ones.append(str(error))
            continue
        asked = True
        if result.known:
            return client.address, result
    if not asked and plain_ones:
        raise Failure("; ".join(plain_ones))
    for why in plain_ones:
        remark(f"not asked: {why}")
    return None


def wait_for(servers: Servers, handle: str, until: float | None, deadline: float | None) -> Result:
    """What became of a job, once it is over."""
    with servers.connect(servers.addresses[0], PATIENCE) as client:
        client.timeout = None if until is None else max(until - time.monotonic(), 0.0)
        try:
            return client.result(handle, wait=True)
        except TimeoutError as error:
            raise Failure(
                f"job {handle} is not over after {deadline:g} s; it goes on", Status.TOO_LATE
            ) from error


def tell(result: Result, *, as_json: bool) -> int:
    """Print the result, or say why there is none.

    Raises:
        Failure: there is none.
    """
    name = printable(result.handle)
    if result.state == "scheduled":
        raise Failure(f"{name} is a schedule: its runs are jobs with handles of their own")
    if not result.over:
        raise Failure(f"job {name} is {result.state}: --wait waits until it is over")
    if result.state == "exception":
        words = said(result.data or b"", SAID)
        raise Failure(f"job {name} raised an exception: {words or 'what it said is not kept'}")
    if not result.done:
        raise Failure(f"job {name} ended without success: {result.state}")
    if result.data is None:
        raise Failure(
            f"job {name} is done, and its result was not kept: set keep-results for its function"
        )
    if not as_json:
        write(result.data)
    return Status.DONE


def document(handle: str, result: Result | None, where: Address | None) -> dict[str, Any]:
    """A result as JSON."""
    from trigear.cli.submitting import as_text

    data = None if result is None else result.data
    text, encoding = (None, None) if data is None else as_text(data)
    ended = None if result is None else result.ended
    return {
        "handle": handle,
        "state": "unknown" if result is None else result.state,
        "attempts": None if result is None else result.attempts,
        "ended": None if ended is None else ended.isoformat(timespec="milliseconds"),
        "data": text,
        "encoding": encoding,
        "server": None if where is None else str(where),
    }
