"""The text commands about results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.engine.finding import UNKNOWN, Finding
from trigear.engine.results import UNREADABLE, Later
from trigear.wire.commands import OK, err, shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.engine.engine import Engine
    from trigear.engine.session import Session

_UNKNOWN_JOB = err("UNKNOWN_JOB")


def result(engine: Engine, session: Session, args: Sequence[bytes]) -> None:
    """What became of a job."""
    later = Later(session)

    def told(found: Finding | None, why: str) -> None:
        if found is None:
            later.say(err(UNREADABLE, why))
        elif found.state == UNKNOWN:
            later.say(_UNKNOWN_JOB)
        else:
            later.say(lines_of(found))

    later.hold(engine.results.look(session.peer.tenant, args[0], engine.now, told, data=False))


def lines_of(found: Finding) -> bytes:
    rows: list[tuple[bytes, bytes | int]] = [
        (b"handle", found.handle),
        (b"function", shown(found.function, blanks=True)),
        (b"unique", shown(found.unique, blanks=True)),
        (b"state", found.state.encode()),
        (b"attempts", found.attempts),
    ]
    if found.ended:
        rows.append((b"ended", b"%.3f" % found.ended))
    if found.size is not None:
        rows.append((b"size", found.size))
    return table(rows)


def drop_result(engine: Engine, session: Session, args: Sequence[bytes]) -> None:
    """Drop a result."""
    later = Later(session)

    def told(found: bool, why: str) -> None:
        if why:
            later.say(err(UNREADABLE, why))
        else:
            later.say(OK if found else _UNKNOWN_JOB)

    engine.results.drop(session.peer.tenant, args[0], engine.now, told)
    later.hold(0)
