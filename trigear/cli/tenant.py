"""`trigear tenant`: the tenants that `trigear.toml` declares, and what they may have."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from trigear.cli import tenant_file
from trigear.cli.afterwards import tell_server
from trigear.cli.connecting import Servers, choose, connected
from trigear.cli.groups import NearGroup
from trigear.cli.manners import ask, remark, with_help, with_manners
from trigear.cli.manual import examples
from trigear.cli.report import Failure, Status
from trigear.cli.tables import columns, encoded, json_option, show, write, write_json
from trigear.cli.values import Kind
from trigear.engine.tenants import QUOTA_NAMED, QUOTAS
from trigear.errors import ConfigError
from trigear.model import counted
from trigear.security.users import TENANT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.cli.tables import Cell
    from trigear.engine.config import TenantSettings

DEFAULT = "default"
"""Stands for what holds where the file says nothing."""


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "path",
        envvar="TRIGEAR_CONFIG",
        metavar="FILE",
        help="Configuration file. Default: the one the server would read.",
    )(command)


def changing_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--dry-run",
        is_flag=True,
        help="Show what would be changed in the file, and change nothing.",
    )(command)
    return config_option(json_option(command))


@click.group(
    cls=NearGroup,
    name="tenant",
    epilog=examples(
        """
        trigear tenant add acme --max-queued-jobs 5000
        trigear tenant set acme max-job-bytes 1MiB
        trigear tenant show acme --usage
        """
    ),
)
@with_manners
@with_help
def tenant_group() -> None:
    """Declare tenants, and say what each of them may have.

    A tenant is whose functions and jobs a user sees. One that is declared has quotas; one that only
    users name has none. Tenants are declared in trigear.toml, which these commands change.
    """


def changed(
    name: str,
    path: str | None,
    act: Callable[[tenant_file.TenantFile], None],
    done: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Change the file, have the server take it over, and say so."""
    place = tenant_file.usual_place() if path is None else os.path.abspath(path)
    difference = tenant_file.change(place, act, dry_run=dry_run)
    if dry_run:
        if as_json:
            write_json({"tenant": name, "file": place, "would_change": bool(difference)})
        else:
            write(encoded("".join(f"{line}\n" for line in difference)))
            remark("nothing was changed" if difference else "there is nothing to change")
        return Status.DONE
    then = tell_server(path) if difference else "it said so already"
    if as_json:
        write_json({"tenant": name, "file": place, "changed": bool(difference), "then": then})
    remark(f"{done} in {place}; {then}")
    return Status.DONE


def quota_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for quota in reversed(QUOTAS):
        shown = quota.show(quota.default) if quota.default else "0, which is any"
        command = click.option(
            f"--{quota.name}",
            type=Kind(quota.kind.lower(), quota.parse),
            metavar=quota.kind,
            help=f"{quota.about.rstrip('.')}. Default: {shown}.",
        )(command)
    return command


@tenant_group.command(
    name="add",
    epilog=examples(
        """
        trigear tenant add acme
        trigear tenant add acme --max-queued-jobs 5000 --max-background-age 7d
        """
    ),
)
@click.argument("name")
@quota_options
@changing_options
@with_manners
@with_help
def add_command(
    name: str, *, path: str | None, dry_run: bool, as_json: bool, **quotas: float | None
) -> int:
    """Declare a tenant.

    Quotas that are not named have their defaults; 0 is any number.
    """
    if not TENANT_NAME.fullmatch(name):
        raise ConfigError("tenant", f"{name!r} is no name", "letters, digits and ._- make one")
    given = {
        quota.name: quota.plain(value)
        for quota in QUOTAS
        if (value := quotas[quota.field]) is not None
    }
    return changed(
        name,
        path,
        lambda file: file.add(name, given),
        f"declared tenant '{name}'",
        dry_run=dry_run,
        as_json=as_json,
    )


