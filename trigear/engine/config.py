"""What a server is told about how to behave, validated. Where the values come from (options,
environment, a file) is the business of the command line; nothing here reads anything."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trigear.broker.outcomes import OUTCOMES
from trigear.broker.quotas import Quotas
from trigear.engine.doors import (
    LOOPBACK,
    MOST_UNKNOWN,
    MOST_UNKNOWN_PER_ADDRESS,
    Door,
    network_of,
)
from trigear.errors import ConfigError
from trigear.model import show_size
from trigear.protocol.connection import MAX_PACKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.security.tls import ServerTLS

HANDLE_NAME_LIMIT: Final = 40
"""Bytes of the server's name in a job handle: with `H:`, `:` and 20 digits at most 63 bytes."""

PACKET_LIMIT: Final = 512 * 1024 * 1024
"""Most that may be set for the largest payload, in bytes. No store takes a value of a gigabyte, and
a result or dead letter that is refused again and again would hold up all that comes behind it."""


class OnTimeout(enum.Enum):
    """What becomes of a job whose worker took too long."""

    REASSIGN = "reassign"
    FAIL = "fail"


class Auto(enum.Enum):
    """A choice that is left to the server."""

    AUTO = "auto"


AUTO_BACKOFF: Final = 1.0
"""Seconds that a job waits where its backoff is left to the server: but for the first lost attempt,
because a worker that starts again is the most common cause, and others are there."""


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """Settings of one function (`[function.NAME]`); None means: the server's default.

    Durations are in seconds. :mod:`trigear.engine.settings` says what each of them does.
    """

    timeout: float | None = None
    attempts: int | None = None
    on_timeout: OnTimeout | None = None
    retry_failures: bool | None = None
    backoff: float | Auto | None = None
    backoff_factor: float | None = None
    backoff_limit: float | None = None
    expires: float | None = None
    dead_letters: bool | None = None
    dead_failures: bool | None = None
    dead_keep: float | None = None
    maxqueue: tuple[int, int, int] | None = None
    paused: bool | None = None
    keep_results: float | None = None
    keep_results_count: int | None = None
    keep_results_size: int | None = None
    reuse_results: bool | None = None

    def __post_init__(self) -> None:
        _check(self)
        _negative(self, "timeout", "use 0 for no timeout")
        _negative(self, "keep_results", "use 0 to keep none")
        _negative(self, "keep_results_size", "leave keep-results out to keep none")
        if self.keep_results_count is not None and self.keep_results_count < 1:
            raise ConfigError(
                "keep-results-count",
                f"{self.keep_results_count} is below 1",
                "leave keep-results out to keep none",
            )
        if self.reuse_results and not self.keep_results:
            raise ConfigError("reuse-results", "no results are kept", "set keep-results as well")


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What is declared about one tenant (`[tenant.NAME]`).

    Args:
        quotas: what it may have where peers have to say who they are; else nobody has quotas.
        functions: settings by function name, which win over those that hold for any tenant.
    """

    quotas: Quotas = field(default_factory=Quotas)
    functions: Mapping[bytes, FunctionSettings] = field(
        default_factory=lambda: MappingProxyType({})
    )


def _check(settings: FunctionSettings | EngineConfig) -> None:
    """Refuse what is out of range.

    Raises:
        ConfigError: something is.
    """
    _negative(settings, "attempts", "use 0 for no limit")
    _negative(settings, "backoff", "use 0 for no delay")
    _negative(settings, "expires", "use 0 for no limit")
    _negative(settings, "dead_keep", "use 0 for ever")
    factor, limit = settings.backoff_factor, settings.backoff_limit
    if factor is not None and factor < 1:
        raise ConfigError("backoff-factor", f"{factor} is below 1", "use 1 for equal delays")
    if limit is not None and limit <= 0:
        raise ConfigError("backoff-limit", f"{limit} is no time", "use a backoff of 0 for none")


def _negative(settings: FunctionSettings | EngineConfig, field: str, remedy: str) -> None:
    """Refuse a number below zero."""
    value = getattr(settings, field)
    if isinstance(value, int | float) and value < 0:
        raise ConfigError(field.replace("_", "-"), f"{value} is negative", remedy)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How the server without its sockets behaves.

    Args:
        handle_prefix: what job handles begin with, at most 42 bytes, no blank, TAB or NUL.
        version: what the text command `version` answers.
        verbosity: what the text command `verbose` answers.
        pid: what the text command `getpid` answers.
        max_packet: largest payload accepted, in bytes.
        exceptions: whether clients get WORK_EXCEPTION without asking for it.
        on_timeout, attempts, retry_failures, backoff, backoff_factor, backoff_limit, expires,
            dead_letters, dead_failures, dead_keep: what holds for functions that say nothing
            else; see :mod:`trigear.engine.settings`.
        wakeup: None wakes as many sleeping workers as there are jobs; a number wakes that many
            for every job as gearmand's `-w` does, 0 all of them.
        drain_refuses: whether a draining server refuses new jobs, hands out none and sends idle
            clients away; gearmand goes on serving the connections it has.
        functions: settings by function name.
        tenants: the tenants that are declared, by name.
        outcomes: how many ended jobs of each tenant are remembered, without their results.
        soft_mark: unsent bytes above which a client is not read and its jobs wait.
        hard_mark: unsent bytes (beyond one packet) above which a connection is closed.
    """

    handle_prefix: bytes = b"H:localhost"
    version: str = ""
    verbosity: str = "INFO"
    pid: int = 0
    max_packet: int = MAX_PACKET
    exceptions: bool = False
    on_timeout: OnTimeout = OnTimeout.REASSIGN
    attempts: int = 10
    retry_failures: bool = False
    backoff: float | Auto = Auto.AUTO
    backoff_factor: float = 2.0
    backoff_limit: float = 300.0
    expires: float = 0.0
    dead_letters: bool = True
    dead_failures: bool = False
    dead_keep: float = 0.0
    wakeup: int | None = None
    drain_refuses: bool = True
    functions: Mapping[bytes, FunctionSettings] = field(
        default_factory=lambda: MappingProxyType({})
    )
    tenants: Mapping[str, TenantSettings] = field(default_factory=lambda: MappingProxyType({}))
    outcomes: int = OUTCOMES
    soft_mark: int = 4 * 1024 * 1024
    hard_mark: int = 64 * 1024 * 1024

    def __post_init__(self) -> None:
        prefix = self.handle_prefix
        if len(prefix) > HANDLE_NAME_LIMIT + 2 or not prefix or any(b <= 32 for b in prefix):
            raise ConfigError(
                "job handle prefix",
                f"{prefix!r} is not 1 to {HANDLE_NAME_LIMIT + 2} bytes without blanks",
            )
        if self.max_packet < 1024:
            raise ConfigError("max packet", f"{self.max_packet} bytes is below the least, 1024")
        if self.max_packet > PACKET_LIMIT:
            raise ConfigError(
                "max packet",
                f"{self.max_packet} bytes is above the most, {show_size(PACKET_LIMIT)}",
                "keep what is larger in a file, and let the job name it",
            )
        if self.wakeup is not None and not 0 <= self.wakeup <= 255:
            raise ConfigError("worker wakeup", f"{self.wakeup} is not between 0 and 255")
        if self.outcomes < 0:
            raise ConfigError("outcomes", f"{self.outcomes} is negative", "use 0 for none")
        _check(self)


