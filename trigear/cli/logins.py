"""What a server's options say about logins: who may come in where, and the file of users."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import exposure
from trigear.cli.listener_tables import TLS_KEYS
from trigear.cli.plan import absolute, at
from trigear.cli.report import Failure, Status
from trigear.cli.tls import server_tls
from trigear.cli.values import DURATION, NETWORK, Whole
from trigear.engine.config import ListenerConfig
from trigear.engine.doors import (
    LOOPBACK,
    MOST_UNKNOWN,
    MOST_UNKNOWN_PER_ADDRESS,
    Door,
    Networks,
    Way,
)
from trigear.errors import ConfigError
from trigear.model import counted
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from trigear.cli.listener_tables import ListenerTable
    from trigear.engine.config import ServerConfig
    from trigear.engine.logins import Logins
    from trigear.runtime.address import Address
    from trigear.runtime.server import Server
    from trigear.security.tls import ServerTLS
    from trigear.stores.lock import LockFile

NONE: Final = "none"
WAYS: Final = (NONE, "sasl", "mtls", "peer", "network")
NAME: Final = "users.toml"
SYSTEM: Final = "/etc/trigear"

NO_USER: Final = "nobody can log in yet: trigear user add NAME --role submit --role work --users {}"


@dataclass(frozen=True, slots=True)
class LoginPlan:
    """How peers become known, and where the users are.

    ``door`` is that of addresses that have none of their own, ``others`` are those of the others;
    ``deadline`` in seconds.
    """

    door: Door
    path: str
    others: tuple[Door, ...] = ()
    deadline: float = 15.0
    drop_on_password_change: bool = True


def with_login_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `trigear server`."""
    command = click.option(
        "--users",
        metavar="FILE",
        help="Who may log in. Default: users.toml in $XDG_CONFIG_HOME/trigear or /etc/trigear.",
    )(command)
    command = click.option(
        "--limit-exempt",
        type=NETWORK,
        multiple=True,
        metavar="NETWORK",
        default=LOOPBACK,
        help="Bounds per address do not apply to these networks, nor to Unix sockets; repeatable.",
    )(command)
    command = click.option(
        "--max-unauthenticated-per-address",
        type=Whole(0),
        default=MOST_UNKNOWN_PER_ADDRESS,
        metavar="N",
        help="Refuse connections from an address if so many from there have not logged in yet;"
        " 0: never.",
    )(command)
    command = click.option(
        "--max-unauthenticated",
        type=Whole(0),
        default=MOST_UNKNOWN,
        metavar="N",
        help="Accept no more connections at an address of the server's while so many there have"
        " not logged in yet; 0: any number.",
    )(command)
    command = click.option(
        "--auth-deadline",
        type=DURATION,
        default="15s",
        metavar="DURATION",
        help="How long after connecting one may take to log in.",
    )(command)
    command = click.option(
        "--drop-on-password-change/--no-drop-on-password-change",
        default=True,
        help="End the connections of users who get another password.",
    )(command)
    return click.option(
        "--auth",
        type=click.Choice(WAYS),
        multiple=True,
        default=(NONE,),
        help="How peers become known: by a login (sasl), their certificate (mtls), as the system"
        " user on a Unix socket (peer), or by their address (network: see [networks] in"
        " trigear.toml); repeatable. Who is none of these may do nothing.",
    )(command)


def usual_place() -> str:
    """Where the users are when nobody names a file: the person's, else the system's."""
    home = os.environ.get("XDG_CONFIG_HOME")
    person = os.path.join(home or os.path.expanduser("~/.config"), "trigear", NAME)
    system = os.path.join(SYSTEM, NAME)
    for place in (person, system):
        if os.path.exists(place):
            return place
    return person if home or os.geteuid() != 0 else system


def with_doors(
    config: ServerConfig,
    given: Mapping[str, Any],
    listeners: Sequence[ListenerTable],
    networks: Networks | None,
    folder: str,
) -> ServerConfig:
    """The configuration with what single addresses have of their own.

    Args:
        config: what holds for all addresses, with these among them.
        given: the values of the options, by parameter name.
        listeners: what the file says about single addresses.
        networks: who comes from where, at addresses that say nothing else.
        folder: where relative paths begin.

    Raises:
        ConfigError: something contradicts something else; names the file and the address.
    """
    own = {}
    for table in listeners:
        try:
            own[at(folder, table.address)] = _own(config, given, table, networks, folder)
        except ConfigError as error:
            raise ConfigError(f"{table.place} ({table.address})", str(error)) from error
    return dataclasses.replace(config, listeners=own)


