"""Which rules hold for a function, and who said so.

From the top: what was set by command, until it is reset; what the configuration says about the
function of this tenant; what it says about the function, whoever's it is; the server's default.
What was set by command is a record of the store, one for each
function that anything was set for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.functions import Rules
from trigear.engine.config import (
    AUTO_BACKOFF,
    Auto,
    FunctionSettings,
    OnTimeout,
    TenantSettings,
)
from trigear.engine.records import Kind
from trigear.engine.settings import BY_NAME, SETTINGS, Setting
from trigear.stores.base import Erase, Record

if TYPE_CHECKING:
    from trigear.broker.quotas import Quotas
    from trigear.engine.config import EngineConfig
    from trigear.model import Now

KIND: Final = "setting"

Values = Mapping[str, object]
"""Values by the name of their setting."""

_NOTHING: Final = FunctionSettings()
_UNDECLARED: Final = TenantSettings()


class RuleBook:
    """The rules of all functions.

    Args:
        config: what the configuration says.
        guarded: whether peers have to say who they are. Else there are no quotas: nobody knows
            whom to charge.
    """

    def __init__(self, config: EngineConfig, *, guarded: bool = False) -> None:
        self._guarded = guarded
        self._set: dict[tuple[str, bytes], dict[str, object]] = {}
        self.reusing = False
        """Whether there may be a function whose results are reused."""
        self.config = config

    @property
    def config(self) -> EngineConfig:
        """What the configuration says."""
        return self._config

    @config.setter
    def config(self, config: EngineConfig) -> None:
        self._config = config
        self._look()

    def _look(self) -> None:
        """Take note of what is asked at every submission."""
        tables = [self.config.functions, *(each.functions for each in self.config.tenants.values())]
        by_file = any(own.reuse_results for table in tables for own in table.values())
        by_command = any(values.get("reuse-results") for values in self._set.values())
        self.reusing = by_file or by_command

    def rules(self, tenant: str, function: bytes) -> Rules:
        """The rules of one function, as the broker has them."""
        values = {setting.name: value for setting, value, _ in self.explain(tenant, function)}
        quotas = self.quotas(tenant)
        return _rules_from(
            values,
            oldest=0.0 if quotas is None else quotas.max_background_age,
            steered=(tenant, function) in self._set,
        )

    def quotas(self, tenant: str) -> Quotas | None:
        """What a tenant may have; None: any number of everything."""
        declared = self.config.tenants.get(tenant)
        return None if declared is None or not self._guarded else declared.quotas

    def explain(self, tenant: str, function: bytes) -> list[tuple[Setting, Any, str]]:
        """Every setting of a function with its value, and where that comes from: `command`, `file`
        or `default`."""
        by_command = self._set.get((tenant, function), {})
        own = self.config.functions.get(function, _NOTHING)
        declared = self.config.tenants.get(tenant, _UNDECLARED)
        nearer = declared.functions.get(function, _NOTHING)
        found = []
        for setting in SETTINGS:
            value, origin = by_command.get(setting.name), "command"
            if value is None:
                value, origin = getattr(nearer, setting.field), "file"
            if value is None:
                value, origin = getattr(own, setting.field), "file"
            if value is None:
                value, origin = setting.default, "default"
            if value is None:
                value = getattr(self.config, setting.field)
            found.append((setting, value, origin))
        return found

    # By command

    @property
    def steered(self) -> list[tuple[str, bytes]]:
        """Tenant and name of every function that anything was set for."""
        return list(self._set)

    def functions(self, tenant: str) -> list[bytes]:
        """The functions of a tenant that anything was set for."""
        return [function for owner, function in self._set if owner == tenant]

    def set(self, tenant: str, function: bytes, name: str, value: object) -> None:
        """Set something by command."""
        self._set.setdefault((tenant, function), {})[name] = value
        self._look()

    def reset(self, tenant: str, function: bytes, name: str | None = None) -> bool:
        """Take back what was set by command, one setting or all.

        Returns:
            Whether anything was.
        """
        values = self._set.get((tenant, function), {})
        names = [each for each in values if name in (None, each)]
        for each in names:
            del values[each]
        if not values:
            self._set.pop((tenant, function), None)
        self._look()
        return bool(names)

    def line(self, tenant: str, function: bytes, partition: int) -> Record | Erase:
        """What is to be written after something was set or reset."""
        values = self._set.get((tenant, function))
        if values is None:
            return Erase(KIND, tenant, function, partition)
        texts = {name: BY_NAME[name].show(value) for name, value in values.items()}
        about = json.dumps(texts, separators=(",", ":"))
        return Record(KIND, tenant, function, partition, function, about, b"", 0.0)

    def kind(self) -> Kind:
        """The kind of these records."""
        return Kind(KIND, self._restore, data=False)

    def _restore(self, record: Record, about: Mapping[str, Any], now: Now) -> None:
        values = {}
        for name, text in about.items():
            if name not in BY_NAME:
                raise ValueError(f"no setting is called {name}")
            values[name] = BY_NAME[name].parse(text)
        if values:
            self._set[record.tenant, record.key] = values
            self._look()


def _rules_from(values: Mapping[str, Any], *, oldest: float, steered: bool) -> Rules:
    backoff = values["backoff"]
    auto = backoff is Auto.AUTO
    return Rules(
        timeout=values["timeout"],
        attempts=values["attempts"],
        fail_on_timeout=values["on-timeout"] is OnTimeout.FAIL,
        at_once=1 if auto else 0,
        backoff=AUTO_BACKOFF if auto else backoff,
        backoff_factor=values["backoff-factor"],
        backoff_limit=values["backoff-limit"],
        retry_failures=values["retry-failures"],
        expires=values["expires"],
        dead_letters=values["dead-letters"],
        dead_failures=values["dead-failures"],
        dead_keep=values["dead-keep"],
        paused=values["paused"],
        limits=values["maxqueue"],
        keep_results=values["keep-results"],
        results_count=values["keep-results-count"],
        results_size=values["keep-results-size"],
        reuse_results=values["reuse-results"],
        oldest=oldest,
        steered=steered,
    )
