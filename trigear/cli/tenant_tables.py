"""`[tenant.NAME]` in `trigear.toml`: what a tenant may have, and how its functions are served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trigear.broker.quotas import Quotas
from trigear.cli import config_file
from trigear.engine.config import TenantSettings
from trigear.engine.tenants import QUOTA_NAMED
from trigear.errors import ConfigError
from trigear.security.users import TENANT_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping


def tenants_in(path: str, tenants: object) -> dict[str, TenantSettings]:
    """The tenants that a file declares.

    Raises:
        ConfigError: something about one of them cannot be used; names the file and the key.
    """
    found = {}
    for name, keys in config_file.table(path, "tenant", tenants).items():
        where = f"tenant.{name}"
        if not TENANT_NAME.fullmatch(name):
            raise ConfigError(
                f"{path}: [{where}]", f"{name!r} is no name", "letters, digits and ._- make one"
            )
        keys = config_file.table(path, where, keys)
        config_file.refuse_unknown(path, where, keys, (*QUOTA_NAMED, "function"))
        inside = f"{where}.function"
        functions = config_file.table(path, inside, keys.get("function", {}))
        found[name] = TenantSettings(
            _quotas(f"{path}: [{where}]", keys),
            config_file.function_settings(path, inside, functions),
        )
    return found


def _quotas(place: str, keys: Mapping[str, Any]) -> Quotas:
    found: dict[str, Any] = {}
    for key, value in keys.items():
        quota = QUOTA_NAMED.get(key.replace("_", "-"))
        if quota is None:
            continue  # the table of functions
        if quota.field in found:
            raise ConfigError(f"{place} {key}", "is set twice", "once with - and once with _")
        try:
            found[quota.field] = quota.parse(value)
        except ValueError as error:
            raise ConfigError(f"{place} {key}", str(error)) from error
    return Quotas(**found)
