"""What a connection sees of a server: one tenant, or every tenant.

Who belongs to a tenant sees what is its own under the names that it has. An operator sees all of
it, each name with its tenant in front: `acme/resize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.broker.functions import Function, Tenant
    from trigear.broker.jobs import Job
    from trigear.engine.engine import Engine
    from trigear.engine.session import Session

NOBODY: Final = ""
"""Name of the tenant of those who are not logged in. No other tenant can have it."""


def out_of_reach(engine: Engine) -> dict[str, int]:
    """How many jobs there are, by tenant, of tenants to which nobody belongs. They stay where they
    are, and nobody but an operator gets to see them."""
    found = {}
    for name, tenant in engine.broker.tenants.items():
        jobs = sum(len(book) for book in tenant.books.values())
        if jobs and not engine.reaches(name):
            found[name] = jobs
    return found


class View:
    """What can be seen.

    Args:
        engine: the server.
        tenant: what is seen of it; None: every tenant.
    """

    __slots__ = ("_engine", "_tenant")

    def __init__(self, engine: Engine, tenant: Tenant | None) -> None:
        self._engine = engine
        self._tenant = tenant

    @property
    def whole(self) -> bool:
        """Whether every tenant is seen."""
        return self._tenant is None

    @property
    def tenants(self) -> list[Tenant]:
        """The tenants that are seen."""
        if self._tenant is not None:
            return [self._tenant]
        found = self._engine.broker.tenants
        return [tenant for name, tenant in sorted(found.items()) if name != NOBODY]

    def label(self, tenant: Tenant, name: bytes) -> bytes:
        """What something of a tenant is called."""
        return name if self._tenant is not None else tenant.name.encode() + b"/" + name

    def named(self, name: bytes) -> Iterator[tuple[Tenant, bytes]]:
        """What may be called so: a tenant, and the name there."""
        if self._tenant is not None:
            yield self._tenant, name
            return
        for tenant in self.tenants:
            prefix = tenant.name.encode() + b"/"
            if name.startswith(prefix):
                yield tenant, name.removeprefix(prefix)

    def functions(self) -> list[Function]:
        """The functions that are seen."""
        return [function for tenant in self.tenants for function in tenant.functions.values()]

    def jobs(self) -> Iterator[Job]:
        """The jobs that are seen."""
        for tenant in self.tenants:
            for book in tenant.books.values():
                yield from book.values()

    def job(self, handle: bytes) -> Job | None:
        """The job with this handle. No two tenants have the same, so that who sees all may leave
        the tenant out."""
        broker = self._engine.broker
        for tenant, bare in self.named(handle):
            if (job := broker.status(tenant, bare)) is not None:
                return job
        found = (broker.status(tenant, handle) for tenant in self.tenants)
        return next((job for job in found if job is not None), None)

    def connections(self) -> list[Session]:
        """The connections of these tenants, oldest first."""
        if self._tenant is not None:
            return list(self._engine.sessions_of(self._tenant))
        return [one for one in self._engine.sessions() if one.peer.tenant.name != NOBODY]

    def number(self, session: Session) -> int:
        """What a connection is called. In one tenant they are counted for themselves: a number
        tells nothing about others."""
        return session.number if self._tenant is None else session.seat

    def connection(self, number: int) -> Session | None:
        """The connection of this number, whether its peer is known already or not."""
        seen = self._engine.sessions() if self._tenant is None else self.connections()
        return next((one for one in seen if self.number(one) == number), None)
