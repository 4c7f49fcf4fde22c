"""What `trigear.toml` says about single addresses: `[[listener]]`, and `[networks]`.

::

    [[listener]]
    address = "0.0.0.0:4730"
    auth = ["network"]

    [listener.networks]
    "10.1.0.0/16" = { tenant = "acme", roles = ["submit", "work"] }

A key of `[[listener]]` is the option of the same name, for this address alone; what is not there is
as the options say.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trigear.cli import config_file
from trigear.engine.doors import Networks
from trigear.errors import ConfigError
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    import click

    from trigear.security.policy import Identity, Matcher

TLS_KEYS: Final = ("cert", "key", "client-certs", "client-ca", "crl", "tls-min")
KEYS: Final = ("auth", "allow", *TLS_KEYS)
"""Options that an address may have of its own, by their name in the file."""

NETWORK_KEYS: Final = ("tenant", "roles", "submit", "work")


@dataclass(frozen=True, slots=True)
class ListenerTable:
    """One `[[listener]]`: ``place`` is what to call it in errors, ``values`` are those of its
    options by parameter name."""

    place: str
    address: str
    values: Mapping[str, Any]
    networks: Networks | None


def listeners(path: str, tables: object, ctx: click.Context) -> tuple[ListenerTable, ...]:
    """Every `[[listener]]` of a file.

    Raises:
        ConfigError: something in one cannot be used.
    """
    if not isinstance(tables, list):
        raise ConfigError(
            f"{path}: listener", "is not a list of tables", "write [[listener]] above its keys"
        )
    found = [_listener(path, number, table, ctx) for number, table in enumerate(tables, 1)]
    for place, one in enumerate(found):
        if any(one.address == other.address for other in found[:place]):
            raise ConfigError(f"{one.place} address", "is there twice", "take one of them out")
    return tuple(found)


def _listener(path: str, number: int, keys: object, ctx: click.Context) -> ListenerTable:
    place = f"{path}: [[listener]] {number}"
    keys = dict(config_file.table(path, "listener", keys))
    config_file.refuse_unknown(path, f"listener {number}", keys, ("address", "networks", *KEYS))
    address = keys.pop("address", None)
    if not isinstance(address, str):
        raise ConfigError(place, "has no address", 'write address = "HOST:PORT", or "unix:PATH"')
    parse_address(address, setting=f"{place} address")
    given = keys.pop("networks", None)
    networks = None if given is None else networks_of(path, f"listener {number}.networks", given)
    options = config_file.settable(ctx.command)
    values: dict[str, Any] = {}
    for key, value in keys.items():
        option = options[key.replace("_", "-")]
        values[str(option.name)] = config_file.cast(option, value, f"{place} {key}", ctx)
    return ListenerTable(place, address, values, networks)


def networks_of(path: str, where: str, tables: object) -> Networks:
    """A table of networks.

    Raises:
        ConfigError: something in it cannot be used.
    """
    values = {
        text: _identity(path, where, text, keys)
        for text, keys in config_file.table(path, where, tables).items()
    }
    try:
        return Networks(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: [{where}]", str(error)) from error


def _identity(path: str, where: str, network: str, keys: object) -> Identity:
    from trigear.security.policy import EVERY, Role, network_identity
    from trigear.security.users import TENANT_NAME

    place = f"{path}: [{where}] {network}"
    if not isinstance(keys, dict):
        raise ConfigError(place, "is no table", 'write { tenant = "acme", roles = ["submit"] }')
    config_file.refuse_unknown(path, f"{where}.{network}", keys, NETWORK_KEYS)
    tenant = keys.get("tenant")
    if not isinstance(tenant, str) or not TENANT_NAME.fullmatch(tenant):
        raise ConfigError(
            f"{place} tenant", f"{tenant!r} is no tenant name", 'write one: tenant = "acme"'
        )
    roles = []
    for name in _texts(f"{place} roles", keys.get("roles", [])):
        try:
            roles.append(Role(name))
        except ValueError:
            raise ConfigError(
                f"{place} roles", f"{name!r} is no role", "write submit, work or both"
            ) from None

    def globs(key: str) -> Matcher:
        from trigear.security.policy import Matcher

        return Matcher(_texts(f"{place} {key}", keys[key])) if key in keys else EVERY

    try:
        return network_identity(network, tenant, roles, globs("submit"), globs("work"))
    except ConfigError as error:
        raise ConfigError(f"{path}: [{where}]", str(error)) from error


def _texts(place: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ConfigError(place, f"{value!r} is no list of texts", 'write ["submit", "work"]')
    return value
