"""`trigear.toml`: the options of a command, written down, and settings of single functions,
addresses and tenants.

`[server]` has the long names of `trigear server`'s options as keys, with `-` or `_`; what kind of
value a key takes is read from the option itself, so the two cannot drift apart.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli.report import Failure, Status
from trigear.engine.config import FunctionSettings
from trigear.engine.settings import BY_NAME
from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from trigear.cli.listener_tables import ListenerTable
    from trigear.engine.config import TenantSettings
    from trigear.engine.doors import Networks

NAME: Final = "trigear.toml"

TABLES: Final = ("server", "function", "listener", "networks", "tenant")
"""What a file may have."""

ON_COMMAND_LINE_ONLY: Final = frozenset(
    {"config", "compat", "check", "verbose", "quiet", "no_color", "debug", "help"}
)
"""Options by parameter name that say something about one call, not about the server."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file that was read and found good.

    ``server`` holds the values of `[server]` by parameter name, as written.
    """

    path: str
    server: Mapping[str, Any]
    functions: Mapping[bytes, FunctionSettings]
    listeners: Sequence[ListenerTable]
    networks: Networks | None
    tenants: Mapping[str, TenantSettings]


def usual_place() -> str | None:
    """The file that is read when nobody names one: the user's, else the system's."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    for folder in (home, "/etc"):
        place = os.path.join(folder, "trigear", NAME)
        if os.path.exists(place):  # not Path.exists: a folder one may not look into is no error
            return place
    return None


def read(path: str, ctx: click.Context) -> ConfigFile:
    """Read ``path`` for the command of ``ctx``.

    Raises:
        ConfigError: something in it cannot be used; names the file and the key.
        Failure: it cannot be read.
    """
    try:
        with open(path, "rb") as source:
            document = tomllib.load(source)
    except OSError as error:
        status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.USAGE
        raise Failure(
            f"configuration {path}: {error.strerror}; name another with --config", status
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, f"is not TOML: {error}") from error
    refuse_unknown(path, "", document, TABLES)
    server = table(path, "server", document.get("server", {}))
    functions = table(path, "function", document.get("function", {}))
    listeners: Sequence[ListenerTable] = ()
    networks = None
    if document.keys() & {"listener", "networks"}:
        # Only here: most files have neither.
        from trigear.cli import listener_tables

        listeners = listener_tables.listeners(path, document.get("listener", []), ctx)
        if "networks" in document:
            networks = listener_tables.networks_of(path, "networks", document["networks"])
    tenants: Mapping[str, TenantSettings] = {}
    if "tenant" in document:
        from trigear.cli.tenant_tables import tenants_in

        tenants = tenants_in(path, document["tenant"])
    return ConfigFile(
        path,
        server_values(path, server, ctx),
        function_settings(path, "function", functions),
        listeners,
        networks,
        tenants,
    )


def table(path: str, name: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {name}", "is not a table", f"write [{name}] above its keys")
    return value


def refuse_unknown(path: str, where: str, keys: Iterable[str], known: Iterable[str]) -> None:
    known = sorted(known)
    for key in keys:
        if key.replace("_", "-") in {name.replace("_", "-") for name in known}:
            continue
        place = f"{path}: [{where}] {key}" if where else f"{path}: [{key}]"
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        remedy = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
        raise ConfigError(place, "no such setting" if where else "no such table", remedy)


def server_values(path: str, keys: Mapping[str, Any], ctx: click.Context) -> dict[str, Any]:
    options = settable(ctx.command)
    refuse_unknown(path, "server", keys, options)
    values: dict[str, Any] = {}
    for key, value in keys.items():
        option = options[key.replace("_", "-")]
        place = f"{path}: [server] {key}"
        if option.name in values:
            raise ConfigError(place, "is set twice", "once with - and once with _")
        cast(option, value, place, ctx)
        listed = option.multiple and not isinstance(value, list)
        values[str(option.name)] = [value] if listed else value
    return values


def cast(option: click.Option, value: object, place: str, ctx: click.Context) -> Any:  # noqa: ANN401
    """What a value of the file means to an option.

    Raises:
        ConfigError: it cannot be used; ``place`` says where it stands.
    """
    problem = wrong_kind(option, value)
    if problem is not None:
        raise ConfigError(place, problem)
    if option.multiple and not isinstance(value, list):
        value = [value]
    try:
        return option.type_cast_value(ctx, value)
    except click.BadParameter as error:
        raise ConfigError(place, error.message.rstrip(".")) from error


def settable(command: click.Command) -> dict[str, click.Option]:
    """The options that may stand in the file, by the name they have there."""
    found = {}
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ON_COMMAND_LINE_ONLY:
            long = next(name for name in option.opts if name.startswith("--"))
            found[long.removeprefix("--")] = option
    return found


def wrong_kind(option: click.Option, value: object) -> str | None:
    if option.is_flag:
        return None if isinstance(value, bool) else "is a switch: write true or false"
    each = value if option.multiple and isinstance(value, list) else [value]
    for one in each:
        if isinstance(one, bool) or not isinstance(one, str | int | float):
            return "takes text or a number" + (", or a list of them" if option.multiple else "")
    return None


def function_settings(
    path: str, above: str, functions: Mapping[str, Any]
) -> dict[bytes, FunctionSettings]:
    found = {}
    for name, keys in functions.items():
        where = f"{above}.{name}"
        keys = table(path, where, keys)
        refuse_unknown(path, where, keys, BY_NAME)
        found[name.encode()] = one_function(f"{path}: [{where}]", keys)
    return found


def one_function(place: str, keys: Mapping[str, Any]) -> FunctionSettings:
    settings: dict[str, Any] = {}
    for key, value in keys.items():
        setting = BY_NAME[key.replace("_", "-")]
        if setting.field in settings:
            raise ConfigError(f"{place} {key}", "is set twice", "once with - and once with _")
        try:
            settings[setting.field] = setting.parse(value)
        except ValueError as error:
            raise ConfigError(f"{place} {key}", str(error)) from error
    try:
        return FunctionSettings(**settings)
    except ConfigError as error:
        raise ConfigError(place, str(error)) from error
