"""`trigear user`: who may log in, kept in `users.toml`. Servers that go by the file are told of
changes, and take them over.

Passwords never stand on a command line. They are made here and shown once, asked for on a terminal,
or read from a file.
"""

from __future__ import annotations

import difflib
import os
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import logins
from trigear.cli.groups import NearGroup
from trigear.cli.manners import ask, remark, with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import columns, json_option, show, write
from trigear.cli.values import DURATION
from trigear.errors import ConfigError
from trigear.model import counted
from trigear.security import users_file
from trigear.security.policy import EVERY, Role
from trigear.security.remarks import remarks
from trigear.security.scram import (
    GENERATED_ITERATIONS,
    HUMAN_ITERATIONS,
    ScramError,
    matching,
    prepare,
)
from trigear.security.users import PLAIN, USER_NAME, User, Users

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET_BYTES: Final = 20
"""Random bytes of a password that is made here."""

users_option = click.option("--users", metavar="FILE", help="The file. Default: the server's.")


def password_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--ask", "asked", is_flag=True, help="Ask for the password on the terminal."
    )(command)
    return click.option(
        "--password-file",
        type=click.File("rb"),
        metavar="FILE",
        help="Read the password from a file; -: from standard input.",
    )(command)


def place_of(users: str | None) -> str:
    return logins.usual_place() if users is None else os.path.abspath(users)


def afterwards(users: str | None) -> str:
    """Tell the servers that go by the file; what to say about that."""
    from trigear.cli.afterwards import tell_servers_of

    return tell_servers_of(place_of(users))


def loaded(users: str | None) -> Users:
    """The users of the file.

    Raises:
        Failure: it cannot be read.
    """
    path = place_of(users)
    try:
        return users_file.load(path)
    except FileNotFoundError as error:
        raise Failure(
            f"{path}: there is no user yet; add one with `trigear user add NAME`"
        ) from error


def one(users: str | None, name: str) -> User:
    user = loaded(users).get(name)
    if user is None:
        raise Failure(f"{place_of(users)}: there is no user '{name}'; `trigear user list` has all")
    return user


class Password:
    """A password, and what it shall cost to guess it."""

    def __init__(self, file: Any, *, asked: bool, again: bool = True) -> None:  # noqa: ANN401
        self.generated = file is None and not asked
        self.iterations = GENERATED_ITERATIONS if self.generated else HUMAN_ITERATIONS
        if file is not None and asked:
            raise click.UsageError("--ask and --password-file both say where the password is")
        if file is not None:
            self.bytes: bytes = file.read().removesuffix(b"\n").removesuffix(b"\r")
        elif asked:
            if not sys.stdin.isatty():
                raise click.UsageError("there is no terminal to ask on: use --password-file")
            text = click.prompt("Password", hide_input=True, confirmation_prompt=again, err=True)
            self.bytes = text.encode()
        else:
            self.bytes = secrets.token_urlsafe(SECRET_BYTES).encode()

    def tell(self) -> None:
        """Show it, if nobody else knows it."""
        if self.generated:
            remark("the password, which is shown this once:")
            write(self.bytes + b"\n")


def edited(users: str | None, change: Callable[[users_file.Editor], None]) -> None:
    """Change the file, which must be there."""
    path = place_of(users)
    try:
        with users_file.edit(path) as editor:
            change(editor)
    except FileNotFoundError as error:
        raise Failure(f"{path}: there is no user yet") from error


@click.group(
    cls=NearGroup,
    name="user",
    epilog=examples(
        """
        trigear user add alice --tenant acme --role submit --role work
        trigear user passwd alice --overlap 24h
        trigear user list
        """
    ),
)
@with_manners
@with_help
def user_group() -> None:
    """Say who may log in to a server, and as what.

    The users stand in users.toml, which only its owner may read. Passwords are kept as verifiers:
    nobody can log in with what is in the file.
    """


