"""The whole server without I/O.

The runtime tells the engine of connections and bytes, always with the time; the engine decides at
once and leaves bytes in the sessions it touched, and tickets for work it may not do itself. From
the first byte of a packet to the bytes it causes is one uninterrupted stretch of synchronous code:
no locks, no queue between tasks, nothing to wait for.

The contract: ``receive`` never raises because of the peer. After any call, drain ``take_touched``
and send what the sessions hold, ``take_ticket``, and be back with ``tick`` by
``next_deadline``.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, cast

from mypy_extensions import mypyc_attr

from trigear.broker.broker import Broker
from trigear.broker.check import charges_wrong, faults_of
from trigear.broker.timers import Timers
from trigear.engine import dead
from trigear.engine.admin import shown
from trigear.engine.arriving import Arriving
from trigear.engine.audit import Audit
from trigear.engine.gate import Commit, Gate
from trigear.engine.reads import Reads
from trigear.engine.records import Kinds
from trigear.engine.restore import restore
from trigear.engine.results import Results
from trigear.engine.rules import RuleBook
from trigear.engine.scheduler import Scheduler
from trigear.engine.session import Session
from trigear.engine.statistics import Statistics, statistics_of
from trigear.engine.views import NOBODY
from trigear.errors import StoreError, TrigearInternalError
from trigear.model import DEFAULT_TENANT, TERM_SHIFT, CloseReason, JobEnd, Now, counted, printable
from trigear.stores.base import Keep
from trigear.wire.codec import head
from trigear.wire.packets import JOB_CREATED, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from trigear.broker.functions import Function, Tenant
    from trigear.broker.jobs import Job
    from trigear.broker.peers import Peer
    from trigear.engine.config import EngineConfig
    from trigear.engine.doors import Arrival
    from trigear.engine.gate import Pending, Together
    from trigear.engine.logins import Check, Logins
    from trigear.engine.reads import Fetch
    from trigear.engine.wishes import Wish
    from trigear.protocol.server import ServerConnection
    from trigear.security.mechs import Channel
    from trigear.security.users import Users
    from trigear.stores.base import Line, Record, Row, SpoiltRecord

log: Final = logging.getLogger("trigear.engine")

TURN: Final = 16
"""Packets of one connection that are handled before others have their turn."""

HEARTBEATS_MISSED: Final = 3
"""Heartbeats in a row that a worker may leave out before its jobs are given to others."""

SPOILT_LINES: Final = 20
"""Lines in the log about rows of the store that are no jobs; the rest is only counted."""

NAME_SHOWN: Final = 128
"""Bytes of a name that go into the log."""

CENSUS_SECONDS: Final = 60.0
"""How often queues with jobs and no worker are looked for."""


@mypyc_attr(allow_interpreted_subclasses=True)
class Engine:
    """A Gearman server, sans I/O.

    Args:
        config: how it behaves.
        mint: makes job handles.
        now: the time at the start.
        durable: whether background jobs are recorded: then they leave as ``Commit`` tickets.
        term: grows with every start on the same store; see :mod:`trigear.stores.base`.
        chance: numbers from 0 to 1 at random, for the delays of jobs that are tried again.
        logins: how peers have to say who they are; None: nobody is asked.
        results_elsewhere: whether results are kept by a store of their own: then they leave as
            ``Put`` tickets of ``results.outside``.
        audit: gets the entries of the audit log; None: there is none.
    """

    def __init__(
        self,
        config: EngineConfig,
        mint: Callable[[str, bytes, bytes], bytes],
        now: Now,
        *,
        durable: bool = False,
        term: int = 0,
        chance: Callable[[], float] = lambda: 1.0,
        logins: Logins | None = None,
        results_elsewhere: bool = False,
        audit: Callable[[Mapping[str, object]], object] | None = None,
    ) -> None:
        self.config = config
        self.now = now
        self.logins = logins
        self.audit = Audit(audit)
        self._touched: list[Session] = []
        self.touch = cast("Callable[[ServerConnection], object]", self._touched.append)
        self._gate = Gate() if durable else None
        self.rules = RuleBook(config, guarded=logins is not None)
        self.broker = Broker(
            mint,
            self.rules.rules,
            self,
            keeper=self._gate,
            wakeup=config.wakeup,
            term=term,
            outcomes=config.outcomes,
            chance=chance,
            quotas=self.rules.quotas,
        )
        if self._gate is not None:
            self._gate.serve(self.broker)
        self.reads = Reads()
        """What is to be read from the store."""
        self.kinds = Kinds()
        """Of records that the store keeps besides jobs."""
        # First: they say how long dead letters are kept, and when jobs expire.
        self.kinds.register(self.rules.kind())
        self.kinds.register(dead.kind_of(self.broker))
        self.arriving: Arriving | None = None
        """While jobs are still being loaded and connections are served already."""
        self._term = term
        self.results = Results(self, self.rules.rules, durable=durable, elsewhere=results_elsewhere)
        self.scheduler = Scheduler(self, mint)
        self._sessions: dict[int, Session] = {}
        self._seats: Counter[str] = Counter()
        self.wishes: list[Wish] = []
        """What operators asked of the process, for it to take and fulfil."""
        self._nobody = Session(self, 0, "-")
        self._created_head = (0, b"")
        self._census = now.monotonic + CENSUS_SECONDS
        self._beats = Timers()
        self._closed: Counter[CloseReason] = Counter()
        self._ignored: Counter[str] = Counter()
        self._faults = 0
        self._spoilt = 0
        self.draining = False
        self.hands_out_nothing = False
        """Whether new jobs are refused and no job is handed out any more."""

    # Connections

    def connection_opened(
        self,
        number: int,
        address: str,
        now: Now,
        channel: Channel | None = None,
        arrival: Arrival | None = None,
    ) -> Session:
        """A peer connected.

        Args:
            number: no other open connection has it.
            address: the peer's address as text, `-` for none.
            now: the time.
            channel: what is known of the connection without asking, where peers have to say who
                they are; None: no more than the address.
            arrival: by which door it came, and when; None: by the usual one, just now.
        """
        self.now = now
        if self.logins is None:
            session = Session(self, number, address)
        else:
            session = self.logins.opened(self, number, address, channel, arrival)
        if not session.seat and session.peer.tenant.name != NOBODY:
            session.seat = self.seat(session.peer.tenant.name)
        self._sessions[number] = session
        return session

    def receive(self, session: Session, data: bytes, now: Now) -> bool:
        """Take bytes from a peer, and handle a bounded number of packets.

        Returns:
            Whether more packets may be waiting: call again with ``b""``.
        """
        self.now = now
        return session.receive(data, TURN)

    def connection_lost(self, session: Session, reason: CloseReason, now: Now) -> None:
        """The connection is no more."""
        self.now = now
        if self._sessions.pop(session.number, None) is None:
            return
        self._closed[reason] += 1
        session.ended()
        session.stopped = True
        session.holding = False
        peer = session.peer
        jobs, waiting = len(peer.jobs), len(peer.waiting)
        self.broker.leave(peer, now)
        self.expect_heartbeat(session, 0)
        # A commit may outlast the connection and speak to it. Nobody listens, and a session that is
        # gone must not be held by its own peer.
        peer.sink = self._nobody
        if (allowance := peer.tenant.allowance) is not None:
            allowance.connections -= 1
        session.out.clear()
        if self.logins is not None and session.about().principal:
            seconds = round(now.monotonic - session.since, 3)
            counts = {"seconds": seconds, "jobs": jobs, "waiting": waiting}
            session.note("session.ended", reason=reason.value, **counts)
        level = logging.INFO if reason in _ORDINARY and not jobs else logging.WARNING
        log.log(
            level,
            "%r closed: %s%s%s",
            session,
            reason.value,
            f", {counted(jobs, 'running job goes', 'running jobs go')} to others" if jobs else "",
            f", {counted(waiting, 'job')} waited for" if waiting else "",
        )

    def serves(self, session: Session) -> bool:
        """Whether this connection is one of ours still."""
        return session.number in self._sessions

    def unsent(self, session: Session, size: int, held: int, now: Now) -> bool:
        """Say what the peer has not got yet, whenever that may matter.

        Args:
            session: whose peer.
            size: bytes that the peer has not taken yet.
            held: bytes that wait behind a commit; their submitter is not read meanwhile, but it
                is no slow consumer for that.
            now: the time.

        Returns:
            Whether to go on reading from this connection.
        """
        self.now = now
        config = self.config
        if size > config.hard_mark + config.max_packet:
            session.close(CloseReason.SLOW_CONSUMER)
            return False
        if session.peer.choked:
            if size <= config.soft_mark // 2:
                self.broker.unchoke(session.peer, now)
        elif size > config.soft_mark:
            self.broker.choke(session.peer)
        return not session.peer.choked and held <= config.soft_mark and not session.holding

    def fault(self, session: Session, error: Exception) -> None:
        """An exception came out of handling this connection: a bug, of which nobody else shall
        suffer.

        Raises:
            TrigearInternalError: the queues it touched are damaged; the server must not go on.
        """
        self._faults += 1
        types = ", ".join(name_of(number) for number in session.decoder.recent_types())
        log.error(
            "%r: fault in the server, the connection is closed; last packets: %s",
            session,
            types or "none",
            exc_info=error,
        )
        peer = session.peer
        functions: set[Function] = set(peer.abilities)
        functions |= {job.function for job in peer.jobs.values()}
        functions |= {job.function for job in peer.waiting}
        functions |= set(peer.tenant.ready)
        session.close(CloseReason.FAULT)
        damage = [fault for function in functions for fault in faults_of(function)]
        damage += charges_wrong(peer.tenant)
        if damage:
            stop = TrigearInternalError("the queues are damaged: " + "; ".join(damage))
            stop.__cause__ = error  # what `from` does, which is lost where this is compiled
            raise stop

    # Output

    def take_touched(self) -> list[Session]:
        """The sessions that have bytes to send or want to close, each at least once."""
        touched = self._touched.copy()
        self._touched.clear()
        return touched

    @property
    def unwritten(self) -> bool:
        """Whether anything is still to be written by the store."""
        return self._gate is not None and not self._gate.idle

    @property
    def waits(self) -> bool:
        """Whether others are at work for it, its store writes or reads, or something waits for its
        turn."""
        outside = self.results.outside
        away = self.unwritten or not self.reads.idle or not (outside is None or outside.idle)
        return away or not self.scheduler.at_rest

    @property
    def has_ticket(self) -> bool:
        """Whether :meth:`take_ticket` would return one."""
        return self._gate is not None and self._gate.has_commit

    def take_ticket(self) -> Commit | None:
        """Work for others, whose outcome is to be given to :meth:`done`; None if there is none."""
        return None if self._gate is None else self._gate.next_commit(self.now)

    def created_head(self, handle: bytes) -> bytes:
        """The header of JOB_CREATED; handles are nearly always of one length."""
        size, start = self._created_head
        if size != len(handle):
            start = head(JOB_CREATED, len(handle))
            self._created_head = len(handle), start
        return start

    # Time

    def next_deadline(self) -> float:
        """When :meth:`tick` has something to do, by the monotonic clock."""
        # Asked after every pass: two at a time are compared without a call.
        deadline = min(self.broker.next_deadline(), self._beats.next())
        deadline = min(deadline, self._census)
        deadline = min(deadline, self.reads.next_deadline())
        deadline = min(deadline, self.results.kept.next_deadline())
        deadline = min(deadline, self.scheduler.next_deadline())
        if self.logins is not None:
            deadline = min(deadline, self.logins.timers.next())
        return deadline if self._gate is None else min(deadline, self._gate.next_deadline())

    def tick(self, now: Now) -> None:
        """Do what is due."""
        self.now = now
        self.broker.tick(now)
        self._beats.run(now.monotonic, now)
        self.reads.tick(now)
        self.results.kept.tick(now)
        self.scheduler.tick(now)
        if self.logins is not None:
            self.logins.timers.run(now.monotonic, now)
        if self._gate is not None:
            self._gate.tick(now)
        if now.monotonic >= self._census:
            self._census = now.monotonic + CENSUS_SECONDS
            self._take_census()
            self.audit.flush(now)

    def expect_heartbeat(self, session: Session, interval: float) -> None:
        """The worker promised to be heard every ``interval`` seconds; 0 ends the promise."""
        if session.beat is not None:
            self._beats.cancel(session.beat)
            session.beat = None
        if interval:
            session.beat = self._beats.set(
                self.now.monotonic + HEARTBEATS_MISSED * interval, self._silent, session
            )

    def _silent(self, session: Session, now: Now) -> None:
        session.beat = None
        jobs = self.broker.lose_jobs(session.peer, now)
        log.warning(
            "%r: %d heartbeats are missing, %s to others",
            session,
            HEARTBEATS_MISSED,
            counted(jobs, "job goes", "jobs go"),
        )

    def _take_census(self) -> None:
        for tenant in self.broker.tenants.values():
            for function in tenant.ready:
                if not function.workers:
                    log.warning(
                        "function %s: %s and no worker",
                        _text(function.name),
                        counted(function.runnable, "job"),
                    )

    # Durability

    def restore(self, rows: Iterable[Row], now: Now) -> int:
        """Put jobs back that the store held; rows that are no jobs are logged and left there.

        Pages come in the order of the store. See :meth:`expect_jobs` for what is to be done if
        connections are served before the last one.

        Returns:
            How many jobs there are more.
        """
        self.now = now
        jobs = 0
        for row in rows:
            if (
                self.arriving is not None
                and isinstance(row, Keep)
                and row.sequence >> TERM_SHIFT == self._term
            ):
                # Written since we serve.
                continue
            why = restore(self.broker, row, now)
            if why is None:
                jobs += 1
                continue
            self._spoilt += 1
            if self._spoilt <= SPOILT_LINES:
                log.error(
                    "row (%r, %r) of the store is no job and stays there: %s",
                    row.partition,
                    row.sequence,
                    why,
                )
        return jobs

    def expect_jobs(self) -> None:
        """Connections are served from now on although more jobs will be restored: see
        :mod:`trigear.engine.arriving`. Say when they :meth:`have_arrived`."""
        self.arriving = Arriving()

    def have_arrived(self, now: Now) -> None:
        """Every job of the store is there."""
        self.now = now
        arriving, self.arriving = self.arriving, None
        if arriving is not None:
            arriving.resume()

    def restore_records(self, records: Iterable[Record | SpoiltRecord], now: Now) -> None:
        """Put records back that the store held, kind by kind, before the jobs."""
        self.now = now
        self._spoilt += self.kinds.restore(records, now)
        for tenant, function in self.rules.steered:
            if self.rules.quotas(tenant) is not None:
                # What is set for a function makes it count, as it did when it was set.
                self.broker.function(self.broker.tenant(tenant), function)

    @property
    def spoilt(self) -> int:
        """How many rows and records of the store could not be restored."""
        return self._spoilt

    def record(self, tenant: str, line: Line | Together, who: Pending | None = None) -> None:
        """Have a line written that is about no job in the queue; ``who`` is told of the outcome,
        at once if nothing is kept by this server."""
        if self._gate is not None:
            self._gate.write(tenant, line, who)
        elif who is not None:
            who.stored(self.now)

    @property
    def refuses_durable(self) -> bool:
        """Whether the store cannot take durable submissions now."""
        return self._gate is not None and (self._gate.stalled or self._gate.fenced)

    @property
    def fenced(self) -> bool:
        """Whether another server owns the queue: this one must stop."""
        return self._gate is not None and self._gate.fenced

    def done(self, ticket: Commit, error: StoreError | None, now: Now) -> None:
        """The work of a ticket is over; ``error`` is None if it succeeded."""
        self.now = now
        assert self._gate is not None
        self._gate.done(ticket, error, now)

    def fetched(self, ticket: Fetch, found: Mapping[Any, object], why: str, now: Now) -> None:
        """What a :class:`Fetch` asked for was read, as far as it was there, by its keys; or it
        could not be read, and ``why`` says so to those who asked."""
        self.now = now
        ticket.reads.done(ticket, found, why)

    def checked(self, check: Check, result: int, now: Now) -> None:
        """A password was checked: ``result`` is what the work of the check returned."""
        self.now = now
        assert self.logins is not None
        self.logins.checked(check, result, now)

    def renew_users(self, users: Users, now: Now) -> int:
        """Take other users; returns how many connections end with that."""
        self.now = now
        assert self.logins is not None
        ended = self.logins.renew_users(users, list(self._sessions.values()))
        self.audit.note("auth.reload", now, {}, users=len(users), ended=ended)
        return ended

    def put(self, now: Now, *, kept: bool) -> None:
        """The store of results has kept all that the last ticket asked it to, or not all of it."""
        self.now = now
        assert self.results.outside is not None
        self.results.outside.put(kept=kept)

    # Drain

    def drain(self, now: Now) -> None:
        """Get ready to stop: what runs may end, nothing new begins (see ``drain_refuses``)."""
        self.now = now
        self.draining = True
        self.hands_out_nothing = self.config.drain_refuses
        if self.hands_out_nothing:
            self.dismiss_idle()

    def dismiss_idle(self) -> None:
        """Close the connections that neither work nor wait for anything."""
        for session in list(self._sessions.values()):
            peer = session.peer
            busy = peer.jobs or peer.waiting or peer.abilities or session.out
            if not (busy or session.waits or session.holding):
                session.close(CloseReason.IDLE_DRAIN)

    @property
    def drained(self) -> bool:
        """Whether nothing is left to wait for."""
        jobs = [f for t in self.broker.tenants.values() for f in t.functions.values()]
        if self.waits:
            return False
        if self.hands_out_nothing:
            return not any(function.running for function in jobs)
        return not any(function.total for function in jobs)

    # Settings

    def reload(self, config: EngineConfig) -> None:
        """Take new settings. Handles and the face stay as they were at the start."""
        self.config = self.rules.config = config
        self.broker.apply_quotas(lambda tenant: len(list(self.sessions_of(tenant))))
        self.broker.apply_rules(self.now)
        for session in self._sessions.values():
            session.limit_packets()
        self.audit.note("config.reload", self.now, {}, tenants=sorted(config.tenants))

    def tenant_of(self, session: Session) -> str:
        """The tenant whose jobs a connection sees."""
        return DEFAULT_TENANT

    # Views

    def sessions_of(self, tenant: Tenant) -> Iterator[Session]:
        """The tenant's connections, oldest first."""
        return (s for s in self._sessions.values() if s.peer.tenant is tenant)

    def sessions(self) -> list[Session]:
        """Every connection, oldest first."""
        return list(self._sessions.values())

    def seat(self, tenant: str) -> int:
        """The number of one more connection of a tenant."""
        self._seats[tenant] += 1
        return self._seats[tenant]

    def knows_tenant(self, name: str) -> bool:
        """Whether there is such a tenant."""
        if name == NOBODY:
            return False
        return name in self.broker.tenants or name in self.config.tenants or self.reaches(name)

    def reaches(self, name: str) -> bool:
        """Whether somebody may belong to this tenant."""
        return name == DEFAULT_TENANT if self.logins is None else self.logins.knows(name)

    def session_of(self, peer: Peer) -> Session:
        """The connection of a peer."""
        return cast("Session", peer.sink)

    def statistics(self) -> Statistics:
        """Counters and gauges."""
        return statistics_of(
            self.broker,
            connections=len(self._sessions),
            schedules=len(self.scheduler),
            closed=self._closed.copy(),
            ignored=self._ignored.total(),
            faults=self._faults,
        )

    # What is counted and logged

    def ignored(self, session: Session, what: str) -> None:
        """A packet without a reply asked for something that cannot be."""
        self._ignored[what] += 1
        if session.first_time(what):
            log.info("%r: ignored %s (said once per connection)", session, what)

    def over_quota(self, session: Session, quota: str, what: str) -> None:
        """A peer asked for more than its tenant may have, and is refused it."""
        session.note("quota.exceeded", quota=quota, reason=what)
        if session.first_time(f"quota {quota}"):
            log.warning(
                "%r: tenant %s is over its quota %s, %s (said once per connection)",
                session,
                session.peer.tenant.name,
                quota,
                what,
            )

    def ended(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        return self.results.ended(job, end, attempts, data, now)

    def given_up(self, job: Job, end: JobEnd) -> None:
        log.warning(
            "background job %s of function %s %s: %s after %s",
            _text(job.handle),
            _text(job.function.name),
            "becomes a dead letter" if job.function.rules.dead_letters else "is dropped",
            end.value,
            counted(job.losses, "attempt"),
        )


_ORDINARY: Final = frozenset(
    {
        CloseReason.PEER_CLOSED,
        CloseReason.PEER_RESET,
        CloseReason.IDLE_DRAIN,
        CloseReason.SHUTDOWN,
    }
)


def _text(name: bytes) -> str:
    """A name for the log, in one word."""
    return printable(shown(name[:NAME_SHOWN]))
