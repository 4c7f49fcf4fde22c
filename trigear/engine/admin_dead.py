"""The text commands about dead letters."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Final

from trigear.broker.broker import OverQuota
from trigear.engine.dead import REASONS
from trigear.engine.refusals import NOT_STORED, STALLED, STOPPING, over
from trigear.engine.results import Later
from trigear.model import Priority
from trigear.wire.commands import OK, err, invalid_arguments, ok, shown, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.broker.dead import DeadLetter
    from trigear.broker.dead_letters import Told
    from trigear.engine.engine import Engine
    from trigear.engine.session import Session
    from trigear.model import Now

MOST: Final = 1024
"""How many dead letters one command changes; what is left it says."""

PIECE: Final = 24 * 1024
"""Bytes of a workload in one line."""

_UNKNOWN_JOB: Final = err("UNKNOWN_JOB")


def list_all(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """The dead letters of a tenant, or of one of its functions."""
    function = args[0] if args else None
    return table(
        (
            letter.handle,
            shown(letter.function, blanks=True),
            REASONS[letter.reason].encode(),
            letter.attempts,
            b"%.3f" % letter.died,
            len(letter.workload),
            shown(letter.unique, blanks=True),
        )
        for letter in engine.broker.dead.of(session.peer.tenant, function)
    )


def show(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """All of one dead letter."""
    letter = engine.broker.dead.get(session.peer.tenant, args[0])
    if letter is None:
        return _UNKNOWN_JOB
    rows: list[tuple[bytes, bytes | int]] = [
        (b"handle", letter.handle),
        (b"function", shown(letter.function, blanks=True)),
        (b"unique", shown(letter.unique, blanks=True)),
        (b"priority", Priority(letter.priority).name.lower().encode()),
        (b"reducer", shown(letter.reducer, blanks=True)),
        (b"reason", REASONS[letter.reason].encode()),
        (b"attempts", letter.attempts),
        (b"submitted", b"%.3f" % letter.submitted if letter.submitted else b"-"),
        (b"died", b"%.3f" % letter.died),
        (b"worker", letter.worker.encode() or b"-"),
        (b"text", shown(letter.text, blanks=True)),
        (b"size", len(letter.workload)),
    ]
    rows += [
        (b"workload", b64encode(letter.workload[start : start + PIECE]))
        for start in range(0, len(letter.workload), PIECE)
    ]
    return table(rows)


def retry(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Make dead letters jobs again."""
    if engine.hands_out_nothing:
        return err(*STOPPING)
    return _each(engine, session, args, engine.broker.dead.revive)


def delete(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Forget dead letters."""
    return _each(engine, session, args, engine.broker.dead.remove)


def _each(
    engine: Engine,
    session: Session,
    args: Sequence[bytes],
    change: Callable[[DeadLetter, Told, Now], None],
) -> bytes | None:
    """Change the one that is named, or all of them as far as one command goes."""
    if engine.refuses_durable:
        return err(*STALLED)
    tenant = session.peer.tenant
    name, *functions = args
    every = name.lower() == b"all"
    if every:
        letters = engine.broker.dead.of(tenant, functions[0] if functions else None)
    elif functions:
        return invalid_arguments(b"dead")
    else:
        letter = engine.broker.dead.get(tenant, name)
        if letter is None:
            return _UNKNOWN_JOB
        letters = [letter]
    count = _Count(session, letters[:MOST], len(letters) if every else None)
    for begun, letter in enumerate(letters[:MOST]):
        try:
            change(letter, count, engine.now)
        except OverQuota as error:
            engine.over_quota(session, error.quota, "dead letters stay")
            if not begun:
                return err(*over(error.quota))
            count.end_at(begun)
            break
    count.begun()
    return None


class _Count:
    """The answer, once it is known of each dead letter whether its change is on record."""

    def __init__(self, session: Session, letters: Sequence[DeadLetter], total: int | None) -> None:
        self._later = Later(session)
        self._asked = self._changed = len(letters)
        # One more, so that nothing is said before all are on their way.
        self._open = len(letters) + 1
        self._total = total

    def end_at(self, asked: int) -> None:
        """Only so many are changed."""
        left = self._asked - asked
        self._asked -= left
        self._changed -= left
        self._open -= left

    def begun(self) -> None:
        """All are on their way."""
        self._settle()
        self._later.hold(0)

    def stored(self, now: Now) -> None:
        self._settle()

    def not_stored(self, now: Now) -> None:
        self._changed -= 1
        self._settle()

    def _settle(self) -> None:
        self._open -= 1
        if not self._open:
            self._later.say(self._answer())

    def _answer(self) -> bytes:
        if self._changed < self._asked:
            code, text = NOT_STORED
            return err(code, f"{text}: {self._asked - self._changed} of {self._asked}")
        if self._total is None:
            return OK
        return ok(b"%d %d" % (self._changed, self._total - self._asked))
