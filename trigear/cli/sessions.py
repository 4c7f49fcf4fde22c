"""Who is connected to a server, and what operators ask of the server itself."""

from __future__ import annotations

import contextlib
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Final

import click

from trigear.cli import answers
from trigear.cli.connecting import Servers, connected, refusal, with_server_and_tenant
from trigear.cli.hints import SIGNALS
from trigear.cli.manners import ask, remark, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.steer import admin_of
from trigear.cli.tables import columns, json_option, show, write_json
from trigear.errors import Refused
from trigear.protocol.session_talks import SessionStatus, WhoAmI

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from trigear.runtime.blocking import BlockingClient

COLUMNS: Final = columns(*(field.name for field in fields(SessionStatus)))
WHO_COLUMNS: Final = columns(*(field.name for field in fields(WhoAmI)))


@contextlib.contextmanager
def for_users(client: BlockingClient, word: str, then: str = "") -> Iterator[None]:
    """Say what may be the matter where a server does not know what only users can ask."""
    try:
        yield
    except Refused as error:
        if answers.is_unknown_command(error):
            raise Failure(
                f"{client.address} asks nobody who they are, and knows no '{word}'{then}"
            ) from error
        raise refusal(client, error, f"'{word}'") from error


def for_operators(client: BlockingClient, word: str) -> AbstractContextManager[None]:
    """The same for what can be said by a signal as well."""
    signal = SIGNALS[word]
    then = f": tell it by a signal, on its machine: `kill -{signal} PID`"
    return for_users(client, word, f"{then}; `trigear admin getpid` says its PID")


@click.command(
    name="sessions",
    short_help="List the connections and whose they are.",
    epilog=examples(
        """
        trigear admin sessions
        trigear admin sessions --json | jq -c 'select(.tenant == "acme")'
        """
    ),
)
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def sessions_command(*, as_json: bool, servers: Servers) -> int:
    """List the connections: whose they are, how that is known, from where, since when, and what
    they do. An operator sees those of every tenant, an admin those of its own.

    'age' and 'left', the time until a new login is due, are in seconds.
    """
    with connected(servers, "'sessions'") as client:
        rows = [astuple(each) for each in admin_of(client).sessions()]
    show(COLUMNS, rows, as_json=as_json, nothing="no connections")
    return Status.DONE


@click.command(
    name="end-session",
    short_help="End connections.",
    epilog=examples(
        """
        trigear admin sessions
        trigear admin end-session 17
        """
    ),
)
@click.argument("sessions", metavar="SESSION...", nargs=-1, required=True, type=click.IntRange(0))
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def end_command(sessions: tuple[int, ...], *, as_json: bool, servers: Servers) -> int:
    """End connections, by the numbers that 'trigear admin sessions' has. The jobs that they have go
    to others. Their programs may connect again: 'trigear user disable' keeps a user out."""
    missing = []
    with connected(servers, "'session end'") as client:
        for session in sessions:
            ended = admin_of(client).end_session(session)
            if as_json:
                write_json({"session": session, "ended": ended})
            elif ended:
                remark(f"ended: session {session} at {client.address}")
            if not ended:
                missing.append(session)
        where = client.address
    if missing and not as_json:
        numbers = ", ".join(map(str, missing))
        raise Failure(f"no session {numbers} at {where}; `trigear admin sessions` lists them")
    return Status.NO if missing else Status.DONE


@click.command(
    name="whoami",
    short_help="Say who one is to a server.",
    epilog=examples("trigear admin whoami --server gearmans://jobs.example"),
)
@json_option
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def whoami_command(*, as_json: bool, servers: Servers) -> int:
    """Say who one is to a server: identity, tenant, roles, and how that is known."""
    with connected(servers) as client, for_users(client, "whoami"):
        found = admin_of(client).whoami()
    row = [found.identity, found.tenant, " ".join(found.roles) or None, found.method]
    show(WHO_COLUMNS, [row], as_json=as_json)
    return Status.DONE


@click.command(
    name="reload",
    short_help="Have a server read its files anew.",
    epilog=examples("trigear admin reload"),
)
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def reload_command(*, servers: Servers) -> int:
    """Have a server read its configuration, certificates and users anew, as SIGHUP does. Its log
    says what came of it."""
    with connected(servers) as client, for_operators(client, "reload"):
        admin_of(client).reload()
        remark(f"asked {client.address} to read its files anew: see its log")
    return Status.DONE


@click.command(
    name="drain",
    short_help="Have a server stop once what runs is done.",
    epilog=examples("trigear admin drain --yes"),
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def drain_command(*, yes: bool, servers: Servers) -> int:
    """Have a server stop: what runs may end within its --grace, nothing new begins."""
    with connected(servers) as client, for_operators(client, "drain"):
        if not ask(f"Let {client.address} end what runs, and stop?", yes=yes):
            raise Failure("nothing was stopped")
        admin_of(client).drain()
        remark(f"{client.address} ends what runs, and stops")
    return Status.DONE


@click.command(
    name="shutdown",
    short_help="Have a server stop at once.",
    epilog=examples("trigear admin shutdown --yes"),
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@with_manners
@with_server_and_tenant
@click.help_option("--help")
def shutdown_command(*, yes: bool, servers: Servers) -> int:
    """Have a server stop at once. Background jobs that run begin anew when it starts again;
    foreground jobs are gone. 'trigear admin drain' lets them end."""
    with connected(servers) as client, for_operators(client, "shutdown"):
        if not ask(f"Stop {client.address} at once?", yes=yes):
            raise Failure("nothing was stopped")
        admin_of(client).shutdown()
        remark(f"{client.address} stops")
    return Status.DONE


COMMANDS: Final = (
    *(sessions_command, end_command, whoami_command),
    *(reload_command, drain_command, shutdown_command),
)
