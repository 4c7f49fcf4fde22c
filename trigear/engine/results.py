"""What became of a job: who knows it, and how it is told.

Asked are, in this order: the jobs that are there, the results that are kept, and the outcomes that
are remembered of every job for a while, without data. Those that are kept may have to be read; then
the reply's place among the others of its connection is held until they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trigear.broker.broker import OverQuota, QueueFull
from trigear.broker.jobs import RUNNING
from trigear.engine.finding import LIVE_WORDS, SCHEDULED, STATE_WORDS, UNKNOWN, Finding
from trigear.engine.outside import Outside
from trigear.engine.reads import READ_BYTES
from trigear.engine.refusals import FULL, over
from trigear.engine.shelves import Shelves
from trigear.model import JobEnd
from trigear.wire.codec import response
from trigear.wire.packets import ERROR, RESULT, WORK_COMPLETE

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.broker.functions import Rules, Tenant
    from trigear.broker.jobs import Job
    from trigear.engine.engine import Engine
    from trigear.engine.finding import Told
    from trigear.engine.session import Session
    from trigear.model import Now
    from trigear.protocol.server import Slot

_NOT_KEPT: Final = frozenset({JobEnd.ABANDONED, JobEnd.NOT_STORED})
"""Ends of jobs that nobody asks for: foreground ones without a client, and those that were never
taken."""

UNREADABLE: Final = "RESULT_UNAVAILABLE"
"""The code of the ERROR that answers instead of a result that is kept and cannot be read."""


class Results:
    """The results of a server, and the outcomes of all its jobs."""

    def __init__(
        self,
        engine: Engine,
        rules: Callable[[str, bytes], Rules],
        *,
        durable: bool,
        elsewhere: bool,
    ) -> None:
        self._engine = engine
        self.outside = Outside(engine) if elsewhere else None
        self.kept: Shelves | Outside
        if self.outside is not None:
            self.kept = self.outside
        else:
            self.kept = Shelves(engine, rules, durable=durable)
        self.reused = 0
        """How many submissions were answered from a kept result."""

    @property
    def reusing(self) -> bool:
        """Whether there may be a function whose results are reused."""
        return self._engine.rules.reusing

    def ended(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        """A job ended whose function keeps results; see :class:`trigear.broker.assignments`."""
        if end in _NOT_KEPT:
            return False
        return self.kept.keep(job, end, attempts, data, now)

    def knows(self, tenant: Tenant, handle: bytes) -> bool:
        """Whether anything is known of a job without asking anybody."""
        return (
            self._engine.broker.status(tenant, handle) is not None
            or self._engine.scheduler.get(tenant.name, handle) is not None
            or self.kept.at_hand(tenant.name, handle, self._engine.now) is not None
            or tenant.outcomes.get(handle) is not None
            or self._engine.broker.dead.get(tenant, handle) is not None
        )

    def look(self, tenant: Tenant, handle: bytes, now: Now, told: Told, *, data: bool) -> int:
        """Find out about a job.

        Args:
            tenant: whose.
            handle: which.
            now: the time.
            told: hears what was found, in the state ``unknown`` if nothing; or None and why it
                could not be read. At once, unless something has to be read for it.
            data: whether the data of its result are asked for.

        Returns:
            About how many bytes whoever asks will get later.
        """
        job = self._engine.broker.status(tenant, handle)
        if job is not None:
            told(
                Finding(
                    LIVE_WORDS[job.state],
                    job.losses + (job.state == RUNNING),
                    0.0,
                    job.function.name,
                    job.unique,
                    handle,
                ),
                "",
            )
            return 0
        schedule = self._engine.scheduler.get(tenant.name, handle)
        if schedule is not None:
            name, unique = schedule.function, schedule.unique
            told(Finding(SCHEDULED, function=name, unique=unique, handle=handle), "")
            return 0

        def tell(found: Finding | None, why: str) -> None:
            told(self._remembered(tenant, handle) if found is None and not why else found, why)

        return self.kept.look(tenant.name, handle, now, tell, data=data)

    def _remembered(self, tenant: Tenant, handle: bytes) -> Finding:
        """What is known of a job that is not there and whose result is not kept."""
        outcome = tenant.outcomes.get(handle)
        if outcome is not None:
            end, attempts, ended, function, unique = outcome
            return Finding(STATE_WORDS[end], attempts, ended, function, unique, handle)
        letter = self._engine.broker.dead.get(tenant, handle)
        if letter is not None:
            word = STATE_WORDS[letter.reason]
            name, unique = letter.function, letter.unique
            return Finding(word, letter.attempts, letter.died, name, unique, handle)
        return Finding(UNKNOWN, handle=handle)

    def drop(
        self, tenant: Tenant, handle: bytes, now: Now, told: Callable[[bool, str], None]
    ) -> None:
        """Drop the result of a job; its outcome is remembered all the same. ``told`` hears whether
        there was one, and why it could not be dropped, if so."""
        self.kept.remove(tenant.name, handle, now, told)


class Later:
    """A reply that may have to wait. Whoever has it calls :meth:`say`; then :meth:`hold` is called
    by whoever began, and keeps the reply's place unless it was said already."""

    __slots__ = ("_said", "_session", "_slot")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._slot: Slot | None = None
        self._said = False

    @property
    def moot(self) -> bool:
        """Whether nobody is there any more to hear it."""
        return self._session.gone

    def say(self, data: bytes) -> None:
        """Give the reply."""
        self._said = True
        if self._slot is None:
            self._session.send(data)
        elif not self._session.gone:
            self._session.fill(self._slot, data)

    def slot(self) -> Slot:
        """The place of the reply, for others who will give it."""
        assert self._slot is not None, "the place was not held"
        return self._slot

    def hold(self, size: int) -> None:
        """Keep the place, if it is still needed."""
        if not self._said:
            self._slot = self._session.reserve(size + READ_BYTES)