@user_group.command(
    name="add",
    epilog=examples("trigear user add alice --tenant acme --role submit --submit 'mail.*'"),
)
@click.argument("name")
@click.option("--tenant", metavar="TENANT", help="Whose functions and jobs it sees.")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    help="What it may do; repeatable.",
)
@click.option("--submit", multiple=True, metavar="GLOB", help="Only jobs of these functions.")
@click.option("--work", multiple=True, metavar="GLOB", help="Only do jobs of these functions.")
@click.option(
    "--uid",
    "uids",
    type=click.IntRange(0),
    multiple=True,
    metavar="UID",
    help="The system user that it is on a Unix socket.",
)
@click.option(
    "--cert",
    "certs",
    multiple=True,
    metavar="MARK",
    help="What its certificate is known by: cn:NAME, dns:NAME, sha256:DIGITS, …",
)
@click.option("--no-password", is_flag=True, help="It is known by its certificate or uid only.")
@password_options
@users_option
@with_manners
@with_help
def add_command(
    name: str,
    *,
    tenant: str | None,
    roles: tuple[str, ...],
    password_file: Any,  # noqa: ANN401
    asked: bool,
    no_password: bool,
    users: str | None,
    **lists: tuple[object, ...],
) -> int:
    """Add a user, with a password that is made here unless one is given."""
    if not USER_NAME.fullmatch(name):
        raise ConfigError("user", f"{name!r} is no name", "letters, digits and ._@+- make one")
    if no_password and (asked or password_file is not None):
        raise click.UsageError("--no-password and a password contradict each other")
    settings: dict[str, Any] = {} if tenant is None else {"tenant": tenant}
    settings["roles"] = list(roles)
    keys = {"submit": "submit", "work": "work", "uids": "unix_uids", "certs": "certs"}
    settings |= {keys[key]: list(value) for key, value in lists.items() if value}
    password = None if no_password else Password(password_file, asked=asked)
    path = place_of(users)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with users_file.edit(path, create=True) as editor:
        editor.add(name, settings)
        if password is not None:
            set_password(editor, name, password)
    if not roles:
        remark(f"'{name}' has no role yet, and may do nothing: --role gives some")
    remark(f"added '{name}' in {path}; {afterwards(users)}")
    if password is not None:
        password.tell()
    return Status.DONE


def set_password(
    editor: users_file.Editor, name: str, password: Password, until: float | None = None
) -> None:
    try:
        editor.set_password(name, password.bytes, password.iterations, os.urandom, old_until=until)
    except ScramError as error:
        raise Failure(f"this is no password: {error}") from error


@user_group.command(name="passwd", epilog=examples("trigear user passwd alice --overlap 24h"))
@click.argument("name")
@click.option(
    "--overlap", type=DURATION, metavar="DURATION", help="For so long the old one is good as well."
)
@password_options
@users_option
@with_manners
@with_help
def passwd_command(
    name: str,
    *,
    overlap: float | None,
    password_file: Any,  # noqa: ANN401
    asked: bool,
    users: str | None,
) -> int:
    """Give a user another password."""
    one(users, name)
    password = Password(password_file, asked=asked)
    until = None if overlap is None else time.time() + overlap
    edited(users, lambda editor: set_password(editor, name, password, until))
    remark(f"'{name}' has another password; {afterwards(users)}")
    password.tell()
    return Status.DONE


@user_group.command(name="list", epilog=examples("trigear user list --json"))
@json_option
@users_option
@with_manners
@with_help
def list_command(*, as_json: bool, users: str | None) -> int:
    """List the users."""
    rows = [
        (
            user.name,
            user.tenant,
            " ".join(role.value for role in Role if role in user.roles),
            "in force" if user.in_force(time.time()) else "shut out",
        )
        for user in loaded(users)
    ]
    show(columns("name", "tenant", "roles", "state"), rows, as_json=as_json)
    return Status.DONE


@user_group.command(name="show", epilog=examples("trigear user show alice"))
@click.argument("name")
@users_option
@with_manners
@with_help
def show_command(name: str, *, users: str | None) -> int:
    """Show all of a user but its verifiers."""
    user = one(users, name)
    pairs = [
        ("identity", user.principal),
        ("roles", " ".join(role.value for role in Role if role in user.roles) or "none"),
        ("submit", "all" if user.submit == EVERY else " ".join(user.submit.globs)),
        ("work", "all" if user.work == EVERY else " ".join(user.work.globs)),
        ("password", "yes" if user.verifiers else "none"),
        ("certs", " ".join(user.certificates) or "none"),
        ("unix_uids", " ".join(map(str, user.uids)) or "none"),
        ("state", "in force" if user.in_force(time.time()) else "shut out"),
    ]
    show(columns("setting", "value"), pairs, as_json=False)
    return Status.DONE


@user_group.command(name="remove", epilog=examples("trigear user remove alice"))
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@users_option
@with_manners
@with_help
def remove_command(name: str, *, yes: bool, users: str | None) -> int:
    """Forget a user."""
    one(users, name)
    if not ask(f"Remove the user '{name}'?", yes=yes):
        raise Failure("nobody was removed")
    edited(users, lambda editor: editor.remove(name))
    remark(f"removed '{name}'; {afterwards(users)}")
    return Status.DONE