@dataclass(frozen=True, slots=True)
class Keepalive:
    """TCP's own test whether an idle peer still lives, all in seconds but ``count``; None leaves
    the system's value. ``user_timeout`` limits how long sent bytes may stay unacknowledged."""

    idle: int | None = 60
    interval: int | None = 10
    count: int | None = 6
    user_timeout: int | None = 120

    def __post_init__(self) -> None:
        for name, value, most in (
            ("idle", self.idle, 32767),
            ("interval", self.interval, 32767),
            ("count", self.count, 127),
            ("user timeout", self.user_timeout, 2_000_000),
        ):
            if value is not None and not 1 <= value <= most:
                raise ConfigError(f"keepalive {name}", f"{value} is not between 1 and {most}")


@dataclass(frozen=True, slots=True)
class ListenerConfig:
    """What one address has of its own; None: what holds for the whole server.

    Args:
        allow: networks whose addresses may connect; empty allows all.
        tls: how TLS is spoken there.
        door: how those who connect become known.
    """

    allow: tuple[str, ...] | None = None
    tls: ServerTLS | None = None
    door: Door | None = None


_COMMON: Final = ListenerConfig()


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """A server with its sockets.

    Args:
        engine: see :class:`EngineConfig`.
        listen: addresses, each `HOST`, `HOST:PORT`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`,
            `gearmans://HOST[:PORT]` (with TLS) or `unix:PATH`.
        port: TCP port of addresses that name none.
        backlog: connections the system may keep waiting per listener.
        allow: networks (`10.0.0.0/8`, `::1`) whose addresses may connect; empty allows all.
        keepalive: None leaves connections without it.
        grace: seconds a draining server waits for running jobs; None waits without limit.
        compat_gearmand: whether the server shows gearmand's face.
        tls: how TLS is spoken at `gearmans://` addresses; None if there are none.
        listeners: what single addresses have of their own, as they stand in ``listen``.
        max_unauthenticated: connections of one listener whose peers are not known yet, above which
            it accepts no more; 0 for any number.
        max_unauthenticated_per_address: those of them from one address, above which more are
            refused; 0 for any number.
        limit_exempt: networks to which no bound per address applies.
    """

    engine: EngineConfig = field(default_factory=EngineConfig)
    listen: tuple[str, ...] = ("localhost",)
    port: int = 4730
    backlog: int = 1024
    allow: tuple[str, ...] = ()
    keepalive: Keepalive | None = field(default_factory=Keepalive)
    grace: float | None = 30.0
    compat_gearmand: bool = False
    tls: ServerTLS | None = None
    listeners: Mapping[str, ListenerConfig] = field(default_factory=lambda: MappingProxyType({}))
    max_unauthenticated: int = MOST_UNKNOWN
    max_unauthenticated_per_address: int = MOST_UNKNOWN_PER_ADDRESS
    limit_exempt: tuple[str, ...] = LOOPBACK

    def own(self, address: str) -> ListenerConfig:
        """What an address of ``listen`` has of its own."""
        return self.listeners.get(address, _COMMON)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError("port", f"{self.port} is not between 0 and 65535")
        if self.backlog < 0:
            raise ConfigError("backlog", f"{self.backlog} is negative")
        if self.grace is not None and self.grace < 0:
            raise ConfigError("grace", f"{self.grace} s is negative")
        for network in self.allow:
            network_of(network, "allow")
        for network in self.limit_exempt:
            network_of(network, "limit-exempt")