@tenant_group.command(
    name="set",
    epilog=examples(
        """
        trigear tenant set acme max-queued-jobs 5000
        trigear tenant set acme max-job-bytes 0        # any size
        trigear tenant set acme max-workers default
        """
    ),
)
@click.argument("name")
@click.argument("quota", type=click.Choice(list(QUOTA_NAMED)), metavar="QUOTA")
@click.argument("value")
@changing_options
@with_manners
@with_help
def set_command(
    name: str, quota: str, value: str, *, path: str | None, dry_run: bool, as_json: bool
) -> int:
    """Give a quota of a tenant another value.

    0 is any number; default is what holds where the file says nothing.
    """
    kind = QUOTA_NAMED[quota]
    wanted: object = None
    if value != DEFAULT:
        try:
            wanted = kind.plain(kind.parse(value))
        except ValueError as error:
            raise click.UsageError(f"{quota}: {error}") from error
    return changed(
        name,
        path,
        lambda file: file.set(name, quota, wanted),
        f"{quota} of tenant '{name}' is {value}",
        dry_run=dry_run,
        as_json=as_json,
    )


@tenant_group.command(
    name="remove",
    epilog=examples(
        """
        trigear tenant remove acme --dry-run
        trigear tenant remove acme --yes
        """
    ),
)
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@changing_options
@with_manners
@with_help
def remove_command(name: str, *, yes: bool, path: str | None, dry_run: bool, as_json: bool) -> int:
    """Declare a tenant no more.

    Its users and its jobs stay, and have no quotas then.
    """
    place = tenant_file.usual_place() if path is None else os.path.abspath(path)
    file = tenant_file.read(place)
    file.written(name)
    functions = counted(len(file.tenants[name].functions), "function")
    what = f"the quotas of tenant '{name}' and its settings of {functions}"
    if not dry_run and not ask(f"Remove {what} from {place}?", yes=yes):
        raise Failure("nothing was removed")
    return changed(
        name,
        path,
        lambda file: file.remove(name),
        f"removed {what}",
        dry_run=dry_run,
        as_json=as_json,
    )


@tenant_group.command(name="list", epilog=examples("trigear tenant list --json"))
@json_option
@config_option
@with_manners
@with_help
def list_command(*, path: str | None, as_json: bool) -> int:
    """List the declared tenants with their quotas.

    0 is any number.
    """
    place = tenant_file.usual_place() if path is None else os.path.abspath(path)
    rows = [
        (name, *(value_of(settings, quota.name) for quota in QUOTAS))
        for name, settings in tenant_file.read(place).tenants.items()
    ]
    heads = columns("tenant", *(quota.field for quota in QUOTAS))
    show(heads, rows, as_json=as_json, nothing=f"{place}: no tenant is declared")
    return Status.DONE


def value_of(settings: TenantSettings, name: str) -> Cell:
    """A quota of a tenant for people."""
    quota = QUOTA_NAMED[name]
    value = getattr(settings.quotas, quota.field)
    return value if quota.kind == "NUMBER" or not value else quota.show(value)


@tenant_group.command(
    name="show",
    epilog=examples(
        """
        trigear tenant show acme
        trigear tenant show acme --usage --json
        """
    ),
)
@click.argument("name")
@click.option(
    "--usage",
    is_flag=True,
    help="Ask the server as well what the tenant has: that of TRIGEAR_SERVERS or of the context in"
    " use, else the one here. `trigear admin tenants` asks any.",
)
@json_option
@config_option
@with_manners
@with_help
def show_command(
    name: str,
    *,
    usage: bool,
    path: str | None,
    as_json: bool,
) -> int:
    """Show the quotas of a tenant, and where they come from.

    With --usage also what it has of them, and how often it was refused more since the server
    started.
    """
    place = tenant_file.usual_place() if path is None else os.path.abspath(path)
    file = tenant_file.read(place)
    written = {key.replace("_", "-") for key in file.written(name)}
    settings = file.tenants[name]
    heads = ["quota", "limit", "from"]
    rows: list[tuple[Cell, ...]] = [
        (
            quota.name,
            value_of(settings, quota.name),
            "file" if quota.name in written else "default",
        )
        for quota in QUOTAS
    ]
    if usage:
        used = used_by(name, choose((), None, None, None))
        heads += ["used", "exceeded"]
        rows = [(*row, *used.get(str(row[0]), (None, None))) for row in rows]
    show(columns(*heads), rows, as_json=as_json)
    return Status.DONE


def used_by(name: str, servers: Servers) -> dict[str, tuple[Cell, Cell]]:
    """What a tenant has, and how often it was refused more, as its server says."""
    from trigear.cli.answers import TENANTS

    with connected(servers, "'tenants'") as client:
        return {
            str(quota): (used, exceeded)
            for tenant, quota, used, _, exceeded in TENANTS.rows(client)
            if tenant == name
        }