@user_group.command(
    name="cert-bind",
    epilog=examples(
        """
        trigear user cert-bind alice --cert alice.pem
        trigear user cert-bind alice --cert alice.pem --pin
        """
    ),
)
@click.argument("name")
@click.option("--cert", "file", required=True, metavar="FILE", help="The certificate (PEM).")
@click.option(
    "--pin", is_flag=True, help="By its fingerprint: the next certificate has to be bound again."
)
@users_option
@with_manners
@with_help
def cert_bind_command(name: str, *, file: str, pin: bool, users: str | None) -> int:
    """Have a user known by a certificate: by a name in it, or by its fingerprint.

    A certificate that names the user itself, as those of 'trigear certs client' do, needs no more.
    """
    from pathlib import Path

    from cryptography.hazmat.primitives.serialization import Encoding

    from trigear.security import issuing, x509id

    user = one(users, name)
    certificate = x509id.read(issuing.read_certificate(Path(file)).public_bytes(Encoding.DER))
    if certificate.for_clients is False:
        raise Failure(f"{file}: it is not for clients, and no server would accept it")
    claimed = [uri for uri in certificate.uris if uri.startswith(x509id.SCHEME)]
    itself = f"{x509id.SCHEME}//{user.principal}"
    if claimed not in ([], [itself]):
        raise Failure(f"{file}: it names somebody else, {' and '.join(claimed)}")
    fingerprint, *names = x509id.marks(certificate)
    if claimed and not pin:
        remark(f"'{name}' is known by {itself}, which stands in the certificate: nothing to do")
        return Status.DONE
    if not names and not pin:
        raise Failure(f"{file}: there is no name in it; --pin takes its fingerprint")
    mark = fingerprint if pin else names[0]
    if mark in user.certificates:
        remark(f"'{name}' is known by {mark} already")
        return Status.DONE
    edited(users, lambda editor: editor.set(name, "certs", [*user.certificates, mark]))
    remark(f"'{name}' is known by {mark}; {afterwards(users)}")
    return Status.DONE


@user_group.command(name="disable", epilog=examples("trigear user disable alice"))
@click.argument("name")
@users_option
@with_manners
@with_help
def disable_command(name: str, *, users: str | None) -> int:
    """Shut a user out, and keep what stands in the file."""
    edited(users, lambda editor: editor.set(name, "disabled", True))
    remark(f"'{name}' is shut out; {afterwards(users)}")
    return Status.DONE


@user_group.command(name="enable", epilog=examples("trigear user enable alice"))
@click.argument("name")
@users_option
@with_manners
@with_help
def enable_command(name: str, *, users: str | None) -> int:
    """Let a user in again."""
    edited(users, lambda editor: editor.set(name, "disabled", None))
    remark(f"'{name}' may log in; {afterwards(users)}")
    return Status.DONE


@user_group.command(name="check", epilog=examples("trigear user check"))
@json_option
@users_option
@click.option(
    "--config",
    "config",
    envvar="TRIGEAR_CONFIG",
    metavar="FILE",
    help="The configuration that declares the tenants. Default: the one the server would read.",
)
@with_manners
@with_help
def check_command(*, as_json: bool, users: str | None, config: str | None) -> int:
    """Say whether the file can be used, and what is odd about it.

    A server would start with what is odd. Exit status 2: it would not start with the file.
    """
    found = loaded(users)
    odd = [*remarks(found, time.time()), *undeclared(found, config)]
    show(columns("remark"), [(line,) for line in odd], as_json=as_json)
    how = f", {counted(len(odd), 'remark')}" if odd else ""
    remark(f"good: {counted(len(found), 'user')} in {place_of(users)}{how}")
    return Status.DONE


def undeclared(users: Users, config: str | None) -> list[str]:
    """The tenants that users have and the configuration does not declare."""
    from trigear.cli.config import server_context
    from trigear.cli.server import tenants_of

    declared = tenants_of(server_context(config))
    members: dict[str, list[str]] = {}
    for user in users:
        for tenant in dict.fromkeys((user.tenant, *user.serves)):
            if tenant not in declared:
                members.setdefault(tenant, []).append(user.name)
    lines = []
    for tenant, names in members.items():
        near = difflib.get_close_matches(tenant, declared, n=1)
        then = f"did you mean {near[0]}?" if near else f"run: trigear tenant add {tenant}"
        lines.append(
            f"{', '.join(names)}: the tenant {tenant} is not declared, and so has no quotas; {then}"
        )
    return lines


@user_group.command(name="verify", epilog=examples("trigear user verify alice --ask"))
@click.argument("name")
@password_options
@users_option
@with_manners
@with_help
def verify_command(
    name: str,
    *,
    password_file: Any,  # noqa: ANN401
    asked: bool,
    users: str | None,
) -> int:
    """Say whether a password is that of a user; exit status 1 if not."""
    if password_file is None and not asked:
        raise click.UsageError("say where the password is: --ask or --password-file")
    one(users, name)
    given = prepare(Password(password_file, asked=asked, again=False).bytes)
    known = loaded(users).credentials(name, PLAIN, time.time(), bytes(32))
    if matching(known.verifiers, given) < 0 or known.user is None:
        raise Failure(f"that is not the password of '{name}', or it is shut out")
    remark(f"that is the password of '{name}'")
    return Status.DONE