# GET_RESULT


def answer(engine: Engine, session: Session, handle: bytes) -> None:
    """Answer GET_RESULT."""
    later = Later(session)

    def told(found: Finding | None, why: str) -> None:
        later.say(unreadable(why) if found is None else packet_of(found))

    later.hold(engine.results.look(session.peer.tenant, handle, engine.now, told, data=True))


def packet_of(found: Finding) -> bytes:
    """RESULT."""
    return response(
        RESULT,
        found.handle,
        found.state.encode(),
        b"%d" % found.attempts,
        b"%d" % round(found.ended * 1000),
        b"0" if found.size is None else b"1",
        found.data or b"",
    )


def unreadable(why: str) -> bytes:
    """ERROR in place of a result that is kept."""
    return response(ERROR, UNREADABLE.encode(), why.encode())


# A kept success answers a new submission


def reuse(
    engine: Engine,
    session: Session,
    name: bytes,
    unique: bytes,
    workload: bytes,
    priority: int,
    background: bool,
) -> bool:
    """Answer a submission from a kept success of the same unique, if the function is so set.

    Returns:
        Whether the submission is taken care of; else it is to be submitted.

    Raises:
        OverQuota: there is no such function yet, and the tenant may not have another one.
    """
    results = engine.results
    tenant = session.peer.tenant
    function = engine.broker.wanted_function(tenant, name)
    # What is there already is joined. The unique - is not one that somebody chose.
    if not function.rules.reuse_results or unique in function.uniques or unique == b"-":
        return False
    later = Later(session)
    missed = False

    def told(found: Finding | None, why: str) -> None:
        nonlocal missed
        if found is not None and found.size is not None and (background or found.data is not None):
            results.reused += 1
            said = engine.created_head(found.handle) + found.handle
            if not background:
                said += response(WORK_COMPLETE, found.handle, found.data or b"")
            later.say(said)
        elif begun:
            _submit(engine, session, later, name, unique, workload, priority, background)
        else:
            missed = True

    begun = False
    size = results.kept.find(tenant.name, name, unique, engine.now, told, data=not background)
    begun = True
    if missed:
        return False
    later.hold(size + len(workload))
    return True


def _submit(
    engine: Engine,
    session: Session,
    later: Later,
    name: bytes,
    unique: bytes,
    workload: bytes,
    priority: int,
    background: bool,
) -> None:
    """Submit after all what could not be answered from a kept result. Its reply has waited, and
    what was looked at before may be otherwise now."""
    if later.moot:
        return
    refusal = session.refusal(background)
    if refusal is None:
        try:
            job = engine.broker.submit(
                session.peer, name, unique, workload, priority, background, engine.now
            )
        except QueueFull:
            refusal = FULL
        except OverQuota as error:
            engine.over_quota(session, error.quota, "a submission is refused")
            refusal = over(error.quota)
        else:
            if engine.broker.waits_for_store(job, background):
                engine.broker.wait_for_store(job, session.peer, later.slot())
            else:
                later.say(engine.created_head(job.handle) + job.handle)
            return
    later.say(response(ERROR, *(part.encode() for part in refusal)))
