"""How commands speak with servers: TLS and a login, as options, environment and contexts say it.

A secret is in none of these. Where the password is, is said by a path; or it is asked for on the
terminal, once for each command.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from trigear.runtime.address import Address
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

INSECURE: Final = (
    "warning: --insecure-no-verify: whoever answers is taken for the server; others on the way can"
    " read and change all that is said, and pretend to be it"
)

MOST_PASSWORD: Final = 1024
"""Bytes of a password."""

_OPTIONS: Final = (
    functools.partial(
        click.option,
        "--tls",
        is_flag=True,
        help="Speak TLS with every server but Unix sockets, not only with gearmans:// addresses.",
    ),
    functools.partial(
        click.option,
        "--ca",
        metavar="FILE",
        help="Authorities (PEM) to trust instead of the system's. This and the next three mean"
        " --tls.",
    ),
    functools.partial(
        click.option, "--cert", metavar="FILE", help="Certificate of your own (PEM)."
    ),
    functools.partial(
        click.option, "--key", metavar="FILE", help="Its private key (PEM), not encrypted."
    ),
    functools.partial(
        click.option,
        "--insecure-no-verify",
        "insecure",
        is_flag=True,
        help="Take whoever answers for the server: TLS that protects from nobody in between.",
    ),
    functools.partial(
        click.option,
        "--user",
        metavar="NAME",
        help="Log in as this user: with a password, or by --cert. Default: TRIGEAR_USER, the"
        " context.",
    ),
    functools.partial(
        click.option,
        "--password-file",
        metavar="FILE",
        help="Where the password is; yours alone to read. Default: TRIGEAR_PASSWORD_FILE, the"
        " context, the terminal.",
    ),
)

NAMES: Final = ("tls", "ca", "cert", "key", "insecure", "user", "password_file")
"""The parameters of these options."""


@dataclass
class Access:
    """How servers are spoken with.

    ``tls`` means every TCP connection; any file of TLS means that as well.
    """

    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    user: str = ""
    password_file: str = ""
    _auth: Auth | None = field(default=None, repr=False, compare=False)
    _context: ClientContext | None = field(default=None, repr=False, compare=False)
    _warned: bool = field(default=False, repr=False, compare=False)

    @property
    def means_tls(self) -> bool:
        """Whether TLS is spoken with every server on TCP."""
        return bool(self.tls or self.ca or self.cert or self.key or self.insecure)

    @property
    def by_certificate(self) -> bool:
        """Whether the certificate says who it is, and not a password."""
        return bool(self.user and self.cert and not self.password_file)

    def context_for(self, address: Address) -> ClientContext | None:
        """How TLS is spoken with a server; None where it is not. The files are read once.

        Raises:
            ConfigError: one cannot be used, or they do not go together.
        """
        if address.path is not None or not (self.means_tls or address.tls):
            return None
        if self._context is None:
            from trigear.security.tls import build_client

            self.check()
            self.warn()
            self._context = build_client(
                tls_of(self.ca, self.cert, self.key, insecure=self.insecure)
            )
        return self._context

    def check(self) -> None:
        """See whether the files of TLS go together.

        Raises:
            ConfigError: they do not.
        """
        if bool(self.cert) != bool(self.key):
            there, missing = ("cert", "key") if self.cert else ("key", "cert")
            raise ConfigError(
                f"--{there}", f"{getattr(self, there)} alone is of no use", f"add --{missing} FILE"
            )

    def warn(self) -> None:
        """Say what an insecure connection is, however quiet one is to be."""
        if self.insecure and not self._warned:
            self._warned = True
            click.echo(f"trigear: {INSECURE}", err=True)

    def auth(self) -> Auth | None:
        """Who to log in as; None for nobody. Asks for the password where no file has it.

        Raises:
            ConfigError: the file cannot be used.
            click.UsageError: there is neither a file nor a terminal.
        """
        if self._auth is None and self.user:
            self._auth = auth_of(self.user, self.password())
        return self._auth

    def password(self) -> bytes | None:
        """The password; None where there is none, because the certificate is enough."""
        if self.by_certificate or not self.user:
            return None
        return read_password(self.password_file) if self.password_file else ask_password(self.user)


def tls_of(ca: str, cert: str, key: str, *, insecure: bool) -> ClientTLS:
    """TLS by these files."""
    # Only here: it brings what reads certificates.
    from trigear.security.tls import ClientTLS

    return ClientTLS(ca=ca, certificate=cert, key=key, verify=not insecure)


def auth_of(user: str, password: bytes | str | None) -> Auth:
    """A login with a password, or by the certificate where there is none."""
    from trigear.security.sasl_client import Auth

    if password is None:
        return Auth(authzid=user, external=True)
    return Auth(user, password)


def read_password(path: str) -> bytes:
    """The password in a file that nobody else can read.

    Raises:
        ConfigError: others can, or it cannot be read.
    """

    def wrong(problem: str, remedy: str = "") -> ConfigError:
        return ConfigError("--password-file", f"{path}: {problem}", remedy)

    try:
        with open(path, "rb") as source:
            # Of the file that is open, and not of what may stand there by now.
            status = os.fstat(source.fileno())
            if status.st_uid not in {0, os.geteuid()}:
                raise wrong(
                    f"it belongs to somebody else (user {status.st_uid})",
                    "use a file of your own",
                )
            mode = status.st_mode & 0o777
            # So look credentials of systemd: root's, with an entry for one user beside it.
            credential = mode == 0o440 and status.st_uid == status.st_gid == 0
            if mode & 0o077 and not credential:
                raise wrong(
                    f"others may get at it (mode {mode:04o})",
                    f"run: chmod 600 {path}",
                )
            data = source.read(MOST_PASSWORD + 3)
    except OSError as error:
        raise wrong(
            f"it cannot be read: {error.strerror}", "check the path and its rights"
        ) from error
    password = data.removesuffix(b"\n").removesuffix(b"\r")
    if not password or len(password) > MOST_PASSWORD:
        raise wrong(
            "it is empty" if not password else f"it is longer than {MOST_PASSWORD} bytes",
            "the password is all that is to be in it",
        )
    return password


def ask_password(user: str) -> bytes:
    """The password, from the terminal.

    Raises:
        click.UsageError: there is none.
    """
    if not (sys.stdin.isatty() or has_terminal()):
        raise click.UsageError(
            f"no password for '{user}', and no terminal to ask on: name a file with --password-file"
        )
    import getpass

    try:
        text = getpass.getpass(f"Password of {user}: ")
    except EOFError:
        raise click.Abort from None
    return text.encode("utf-8", "surrogateescape")


def has_terminal() -> bool:
    """Whether there is a terminal behind all that standard input may be."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def with_access(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options; it is called with ``access``."""

    @functools.wraps(command)
    def with_these(*args: Any, **given: Any) -> Any:  # noqa: ANN401
        return command(*args, access=taken_from(given), **given)

    return add_options(with_these)


