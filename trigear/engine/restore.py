"""From the rows of a store to jobs in their queues.

A row may have been written by another version or been tampered with. What is no job is passed over
and stays in the store; it must not keep the others from running.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trigear.model import Priority
from trigear.stores.base import Spoilt

if TYPE_CHECKING:
    from trigear.broker.broker import Broker
    from trigear.model import Now
    from trigear.stores.base import Keep, Row


def restore(broker: Broker, row: Row, now: Now) -> str | None:
    """Put one job back.

    Returns:
        None, or why the row is no job.
    """
    if isinstance(row, Spoilt):
        return row.why
    why = _fault_of(row)
    if why is not None:
        return why
    if row.sequence >= broker.first_sequence:
        return "its number is from a term that has not been yet"
    tenant = broker.tenant(row.tenant)
    if broker.function(tenant, row.function).partition.number != row.partition:
        return "the function does not belong to this partition"
    job = broker.restore(
        tenant,
        row.function,
        row.unique,
        row.handle,
        row.workload,
        row.priority,
        now,
        sequence=row.sequence,
        due=row.due,
        submitted=row.submitted,
        losses=row.losses,
        reducer=row.reducer,
    )
    return "another job has the same handle" if job is None else None


def _fault_of(row: Keep) -> str | None:
    """Why a job like this would not fit onto the wire or into a queue."""
    if row.priority not in tuple(Priority):
        return f"priority {row.priority} does not exist"
    if not math.isfinite(row.due):
        return f"due at {row.due}"
    if not math.isfinite(row.submitted):
        return f"submitted at {row.submitted}"
    if row.losses < 0:
        return f"{row.losses} lost attempts"
    if row.sequence <= 0:
        return "its number is not above 0"
    if not row.handle:
        return "it has no handle"
    if not row.tenant:
        return "it has no tenant"
    if b"\0" in row.handle + row.function + row.unique + row.reducer:
        return "a name with a NUL in it"
    return None
