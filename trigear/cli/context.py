"""`trigear context`: give servers a name, with how they are spoken with, and choose among them."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.access import Access, with_access
from trigear.cli.connecting import complete_context
from trigear.cli.contexts import Draft, read, unknown
from trigear.cli.groups import NearGroup
from trigear.cli.manners import ask, remark, with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import columns, json_option, show
from trigear.errors import ConfigError
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from trigear.cli.tables import Cell

_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@click.group(
    cls=NearGroup,
    name="context",
    epilog=examples(
        """
        trigear context add live jobs1.example jobs2.example:4731
        trigear context add safe gearmans://jobs.example --user ann --password-file ~/.jobs
        trigear context use live
        trigear admin status                 # asks jobs1.example
        trigear admin status --context test  # this once another
        """
    ),
)
@with_manners
@with_help
def context_group() -> None:
    """Give the servers you work with a name, and choose among them.

    A context holds addresses, how TLS is spoken there, and as whom one logs in: paths, and no
    secrets.

    A command without --server takes the servers of the context in use, unless TRIGEAR_SERVERS or
    GEARMAN_SERVERS names some.
    """


@context_group.command(
    name="add",
    epilog=examples(
        """
        trigear context add live jobs1.example jobs2.example:4731
        trigear context add local unix:/run/trigear.sock --use
        trigear context add safe gearmans://jobs.example --ca ca.pem --user ann --password-file pw
        """
    ),
)
@click.argument("name")
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="Put these servers in place of those it has.")
@click.option("--use", is_flag=True, help="Take it from now on where no server is named.")
@with_access
@with_manners
@with_help
def add_command(
    name: str, addresses: tuple[str, ...], *, replace: bool, use: bool, access: Access
) -> int:
    """Name a server, or several that are tried in this order, and how they are spoken with.

    Of the files only the paths are kept; they are read when they are needed.
    """
    if not _WORD.fullmatch(name):
        raise ConfigError("context", f"{name!r} is no name", "letters, digits and . _ - make one")
    for address in addresses:
        parse_address(address)
    draft = Draft()
    if name in draft.tables and not replace:
        raise Failure(f"context '{name}' exists: --replace changes it, or take another name")
    if access.password_file and not access.user:
        raise click.UsageError("--password-file: whose password? Name a user with --user")
    draft.put(name, addresses, absolute_paths(access))
    if use:
        draft.use(name)
    draft.save()
    then = "in use" if use else f"take it with `trigear context use {name}` or --context {name}"
    remark(f"context '{name}' is {', '.join(addresses)}{in_words(access)}; {then}")
    return Status.DONE


def absolute_paths(access: Access) -> Access:
    """The same, wherever one stands."""
    paths = {key: getattr(access, key) for key in ("ca", "cert", "key", "password_file")}
    return dataclasses.replace(
        access, **{key: os.path.abspath(path) for key, path in paths.items() if path}
    )


def in_words(access: Access) -> str:
    """TLS and login, in a few words."""
    tls = " without verifying who answers" if access.insecure else ""
    words = f", with TLS{tls}" if access.means_tls else ""
    return words + (f", as '{access.user}'" if access.user else "")


@context_group.command(name="list", epilog=examples("trigear context list --json"))
@json_option
@with_manners
@with_help
def list_command(*, as_json: bool) -> int:
    """List the contexts; a star marks the one in use."""
    found = read()
    heads = columns("current", "name", "servers", "tls", "user")
    rows: list[tuple[Cell, ...]] = []
    for name, servers in found.servers.items():
        access = found.accesses[name]
        rows.append((name == found.current, name, servers, access.means_tls, access.user or None))
    if as_json:
        show(heads, rows, as_json=True)
    else:
        marked = [
            ("*" if current else "", name, servers, "tls" if tls else None, user)
            for current, name, servers, tls, user in rows
        ]
        nothing = "no context yet: make one with `trigear context add NAME ADDRESS`"
        show([heads[0]._replace(title=""), *heads[1:]], marked, as_json=False, nothing=nothing)
    return Status.DONE


@context_group.command(
    name="use",
    epilog=examples(
        """
        trigear context use live
        trigear context use --none
        """
    ),
)
@click.argument("name", required=False, shell_complete=complete_context)
@click.option("--none", is_flag=True, help="None at all: localhost:4730 again.")
@with_manners
@with_help
def use_command(name: str | None, *, none: bool) -> int:
    """Take this context from now on where no server is named."""
    if (name is None) != none:
        raise click.UsageError("name one context, or say --none")
    found = read()
    if name is not None and name not in found.servers:
        raise unknown(name, found)
    draft = Draft()
    draft.use(name)
    draft.save()
    where = f"context '{name}': {', '.join(found.servers[name])}" if name else "no context"
    remark(f"from now on {where}")
    return Status.DONE


@context_group.command(name="remove", epilog=examples("trigear context remove live"))
@click.argument("name", shell_complete=complete_context)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do not.")
@with_manners
@with_help
def remove_command(name: str, *, yes: bool, dry_run: bool) -> int:
    """Forget a context."""
    found = read()
    if name not in found.servers:
        raise unknown(name, found)
    draft = Draft()
    if name not in draft.tables:
        raise Failure(f"context '{name}' stands in {found.places[name]}: remove it there")
    what = f"context '{name}' ({', '.join(found.servers[name])})"
    used = found.current == name
    if dry_run:
        remark(f"would remove {what}" + (", which is in use" if used else ""))
        return Status.DONE
    if not ask(f"Remove {what}{', which is in use' if used else ''}?", yes=yes):
        raise Failure("nothing was removed")
    del draft.tables[name]
    if used:
        draft.use(None)
    draft.save()
    remark(f"removed {what}")
    return Status.DONE
