"""Which server a command talks to, and what is said when it cannot.

What wins, from the top: `--server`, `-h` and `-p`; `--context`; TRIGEAR_SERVERS; GEARMAN_SERVERS;
the context in use; localhost:4730. Of TLS and login: options; the context that `--context` names;
TRIGEAR_USER and TRIGEAR_PASSWORD_FILE; the context in use, where the servers are its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from trigear.cli.access import Access, add_options, from_environment, merged, taken_from
from trigear.cli.manners import remark
from trigear.cli.report import Failure, Status, status_of
from trigear.cli.values import PORT
from trigear.errors import ConfigError, ConnectionLost, Refused, RemoteProtocolError
from trigear.model import DEFAULT_PORT
from trigear.runtime.address import Address, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.runtime.blocking import BlockingClient
    from trigear.runtime.blocking_wire import Wire

PATIENCE: Final = 10.0
"""Seconds that a server may take to let us in, and for one answer that needs no work."""

VARIABLES: Final = ("TRIGEAR_SERVERS", "GEARMAN_SERVERS")


class Servers(NamedTuple):
    """Where to connect, in this order; who said so if it was not this command line; how they are
    spoken with; and for which tenant an operator acts there."""

    addresses: tuple[Address, ...]
    origin: str = ""
    access: Access = Access()
    tenant: str | None = None

    def only(self, address: Address) -> Servers:
        """One of them, spoken with in the same way."""
        return self._replace(addresses=(address,))

    def dial(self, address: Address) -> Wire:
        """Connect to one of them, for who has a machine of his own.

        Raises:
            OSError, ConnectionLost: nobody answers there.
            LoginFailed: it does not let us in.
        """
        from trigear.runtime.blocking_wire import open_wire

        until = time.monotonic() + PATIENCE
        wire = open_wire(address, until, self.access.context_for(address))
        auth = self.access.auth()
        if auth is not None:
            from trigear.protocol.client import ClientConnection
            from trigear.runtime.blocking_login import log_in
            from trigear.runtime.blocking_pool import lot

            try:
                log_in(wire, ClientConnection(), auth, str(address), until, lot)
            except BaseException:
                wire.close()
                raise
        return wire

    def connect(self, address: Address, timeout: float | None) -> BlockingClient:
        """Connect to one of them. A command that lost its server says so, instead of waiting.

        Raises:
            ConnectionLost: nobody answers there.
            LoginFailed: it does not let us in.
            ConfigError: a file of TLS or of the login cannot be used.
            Failure: one may not act for the tenant there.
        """
        from trigear.runtime.blocking import connect_blocking

        tls, auth = self.access.context_for(address), self.access.auth()
        client = connect_blocking(address, timeout=timeout, patience=0, tls=tls, auth=auth)
        if self.tenant is not None:
            try:
                act_for(client, self.tenant)
            except BaseException:
                client.close()
                raise
        return client


def act_for(client: BlockingClient, tenant: str) -> None:
    """Have an operator act for a tenant.

    Raises:
        Failure: that may not be.
    """
    from trigear.cli.answers import is_unknown_command

    with said_for(client, "'tenant'"):
        try:
            client.admin(f"tenant {checked_word(tenant, '--tenant')}")
        except Refused as error:
            said = {
                "PERMISSION_DENIED": "lets operators alone act for a tenant: leave --tenant out",
                "UNKNOWN_TENANT": f"knows no tenant '{tenant}': `trigear admin tenants` lists them",
            }
            why = said.get(error.code)
            if is_unknown_command(error):
                why = "asks nobody who they are, and has no tenants: leave --tenant out"
            if why is None:
                raise
            raise Failure(f"{client.address} {why}", status_of(error)) from error


def complete_context(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The names of contexts, for a shell that completes words."""
    from trigear.cli import contexts

    with contextlib.suppress(Exception):  # a broken file shall not print into a prompt
        return [name for name in contexts.read().servers if name.startswith(incomplete)]
    return []