def _own(
    config: ServerConfig,
    given: Mapping[str, Any],
    table: ListenerTable,
    networks: Networks | None,
    folder: str,
) -> ListenerConfig:
    values, address = table.values, parse_address(table.address)
    tls = None
    if any(key.replace("-", "_") in values for key in TLS_KEYS):
        if not address.tls:
            key = next(key for key in TLS_KEYS if key.replace("-", "_") in values)
            raise ConfigError(key, "of no use without TLS", "write gearmans://HOST:PORT")
        tls = server_tls({**given, **values}, (table.address,), folder)
    door = None
    if "auth" in values or table.networks is not None:
        door = _door(
            tuple(values.get("auth", given["auth"])),
            networks if table.networks is None else table.networks,
            "auth",
        )
        if table.networks is not None and Way.NETWORK not in door.ways:
            raise ConfigError("networks", "of no use without it", 'write auth = ["network"]')
        _refuse_idle(door, [address], [tls or config.tls], "auth")
    allow = tuple(values["allow"]) if "allow" in values else None
    return ListenerConfig(allow, tls, door)


def _door(ways: Sequence[str], networks: Networks | None, setting: str) -> Door:
    """How these ways let people in.

    Raises:
        ConfigError: they contradict each other.
    """
    ways = tuple(dict.fromkeys(ways))
    if NONE in ways:
        if len(ways) > 1:
            other = next(way for way in ways if way != NONE)
            raise ConfigError(setting, f"none and {other} contradict each other")
        return Door(open=True)
    if not ways:
        raise ConfigError(setting, "nobody could come in", f"write one of {', '.join(WAYS)}")
    door = Door(frozenset(map(Way, ways)), networks or Networks())
    if Way.NETWORK in door.ways and not door.networks:
        raise ConfigError(
            f"{setting} network",
            "no network is listed",
            'write [networks] in trigear.toml, and "10.1.0.0/16" = { tenant = "acme", roles ='
            ' ["submit", "work"] } below it',
        )
    return door


def _refuse_idle(
    door: Door, addresses: Sequence[Address], tls: Sequence[ServerTLS | None], setting: str
) -> None:
    """Stop where nobody can ever come in by one of the ways.

    Raises:
        ConfigError: so it is.
    """
    asked = [each for each in tls if each is not None and each.clients.value != "none"]
    if Way.MTLS in door.ways and not (asked and any(each.tls for each in addresses)):
        raise ConfigError(
            f"{setting} mtls",
            "no client is asked for a certificate",
            "add --client-certs required and --client-ca, with --cert, --key and a gearmans://"
            " address",
        )
    if Way.PEER in door.ways and all(each.path is None for each in addresses):
        raise ConfigError(f"{setting} peer", "there is no Unix socket", "add --listen unix:PATH")
    others = [each for each in addresses if each.tls or each.path is not None]
    if door.ways == {Way.NETWORK} and 0 < len(others) < len(addresses):
        raise ConfigError(
            f"{setting} network",
            f"only plain TCP goes by addresses, and nobody could come in at {others[0]}",
            "give that one a way in of its own, in a [[listener]] of trigear.toml",
        )
    if Way.NETWORK in door.ways and len(others) == len(addresses):
        raise ConfigError(
            f"{setting} network",
            "only plain TCP goes by addresses",
            "add --listen HOST:PORT, or leave network out",
        )


def login_plan(
    given: Mapping[str, Any], config: ServerConfig, networks: Networks | None, folder: str
) -> LoginPlan | None:
    """What the options ask for; None if nobody is asked who they are at any address.

    Raises:
        ConfigError: they contradict each other or the addresses.
    """
    door = _door(given["auth"], networks, "--auth")
    common = [text for text in config.listen if config.own(text).door is None]
    others = tuple(own.door for own in config.listeners.values() if own.door is not None)
    doors = [*([door] if common else []), *others]
    if networks and not any(Way.NETWORK in each.ways for each in doors):
        raise ConfigError("[networks]", "of no use here", 'write auth = ["network"] under [server]')
    if all(each.open for each in doors):
        if given["users"] is not None:
            raise ConfigError("--users", "of no use without a login", "add --auth sasl")
        return None
    if not door.open and common:
        addresses = [parse_address(text, setting=f"--listen {text}") for text in common]
        _refuse_idle(
            door, addresses, [config.own(text).tls or config.tls for text in common], "--auth"
        )
    path = usual_place() if given["users"] is None else absolute(given["users"], folder)
    deadline, drop = given["auth_deadline"], given["drop_on_password_change"]
    return LoginPlan(door, path, others, deadline, drop)


