"""`trigear config`: is the configuration good, what is in force, and what could be written."""

from __future__ import annotations

import json
import os
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from trigear.cli import config_file, serve
from trigear.cli.groups import NearGroup
from trigear.cli.listener_tables import KEYS
from trigear.cli.manners import Manners, with_help, with_manners
from trigear.cli.server import functions_of, listeners_of, plan_of, server_command, tenants_of
from trigear.engine.settings import SETTINGS
from trigear.engine.tenants import QUOTAS

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Mapping

    from trigear.broker.quotas import Quotas
    from trigear.cli.listener_tables import ListenerTable
    from trigear.engine.config import FunctionSettings
    from trigear.engine.doors import Networks

ORIGINS: Final = {
    ParameterSource.ENVIRONMENT: "environment",
    ParameterSource.DEFAULT_MAP: "file",
}


@click.group(cls=NearGroup, name="config")
@with_manners
@with_help
def config_group() -> None:
    """Check and show the configuration of `trigear server`."""


def file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "path",
        envvar="TRIGEAR_CONFIG",
        metavar="FILE",
        help="Configuration file. Default: the one the server would read.",
    )(command)


@config_group.command(name="check")
@file_option
@with_manners
@with_help
def check_command(path: str | None) -> int:
    """Say whether the server would start with the file and the environment as they are."""
    return serve.check(plan_of(server_context(path), os.getcwd()))


@config_group.command(name="show")
@file_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@with_manners
@with_help
def show_command(path: str | None, *, as_json: bool) -> int:
    """Print every setting that is in force and where it comes from."""
    ctx = server_context(path)
    settings = {}
    for name, option in config_file.settable(server_command).items():
        source = ctx.get_parameter_source(str(option.name))
        origin = ORIGINS.get(source, "default") if source is not None else "default"
        settings[name] = (ctx.params[str(option.name)], origin)
    functions = settings_in(functions_of(ctx))
    tenants = tenants_of(ctx)
    tables, networks = listeners_of(ctx)
    if as_json:
        server = {
            name: {"value": value, "from": where} for name, (value, where) in settings.items()
        }
        own = {
            name: quotas_in(found.quotas) | {"function": settings_in(found.functions)}
            for name, found in tenants.items()
        }
        document = {
            "server": server,
            "function": functions,
            "tenant": own,
            "listener": [listener_in(table) for table in tables],
            "networks": networks_in(networks),
        }
        click.echo(json.dumps(document, default=plain))
        return 0
    click.echo("[server]")
    for name, (value, where) in settings.items():
        line = f"{name} = {toml_value(value)}" if value is not None else f"# {name}: not set"
        click.echo(f"{line:<40}  # {where}")
    show_functions("function", functions)
    for name, tenant in tenants.items():
        click.echo(f"\n[tenant.{toml_value(name)}]")
        show_keys(quotas_in(tenant.quotas))
        show_functions(f"tenant.{toml_value(name)}.function", settings_in(tenant.functions))
    for table in tables:
        found = listener_in(table)
        own_networks = found.pop("networks", {})
        click.echo("\n[[listener]]")
        show_keys(found)
        show_networks("listener.networks", own_networks)
    show_networks("networks", networks_in(networks))
    return 0


def listener_in(table: ListenerTable) -> dict[str, Any]:
    """What an address has of its own, as a file has it."""
    found: dict[str, Any] = {"address": table.address}
    found |= {key: value for key in KEYS if (value := table.values.get(key.replace("-", "_")))}
    if table.networks is not None:
        found["networks"] = networks_in(table.networks)
    return found


def networks_in(networks: Networks | None) -> dict[str, dict[str, object]]:
    """Who comes from which network, as a file has it."""
    return {
        network: {
            "tenant": identity.tenant,
            "roles": list(identity.role_names),
            "submit": list(identity.submit.globs),
            "work": list(identity.work.globs),
        }
        for network, identity in (networks.items() if networks else ())
    }


def show_networks(above: str, networks: Mapping[str, Mapping[str, object]]) -> None:
    if networks:
        click.echo(f"\n[{above}]")
    for network, found in networks.items():
        values = ", ".join(f"{key} = {toml_value(value)}" for key, value in found.items())
        click.echo(f"{toml_value(network)} = {{ {values} }}")


def settings_in(functions: Mapping[bytes, FunctionSettings]) -> dict[str, dict[str, object]]:
    """What is set of functions, as a file has it."""
    return {
        name.decode(): {
            setting.name: setting.plain(value)
            for setting in SETTINGS
            if (value := getattr(found, setting.field)) is not None
        }
        for name, found in functions.items()
    }


def quotas_in(quotas: Quotas) -> dict[str, object]:
    """The quotas of a tenant, as a file has them."""
    return {quota.name: quota.plain(getattr(quotas, quota.field)) for quota in QUOTAS}


def show_functions(above: str, functions: Mapping[str, Mapping[str, object]]) -> None:
    for name, found in functions.items():
        click.echo(f"\n[{above}.{toml_value(name)}]")
        show_keys(found)


def show_keys(found: Mapping[str, object]) -> None:
    for key, value in found.items():
        click.echo(f"{key} = {toml_value(value)}")


@config_group.command(name="example")
@with_manners
@with_help
def example_command() -> int:
    """Print a configuration file with every setting, its default and what it does."""
    ctx = click.Context(server_command)
    click.echo("# trigear.toml: every setting, commented out, with its default.\n\n[server]")
    for name, option in config_file.settable(server_command).items():
        for line in textwrap.wrap(option.help or "", 96):
            click.echo(f"# {line}")
        default = option.get_default(ctx)
        known = isinstance(default, str | int | float | list | tuple)
        value = toml_value(default) if known else toml_value([] if option.multiple else "")
        click.echo(f"#{name} = {value}\n")
    click.echo('# For the jobs of one function, whoever submits them:\n#[function."resize"]')
    for setting in SETTINGS:
        for line in textwrap.wrap(setting.about, 96):
            click.echo(f"# {line}")
        click.echo(f"#{setting.name} = {setting.example}")
    click.echo("\n# What one tenant may have, where peers have to log in; 0: any number.")
    click.echo('#[tenant."acme"]')
    for quota in QUOTAS:
        click.echo(f"# {quota.about}\n#{quota.name} = {toml_value(quota.plain(quota.default))}")
    click.echo("\n# For the jobs of one function of this tenant; the same settings as above.")
    click.echo('#[tenant."acme".function."resize"]')
    click.echo("\n# An address with ways in, networks and TLS files of its own.")
    click.echo("# The keys are those of [server] that are about one address: address,")
    for line in textwrap.wrap(f"{', '.join(KEYS)}. What is not there is as above.", 96):
        click.echo(f"# {line}")
    click.echo('#[[listener]]\n#address = "127.0.0.1:4731"\n#auth = ["network"]')
    click.echo("\n# Who comes from a network, where that is a way in; the narrowest one counts.")
    click.echo("# [networks] says the same for all addresses that have none of their own.")
    click.echo(
        "#[listener.networks]\n"
        '#"127.0.0.0/8" = { tenant = "acme", roles = ["submit", "work"], work = ["resize"] }'
    )
    return 0


def server_context(path: str | None) -> click.Context:
    """What `trigear server` would work with if it were started with this file."""
    arguments = [] if path is None else ["--config", path]
    return server_command.make_context("trigear server", arguments, obj=Manners())


def toml_value(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    # JSON's strings, numbers and truth values are TOML's, too.
    return json.dumps(value, default=plain)


def plain(value: enum.Enum) -> object:
    """A choice, as a file has it."""
    return value.value