_OPTIONS: Final = (
    functools.partial(
        click.option,
        "--server",
        "server",
        multiple=True,
        metavar="ADDRESS",
        help="Server to talk to: HOST[:PORT], [IPv6]:PORT, gearman://HOST:PORT, gearmans://HOST:PORT"
        " (with TLS) or unix:PATH; repeatable, the first that answers is taken. Default:"
        " TRIGEAR_SERVERS, GEARMAN_SERVERS (comma-separated), the context in use, localhost:4730.",
    ),
    functools.partial(
        click.option, "-h", "host", metavar="HOST", help="The server's host, as gearman has it."
    ),
    functools.partial(click.option, "-p", "port", type=PORT, metavar="PORT", help="And its port."),
    functools.partial(
        click.option,
        "--context",
        metavar="NAME",
        shell_complete=complete_context,
        help="Take servers, TLS and login of this context; see 'trigear context'.",
    ),
)


_TENANT: Final = functools.partial(
    click.option,
    "--tenant",
    metavar="NAME",
    help="For operators: act for this tenant, with the rights of its admin.",
)


def with_server_and_tenant(command: Callable[..., Any]) -> Callable[..., Any]:
    """As :func:`with_server`, for what operators do for a tenant, too."""

    @functools.wraps(command)
    def with_tenant(
        *args: Any,  # noqa: ANN401
        servers: Servers,
        tenant: str | None,
        **rest: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        return command(*args, servers=servers._replace(tenant=tenant), **rest)

    decorated: Callable[..., Any] = _TENANT()(with_server(with_tenant))
    return decorated


def with_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that say which server; it is called with ``servers``."""

    @functools.wraps(command)
    def with_servers(
        *args: Any,  # noqa: ANN401
        server: Sequence[str],
        host: str | None,
        port: int | None,
        context: str | None,
        **rest: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        servers = choose(server, host, port, context, taken_from(rest))
        return command(*args, servers=servers, **rest)

    decorated: Callable[..., Any] = add_options(with_servers)
    for option in reversed(_OPTIONS):
        decorated = option()(decorated)
    return decorated


def with_server_in_front(group: Callable[..., Any]) -> Callable[..., Any]:
    """Let a group's commands have these options, and --json, in front of their names, too."""
    in_front = click.option("--json", is_flag=True, expose_value=False, help="Print JSON.")
    group = add_options(group, expose_value=False)
    for option in reversed((*_OPTIONS, _TENANT)):
        group = option(expose_value=False)(group)
    return in_front(group)


def choose(
    server: Sequence[str],
    host: str | None,
    port: int | None,
    context: str | None,
    given: Access | None = None,
) -> Servers:
    """The servers that options, environment and configuration name, and how they are spoken with.

    Raises:
        click.UsageError: the options contradict each other.
        ConfigError: what is named is no address or no context.
    """
    if server and (host is not None or port is not None):
        raise click.UsageError("--server and -h or -p both name a server: leave one out")
    if context is not None and (server or host is not None or port is not None):
        raise click.UsageError("--context and --server, -h or -p all name servers: leave one out")
    levels = [given or Access(), from_environment(os.environ)]
    if server:
        places = tuple(parse_address(one, setting="--server") for one in server)
        return Servers(places, access=merged(levels))
    if host is not None or port is not None:
        place = parse_address(
            host if host is not None else "localhost",
            default_port=DEFAULT_PORT if port is None else port,
            setting="-h",
        )
        return Servers((place,), access=merged(levels))
    if context is None:
        for name in VARIABLES:
            if found := from_list(os.environ.get(name, ""), name):
                return Servers(found, name, merged(levels))
    from trigear.cli import contexts

    if (there := contexts.chosen(context)) is not None:
        setting = f"context {there.name!r}"
        places = tuple(parse_address(one, setting=setting) for one in there.servers)
        levels.insert(2 if context is None else 1, there.access)
        return Servers(places, setting, merged(levels))
    return Servers((Address("localhost", DEFAULT_PORT),), access=merged(levels))


def from_list(text: str, setting: str) -> tuple[Address, ...]:
    """The addresses in a comma-separated list."""
    places = [part.strip() for part in text.split(",")]
    return tuple(parse_address(place, setting=setting) for place in places if place)


class Missed(NamedTuple):
    """A server that is not to be had, and why; ``there`` says whether somebody answered."""

    address: Address
    why: str
    there: bool

    def __str__(self) -> str:
        return f"{self.address} ({self.why})"


def open_client(servers: Servers, *, timeout: float = PATIENCE) -> BlockingClient:
    """Connect to the first server that answers, within ``timeout`` seconds for each.

    Raises:
        Failure: none does; says what to do about it.
    """
    missed: list[Missed] = []
    for address in servers.addresses:
        try:
            client = servers.connect(address, timeout)
        except ConnectionLost as error:
            missed.append(Missed(address, reason(error), is_there(error)))
            continue
        if missed:
            remark(f"no server at {', '.join(map(str, missed))}: taking {address}")
        return client
    raise nobody(servers, missed)


def each_server(servers: Servers) -> Iterator[BlockingClient]:
    """A client of every server that answers, one after the other: a job is at one of them.

    Raises:
        Failure: none answers.
    """
    missed: list[Missed] = []
    for address in servers.addresses:
        try:
            client = servers.connect(address, PATIENCE)
        except ConnectionLost as error:
            missed.append(Missed(address, reason(error), is_there(error)))
            continue
        with client:
            yield client
    if len(missed) == len(servers.addresses):
        raise nobody(servers, missed)
    for one in missed:
        remark(f"not asked: {one}")


def nobody(servers: Servers, missed: Sequence[Missed]) -> Failure:
    """What is said when no server can be reached."""
    where = ", ".join(map(str, missed))
    named = f", named by {servers.origin}" if servers.origin else ""
    if all(one.there for one in missed):
        # What to do about it is said already.
        return Failure(f"no connection to {where}{named}", Status.NO_SERVER)
    if all(is_here(one.address) for one in missed):
        then = f"start one with `trigear server`, or name {'another' if named else 'one'}"
    else:
        then = "see that one runs there and can be reached from here, or name another"
    return Failure(f"no server at {where}{named}: {then} with --server", Status.NO_SERVER)


def is_there(error: ConnectionLost) -> bool:
    """Whether somebody answered, and only TLS failed: the words for that are our own."""
    cause = error.__cause__
    return isinstance(cause, ConnectionError) and not cause.errno


def is_here(address: Address) -> bool:
    """Whether the address is on this machine."""
    return address.path is not None or (
        address.host == "localhost" or address.host == "::1" or address.host.startswith("127.")
    )


def reason(error: ConnectionLost) -> str:
    """Why a connection did not come about, without the address."""
    from trigear.runtime.blocking_wire import why_not

    cause = error.__cause__
    return why_not(cause) if isinstance(cause, OSError) else str(error)


@contextlib.contextmanager
def connected(servers: Servers, what: str = "") -> Iterator[BlockingClient]:
    """A client for questions that a server answers at once; ``what`` names them in errors.

    Raises:
        Failure: no server, or none that answers; says what to do about it.
    """
    with open_client(servers) as client, said_for(client, what):
        yield client


@contextlib.contextmanager
def said_for(client: BlockingClient, what: str = "") -> Iterator[None]:
    """Say of a question that failed what may be the matter."""
    try:
        yield
    except ConnectionLost as error:
        if isinstance(error.__cause__, RemoteProtocolError):
            raise Failure(str(error), Status.NO_SERVER) from error
        raise
    except Refused as error:
        raise refusal(client, error, what) from error
    except TimeoutError as error:
        raise Failure(
            f"{client.address} took the connection, but does not answer: is it a Gearman server,"
            " and is it alive?",
            Status.NO_SERVER,
        ) from error


def refusal(client: BlockingClient, error: Refused, what: str = "") -> Failure:
    """What is said when a server refused ``what``."""
    text = error.text.strip()
    if text and error.code != "ERR":
        text = f"{text} ({error.code})"
    if error.code == "AUTHENTICATION_REQUIRED":
        text += "; log in with --user NAME, and --password-file FILE or --cert"
    return Failure(
        f"{client.address} refused{what and ' '}{what}: {text or error.code}", status_of(error)
    )


def checked_word(name: str, what: str) -> str:
    """A name that goes into a text command, where blanks separate.

    Raises:
        ConfigError: it cannot.
    """
    if not name or any(char in " \n\r\0" for char in name):
        raise ConfigError(
            what, f"{name!r} cannot stand in a text command", "a name without blanks is needed"
        )
    return name