def judged(
    wide: Mapping[str, str], config: ServerConfig, plan: LoginPlan | None, *, insecure_open: bool
) -> list[str]:
    """What is to be said of the addresses that other machines can reach.

    Args:
        wide: these addresses, by what stands in the configuration.
        config: what holds there.
        plan: how peers become known where an address says nothing else.
        insecure_open: whether somebody said that nobody shall be asked.

    Raises:
        ConfigError: at one of them nobody is asked, or passwords would cross the network in the
            open.
    """
    doors = {
        text: config.own(text).door or (plan.door if plan else Door(open=True)) for text in wide
    }
    open_to = [shown for text, shown in wide.items() if doors[text].open]
    plain = [text for text in wide if not doors[text].open and not parse_address(text).tls]
    believing = [wide[text] for text in plain if doors[text].ways == {Way.NETWORK}]
    refuse_plain(wide[text] for text in plain if doors[text].ways != {Way.NETWORK})
    if not insecure_open:
        exposure.refuse_exposure(open_to)
    notes = [exposure.warning_for(open_to)]
    if believing:
        notes.append(
            f"known by their addresses alone: {', '.join(believing)}; whoever can take an address"
            " of a listed network, or read on the way, is as good as its peers"
        )
    return [note for note in notes if note is not None]


def refuse_plain(wide: Iterable[str]) -> None:
    """Stop where passwords, and all that follows them, would cross a network in the open.

    Raises:
        ConfigError: there is an address in ``wide``.
    """
    plain = ", ".join(wide)
    if plain:
        raise ConfigError(
            f"--listen {plain}",
            "other machines could connect, and logins beyond this machine need TLS",
            "write gearmans://HOST:PORT and name --cert and --key",
        )


CLAIMS: Final = 8
"""Servers that go by one file of users and are told of its changes."""


def claims_of(path: str) -> list[str]:
    """The files by which servers say that they go by the users in this one."""
    real = os.path.realpath(path)
    return [f"{real}.server{number or ''}" for number in range(CLAIMS)]


class Users:
    """The users of a running server, and the logins that go by them.

    Args:
        plan: what the options ask for.
        owners: uids that may own the file beside root and whoever runs this.
        only_look: whether nothing may be written.

    Raises:
        ConfigError, Failure: the file cannot be used; one that is not there is one without users.
    """

    def __init__(
        self, plan: LoginPlan, owners: Collection[int] = (), *, only_look: bool = False
    ) -> None:
        from trigear.engine.logins import Logins
        from trigear.security.mechs import Authenticator, LoginSettings
        from trigear.security.throttle import Throttle
        from trigear.security.users_file import SECRET_BYTES

        self._path = plan.path
        self._owners = owners
        self._claim: LockFile | None = None
        secret = os.urandom(SECRET_BYTES) if only_look else self._secret()
        authenticator = Authenticator(self._read(), LoginSettings(), Throttle(), secret, os.urandom)
        self.logins: Logins = Logins(
            authenticator,
            plan.door,
            deadline=plan.deadline,
            others=plan.others,
            drop_on_password_change=plan.drop_on_password_change,
        )

    @property
    def notes(self) -> list[str]:
        """What to say at the start."""
        return [] if len(self.logins.authenticator.users) else [NO_USER.format(self._path)]

    def _read(self, *, there: bool = False) -> Any:  # noqa: ANN401
        from trigear.security import users, users_file

        try:
            return users_file.load(self._path, self._owners)
        except FileNotFoundError as error:
            if there:
                # Lost, or in the middle of being put back: no reason to put everybody out.
                raise Failure(f"{self._path}: it is not there any more") from error
            return users.Users(())
        except OSError as error:
            raise Failure(
                f"{self._path}: {error.strerror}; name another file with --users",
                Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO,
            ) from error

    def _secret(self) -> bytes:
        from trigear.security.users_file import SECRET_BYTES, mock_secret

        try:
            return mock_secret(f"{self._path}.secret", os.urandom, self._owners)
        except OSError:
            # Without it, only the salts of names that nobody has change with each start.
            return os.urandom(SECRET_BYTES)

    def claim(self, address: str) -> None:
        """Let `trigear user` know that this process goes by the file. Where nothing can be written
        beside it, nothing is: then it is told by hand.

        Args:
            address: where it serves, for people.
        """
        from trigear import __version__
        from trigear.errors import StoreUnusable
        from trigear.stores.base import Owner
        from trigear.stores.lock import LockFile

        owner = Owner(os.getpid(), address, __version__, b"")
        for claim in claims_of(self._path):
            try:
                self._claim = LockFile(claim, owner)
            except StoreUnusable:
                continue  # another server goes by the same users
            except OSError:
                pass
            return

    def release(self) -> None:
        """The process ends."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()

    def reload(self, server: Server) -> str:
        """Take the users of the changed file; who is gone or has another password is put out.

        Raises:
            ConfigError, Failure: the file cannot be used; nothing has changed then.
        """
        fresh = self._read(there=len(self.logins.authenticator.users) > 0)
        ended = server.renew_users(fresh)
        closed = f", {counted(ended, 'connection')} ended" if ended else ""
        return f"{counted(len(fresh), 'user')}{closed}"
