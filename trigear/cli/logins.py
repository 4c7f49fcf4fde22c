"""What a server's options say about logins: who may come in where, and the file of users."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import exposure
from trigear.cli.plan import absolute
from trigear.cli.report import Failure, Status
from trigear.errors import ConfigError
from trigear.model import counted
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from trigear.engine.config import ServerConfig
    from trigear.engine.logins import Logins
    from trigear.runtime.server import Server

NONE: Final = "none"
WAYS: Final = (NONE, "sasl", "mtls", "peer")
NAME: Final = "users.toml"
SYSTEM: Final = "/etc/trigear"

NO_USER: Final = "nobody can log in yet: trigear user add NAME --role submit --role work --users {}"


@dataclass(frozen=True, slots=True)
class LoginPlan:
    """How peers become known, and where the users are."""

    ways: tuple[str, ...]
    path: str


def with_login_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `trigear server`."""
    command = click.option(
        "--users",
        metavar="FILE",
        help="Who may log in. Default: users.toml in $XDG_CONFIG_HOME/trigear or /etc/trigear.",
    )(command)
    return click.option(
        "--auth",
        type=click.Choice(WAYS),
        multiple=True,
        default=(NONE,),
        help="How peers prove who they are: by a login (sasl), their certificate (mtls), or as the"
        " system user on a Unix socket (peer); repeatable. Who is none of these may do nothing.",
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


def login_plan(given: Mapping[str, Any], config: ServerConfig, folder: str) -> LoginPlan | None:
    """What the options ask for; None if nobody is asked who they are.

    Raises:
        ConfigError: they contradict each other or the addresses.
    """
    ways = tuple(dict.fromkeys(given["auth"]))
    if NONE in ways:
        if len(ways) > 1:
            raise ConfigError("--auth", f"none and {ways[-1]} contradict each other")
        if given["users"] is not None:
            raise ConfigError("--users", "of no use without a login", "add --auth sasl")
        return None
    addresses = [parse_address(text, setting=f"--listen {text}") for text in config.listen]
    if "mtls" in ways and (config.tls is None or config.tls.clients.value == "none"):
        raise ConfigError(
            "--auth mtls",
            "no client is asked for a certificate",
            "add --client-certs required and --client-ca, with --cert, --key and a gearmans://"
            " address",
        )
    if "peer" in ways and all(address.path is None for address in addresses):
        raise ConfigError("--auth peer", "there is no Unix socket", "add --listen unix:PATH")
    path = usual_place() if given["users"] is None else absolute(given["users"], folder)
    return LoginPlan(ways, path)


def refuse_plain(wide: Iterable[str]) -> None:
    """Stop where passwords, and all that follows them, would cross a network in the open.

    Raises:
        ConfigError: an address of ``wide`` does not ask for TLS.
    """
    plain = [address for address in wide if not parse_address(address).tls]
    if plain:
        raise ConfigError(
            f"--listen {', '.join(plain)}",
            "other machines could connect, and logins beyond this machine need TLS",
            "write gearmans://HOST:PORT and name --cert and --key",
        )


def refuse_plain_sockets(sockets: Iterable[Any]) -> None:
    """The same for what was really bound.

    Raises:
        ConfigError: one can be reached from other machines, and has no TLS.
    """
    from trigear.runtime.listeners import address_text, is_tls

    plain = [bound for bound in sockets if not is_tls(bound)]
    wide = [
        address_text(bound)
        for bound in plain
        if isinstance(bound.getsockname(), tuple)
        and not exposure.is_loopback(bound.getsockname()[0])
    ]
    refuse_plain(wide)


class Users:
    """The users of a running server, and the logins that go by them.

    Raises:
        ConfigError, Failure: the file cannot be used; one that is not there is one without users.
    """

    def __init__(self, plan: LoginPlan, owners: Collection[int] = ()) -> None:
        from trigear.engine.doors import Way
        from trigear.engine.logins import Logins
        from trigear.security.mechs import Authenticator, LoginSettings
        from trigear.security.throttle import Throttle

        self._path = plan.path
        self._owners = owners
        authenticator = Authenticator(
            self._read(), LoginSettings(), Throttle(), self._secret(), os.urandom
        )
        self.logins: Logins = Logins(authenticator, [Way(way) for way in plan.ways])

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

    def reload(self, server: Server) -> str:
        """Take the users of the changed file; who is gone or has another password is put out.

        Raises:
            ConfigError, Failure: the file cannot be used; nothing has changed then.
        """
        fresh = self._read(there=len(self.logins.authenticator.users) > 0)
        ended = server.renew_users(fresh)
        closed = f", {counted(ended, 'connection')} ended" if ended else ""
        return f"{counted(len(fresh), 'user')}{closed}"
