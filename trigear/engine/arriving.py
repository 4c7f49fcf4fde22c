"""Serving while the queue is still being loaded.

Jobs arrive from the store page by page, and connections are served meanwhile. Most of what they
ask for needs nothing that has not arrived yet. Two things do: a submission with a unique that a
job in the store may have, and a question about a handle that nobody knows so far. Whoever asks for
one of these waits until everything is there, and its later requests wait behind it.

So that submissions with a unique of their own do not wait, the uniques in the store are learnt
first; that takes a fraction of the time that the jobs take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.broker.jobs import key_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trigear.engine.session import Session
    from trigear.stores.base import Marker


class Arriving:
    """What is known of jobs that are still on their way, and who waits for them."""

    def __init__(self) -> None:
        self._keys: set[int] = set()
        self._complete = False
        self._waiting: list[tuple[Session, Callable[[], None]]] = []
        self._early: list[tuple[Session, Callable[[], None]]] = []

    def learn(self, markers: Iterable[Marker]) -> None:
        """Uniques of jobs in the store, which may have arrived already. Once all are learnt call
        :meth:`learnt`."""
        for marker in markers:
            key = key_of(marker.unique, marker.workload)
            if key is not None:
                self._keys.add(hash((marker.tenant, marker.function, key)))

    def learnt(self) -> None:
        """All uniques are known: submissions that waited for that are tried again."""
        early, self._early = self._early, []
        self._complete = True
        _resume(early)

    def holds(
        self,
        session: Session,
        function: bytes,
        unique: bytes,
        workload: bytes,
        again: Callable[[], None],
    ) -> bool:
        """Whether this submission has to wait; then ``again`` is called later."""
        key = key_of(unique, workload)
        if key is None:
            return False
        if not self._complete:
            session.hold()
            self._early.append((session, again))
            return True
        if hash((session.peer.tenant.name, function, key)) not in self._keys:
            return False
        self.wait(session, again)
        return True

    def wait(self, session: Session, again: Callable[[], None]) -> None:
        """Have the session wait until everything is there; then ``again`` is called."""
        session.hold()
        self._waiting.append((session, again))

    def resume(self) -> None:
        """Everything is there. The engine must not ask this object any more."""
        waiting = self._early + self._waiting
        self._early, self._waiting = [], []
        _resume(waiting)


def _resume(waiting: Iterable[tuple[Session, Callable[[], None]]]) -> None:
    for session, again in waiting:
        if session.holding:
            session.go_on()
            again()