def add_options(command: Callable[..., Any], **how: Any) -> Callable[..., Any]:  # noqa: ANN401
    for option in reversed(_OPTIONS):
        command = option(**how)(command)
    return command


def taken_from(given: dict[str, Any]) -> Access:
    """What these options say; they are not among the given any more."""
    said = {name: given.pop(name) for name in NAMES}
    return Access(**{name: value for name, value in said.items() if value})


def from_environment(environment: Mapping[str, str]) -> Access:
    """What the environment says."""
    return Access(
        user=environment.get("TRIGEAR_USER", ""),
        password_file=environment.get("TRIGEAR_PASSWORD_FILE", ""),
    )


def merged(levels: Iterable[Access]) -> Access:
    """One out of several, of which the first wins. Certificate and key belong together, and so do
    a name and the file with its password.

    Raises:
        click.UsageError: a file with a password, and nobody's.
    """
    found = Access()
    for level in levels:
        found = replace(
            found,
            tls=found.tls or level.tls,
            ca=found.ca or level.ca,
            insecure=found.insecure or level.insecure,
            _auth=None,
            _context=None,
        )
        if not (found.cert or found.key):
            found = replace(found, cert=level.cert, key=level.key)
        if not found.password_file and (not found.user or level.user in {"", found.user}):
            found = replace(found, password_file=level.password_file)
        found = replace(found, user=found.user or level.user)
    if found.password_file and not found.user:
        raise click.UsageError(
            f"a password file ({found.password_file}) and no user: name one with --user, or with"
            " TRIGEAR_USER"
        )
    return found
