"""The text command about tenants: what each of them may have, and what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.engine.tenants import QUOTAS
from trigear.wire.commands import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trigear.broker.functions import Tenant
    from trigear.engine.engine import Engine
    from trigear.engine.session import Session


def tenants(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """The quotas of the tenants that this connection may look at, and what is charged to them."""
    return table(
        row
        for name in _seen(engine, session)
        for row in _rows(engine, name, engine.broker.tenants.get(name))
    )


def _seen(engine: Engine, session: Session) -> list[str]:
    """Operators see all of them, others their own."""
    own = session.peer.tenant.name
    if not session.oversees:
        return [own]
    # Those who are not logged in have a tenant without a name.
    return sorted(filter(None, {own, *engine.broker.tenants, *engine.config.tenants}))


def _rows(
    engine: Engine, name: str, tenant: Tenant | None
) -> Iterator[tuple[bytes, bytes, bytes, bytes, int]]:
    quotas = engine.rules.quotas(name)
    used = {} if tenant is None else _used(engine, tenant)
    exceeded = {} if tenant is None or tenant.allowance is None else tenant.allowance.exceeded
    for quota in QUOTAS:
        limit = 0 if quotas is None else getattr(quotas, quota.field)
        # Counting the bytes of a tenant without quotas would take as long as it has jobs.
        now = used.get(quota.name, 0 if tenant is None and quota.charged else None)
        yield (
            name.encode(),
            quota.name.encode(),
            b"-" if now is None else b"%d" % now,
            b"%d" % limit,
            exceeded.get(quota.name, 0),
        )


def _used(engine: Engine, tenant: Tenant) -> Mapping[str, int]:
    functions = tenant.functions.values()
    used = {
        "max-connections": sum(1 for _ in engine.sessions_of(tenant)),
        "max-workers": len({peer for function in functions for peer in function.workers}),
        "max-functions": sum(not function.idle for function in functions),
        "max-queued-jobs": sum(function.total + function.pending for function in functions),
    }
    if tenant.allowance is not None:
        used["max-queued-bytes"] = tenant.allowance.queued_bytes
    return used
