"""What is said about connections and tenants, and to the server itself, by text command: see
:mod:`trigear.protocol.talks`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trigear.model import public
from trigear.protocol.talks import fields, given, known, misunderstood, number

if TYPE_CHECKING:
    from trigear.protocol.talks import Talk

_FIELDS: Final = 12
_QUOTA_FIELDS: Final = 5


@public
@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A connection to a server, and whose it is.

    ``session`` is its number, ``method`` how its peer became known (`none`: nobody asked), ``tls``
    the version of TLS; ``age`` and ``left``, the time until it must log in again, are in seconds;
    ``functions`` is how many it can do, ``running`` how many jobs it has, ``waiting`` how many it
    waits for, ``id`` what it calls itself. None is what is not there: before a login it is
    nobody's.
    """

    session: int
    identity: str | None
    tenant: str | None
    method: str | None
    address: str | None
    tls: str | None
    age: int
    left: int | None
    functions: int
    running: int
    waiting: int
    id: str | None


@public
@dataclass(frozen=True, slots=True)
class WhoAmI:
    """Who a connection belongs to at a server; ``method`` is how it became known."""

    identity: str | None
    tenant: str | None
    roles: tuple[str, ...]
    method: str | None


@public
@dataclass(frozen=True, slots=True)
class TenantQuota:
    """What a tenant may have of something, and what it has.

    ``quota`` is the name it has in `trigear.toml`; ``used`` and ``limit`` are numbers, bytes or
    seconds, and a limit of 0 is any number. ``used`` is None where nothing is used up, or not
    counted. ``exceeded`` is how often something was refused since the server started.
    """

    tenant: str
    quota: str
    used: int | None
    limit: int
    exceeded: int


def _there(field: str) -> str | None:
    return None if field == "-" else field


def sessions() -> Talk[list[SessionStatus]]:
    """The connections that may be seen."""
    found = []
    for line in (yield "sessions"):
        session, *names, age, left, functions, running, waiting, name = fields(line, _FIELDS)
        identity, tenant, method, address, tls = map(_there, names)
        found.append(
            SessionStatus(
                number(session),
                identity,
                tenant,
                method,
                address,
                tls,
                number(age),
                None if left == "-" else number(left),
                number(functions),
                number(running),
                number(waiting),
                _there(name),
            )
        )
    return found


def tenants() -> Talk[list[TenantQuota]]:
    """What the tenants that may be seen may have."""
    found = []
    for line in (yield "tenants"):
        tenant, quota, used, limit, exceeded = fields(line, _QUOTA_FIELDS)
        has = None if used == "-" else number(used)
        found.append(TenantQuota(tenant, quota, has, number(limit), number(exceeded)))
    return found


def end_session(session: int) -> Talk[bool]:
    """End one; returns whether there was one."""
    return known(f"session end {session:d}", "UNKNOWN_SESSION")


def whoami() -> Talk[WhoAmI]:
    """Who this connection belongs to."""
    (line,) = yield "whoami"
    words = line.split(" ")
    if len(words) != len(("OK", "identity", "tenant", "roles", "method")):
        raise misunderstood(line)
    identity, tenant, roles, method = map(_there, words[1:])
    return WhoAmI(identity, tenant, tuple(roles.split(",")) if roles else (), method)


def reload() -> Talk[None]:
    """Have the server read its files anew."""
    return given("reload")


def drain() -> Talk[None]:
    """Have the server stop once what runs is done."""
    return given("drain")


def shutdown() -> Talk[None]:
    """Have the server stop at once."""
    return given("shutdown")
