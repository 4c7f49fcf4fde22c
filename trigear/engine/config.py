"""What a server is told about how to behave, validated. Where the values come from (options,
environment, a file) is the business of the command line; nothing here reads anything."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from trigear.broker.functions import RESULTS_COUNT, RESULTS_SIZE
from trigear.broker.outcomes import OUTCOMES
from trigear.errors import ConfigError
from trigear.protocol.connection import MAX_PACKET

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.security.tls import ServerTLS

HANDLE_NAME_LIMIT: Final = 40
"""Bytes of the server's name in a job handle: with `H:`, `:` and 20 digits at most 63 bytes."""


class OnTimeout(enum.Enum):
    """What becomes of a job whose worker took too long."""

    REASSIGN = "reassign"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class FunctionSettings:
    """Settings of one function (`[function.NAME]`); None means: the server's default.

    ``timeout`` is in seconds and counts for workers that announce none themselves; 0 means none.
    ``attempts`` is how often a job may be lost or time out; 0 means without limit.

    ``keep_results`` is for how many seconds the results of its jobs are kept, 0 for not at all;
    ``keep_results_count`` and ``keep_results_size`` (bytes) bound how many of each tenant's there
    are. With ``reuse_results`` a submission with a unique is answered from the kept success of an
    earlier one.
    """

    timeout: float | None = None
    attempts: int | None = None
    on_timeout: OnTimeout | None = None
    keep_results: float = 0.0
    keep_results_count: int = RESULTS_COUNT
    keep_results_size: int = RESULTS_SIZE
    reuse_results: bool = False

    def __post_init__(self) -> None:
        if self.keep_results < 0:
            raise ConfigError(
                "keep-results", f"{self.keep_results} is negative", "use 0 to keep none"
            )
        if self.keep_results_count < 1:
            raise ConfigError(
                "keep-results-count",
                f"{self.keep_results_count} is below 1",
                "leave keep-results out to keep none",
            )
        if self.keep_results_size < 0:
            raise ConfigError("keep-results-size", f"{self.keep_results_size} bytes is negative")
        if self.reuse_results and not self.keep_results:
            raise ConfigError("reuse-results", "no results are kept", "set keep-results as well")
        if self.timeout is not None and self.timeout < 0:
            raise ConfigError("timeout", f"{self.timeout} is negative", "use 0 for no timeout")
        if self.attempts is not None and self.attempts < 0:
            raise ConfigError("attempts", f"{self.attempts} is negative", "use 0 for no limit")


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
        attempts: how often a job may be lost with its worker or time out before it is given up;
            0 means without limit.
        on_timeout: what becomes of a job whose worker took too long.
        wakeup: None wakes as many sleeping workers as there are jobs; a number wakes that many
            for every job as gearmand's `-w` does, 0 all of them.
        drain_refuses: whether a draining server refuses new jobs, hands out none and sends idle
            clients away; gearmand goes on serving the connections it has.
        functions: settings by function name.
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
    attempts: int = 10
    on_timeout: OnTimeout = OnTimeout.REASSIGN
    wakeup: int | None = None
    drain_refuses: bool = True
    functions: Mapping[bytes, FunctionSettings] = field(
        default_factory=lambda: MappingProxyType({})
    )
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
        if self.wakeup is not None and not 0 <= self.wakeup <= 255:
            raise ConfigError("worker wakeup", f"{self.wakeup} is not between 0 and 255")
        if self.attempts < 0:
            raise ConfigError("attempts", f"{self.attempts} is negative", "use 0 for no limit")
        if self.outcomes < 0:
            raise ConfigError("outcomes", f"{self.outcomes} is negative", "use 0 for none")


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

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError("port", f"{self.port} is not between 0 and 65535")
        if self.backlog < 0:
            raise ConfigError("backlog", f"{self.backlog} is negative")
        if self.grace is not None and self.grace < 0:
            raise ConfigError("grace", f"{self.grace} s is negative")
        for network in self.allow:
            try:
                ip_network(network, strict=False)
            except ValueError as error:
                raise ConfigError(
                    "allow", f"{network!r} is no network", "write 10.0.0.0/8 or ::1"
                ) from error
