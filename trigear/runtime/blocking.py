"""A client without Trio, for scripts and web views: each call waits for its answer.

::

    with connect_blocking("localhost:4730", timeout=10) as client:
        answer = client.submit("reverse", b"hello")

Several jobs can be under way at once: waiting for one of them takes in what arrives for the others.

Blocking code has no cancel scopes, so time limits are seconds here: ``timeout`` of the client, for
each of its calls. A call that runs out of time raises ``TimeoutError`` and means what cancelling
it would mean with the client for Trio:

=========================  ========================================================================
call                       running out of time means
=========================  ========================================================================
``connect_blocking``       the attempt to connect is given up, and the next server is tried
a call that connects       as ``ConnectionLost``: nothing was sent
again
``submit``                 you stop waiting; the job may have been sent, and may run
``submit_background``      whether the server has the job is unknown; submit it again with the same
                           ``unique`` to be sure
``schedule``               whether the server has the schedule is unknown; ask again to be sure
``job``                    as ``submit_background``
iterating over a job       nothing is lost: go on iterating
``result`` of a job        nothing is lost: ask again
``status``, ``echo``,      you stop waiting; the answer is dropped when it comes
``status_of_unique``,
``admin``
``result`` of the client   you stop asking; ask again
=========================  ========================================================================

The connection stays usable in each case. When one breaks, jobs that were under way on it are lost,
see :class:`~trigear.JobLost`, and the next call connects again. Nothing is submitted twice, unless
``resubmit`` asks for it.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from trigear.errors import ConnectionLost, JobLost, LoginFailed
from trigear.model import Priority, public
from trigear.protocol import events
from trigear.protocol.choice import home_of
from trigear.protocol.client import ClientConnection
from trigear.runtime.address import Address, as_address
from trigear.runtime.backoff import PATIENCE
from trigear.runtime.blocking_job import BlockingJob
from trigear.runtime.blocking_link import Waiting
from trigear.runtime.blocking_pool import BlockingPool, lot
from trigear.runtime.greeting import check_auth, check_tls, greeting
from trigear.runtime.order import (
    IN_DOUBT,
    SCHEDULE_IN_DOUBT,
    Order,
    background,
    schedule_home,
    schedule_order,
    submission,
)
from trigear.runtime.values import (
    JobStatus,
    as_data,
    as_name,
    lines_in,
    shown,
    status_in,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from types import TracebackType
    from zoneinfo import ZoneInfo

    from trigear.protocol.asking import Request
    from trigear.runtime.blocking_link import Crank
    from trigear.runtime.blocking_pool import BlockingUpstream
    from trigear.runtime.result import Result
    from trigear.runtime.values import AnyPriority
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

__all__ = ["BlockingClient", "BlockingJob", "connect_blocking"]

NOT_ACCEPTED: Final = "the server did not say that it has the job"
NO_SCHEDULE: Final = "the server did not say that it has the schedule"


@public
class BlockingClient:
    """A submitter of jobs, connected to one server or several, for one thread at a time.

    Made by :func:`connect_blocking`. ``timeout`` is how many seconds each call may take, None for
    any time; set it whenever you like.
    """

    def __init__(self, pool: BlockingPool, timeout: float | None) -> None:
        self.timeout = timeout
        self._pool = pool

    @property
    def address(self) -> Address:
        """Where the server is; of several, the one that was asked last."""
        return self._pool.latest.address

    @property
    def crank(self) -> Crank:
        """What moves the bytes of all connections."""
        return self._pool.crank

    # Jobs

    def submit(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        resubmit: bool = False,
    ) -> bytes:
        """Submit a job and wait for its end.

        Arguments, result and errors are those of :meth:`trigear.Client.submit`.

        Raises:
            TimeoutError: the job did not end in time; you stop waiting, it may run.
            LocalProtocolError: also if the client is closed.
        """
        until = self.until()
        order = Order.of(function, workload, unique, priority, resubmit=resubmit)
        while True:
            try:
                job = self._submit(order, keep=True, until=until)
                try:
                    return job._result(until)
                finally:
                    job.forget()
            except JobLost:
                if not resubmit:
                    raise
            except ConnectionLost as error:
                if not (resubmit and error.in_doubt):
                    raise

    def submit_background(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        at: datetime | float | None = None,
        delay: float | None = None,
        resubmit: bool = False,
    ) -> bytes:
        """Submit a job that goes on without us.

        The arguments are those of :meth:`submit` and of :meth:`trigear.Client.submit_background`.

        Returns:
            The job's handle.

        Raises:
            TimeoutError: the server did not answer in time; whether it has the job is unknown.
            Refused, ConnectionLost, LocalProtocolError, TypeError, ValueError: as there.
        """
        order = Order.of(function, workload, unique, priority, resubmit=resubmit)
        epoch, until = order.epoch(at, delay), self.until()
        while True:
            try:
                reply = self._ask(
                    lambda machine: background(order, machine, epoch),
                    home=order.home(self._pool),
                    late=NOT_ACCEPTED,
                    doubt=IN_DOUBT,
                    until=until,
                )
            except ConnectionLost as error:
                if not (resubmit and error.in_doubt):
                    raise
            else:
                assert isinstance(reply, events.Created)
                return reply.handle

    def schedule(
        self,
        function: str | bytes,
        when: str,
        workload: bytes = b"",
        *,
        unique: str | bytes = b"",
        timezone: str | ZoneInfo = "UTC",
        missed: Literal["once", "skip"] = "once",
        priority: AnyPriority = Priority.NORMAL,
    ) -> bytes:
        """Have a background job submitted again and again, as :meth:`trigear.Client.schedule` does.

        Returns:
            The schedule's handle.

        Raises:
            Refused: the server did not accept it, or knows nothing of schedules.
            ConnectionLost: the connection broke before the server said that it has the schedule.
            TimeoutError: the server did not answer in time; asking again does no harm.
            LocalProtocolError, TypeError, ValueError: as there.
        """
        # Each of these is loaded by those only who need it: most calls are jobs.
        from trigear.protocol import schedule_talks
        from trigear.runtime.talking import hold_blocking

        order = schedule_order(function, when, workload, unique, timezone, missed, priority)
        fields = order.fields()
        until = self.until()
        upstream = self._pool.pick(
            schedule_home(order, len(self._pool.upstreams)), until, self.timeout
        )

        def answered(ask: Callable[[ClientConnection], Request]) -> events.OfRequest:
            return self._reply(
                upstream, ask, late=NO_SCHEDULE, doubt=SCHEDULE_IN_DOUBT, until=until
            )

        def ask(line: str) -> list[str]:
            return lines_in(answered(lambda machine: machine.command(as_name(line))))

        if fields is None:
            return hold_blocking(ask, schedule_talks.add(order))
        reply = answered(
            lambda machine: machine.submit_schedule(
                order.function, order.workload, fields, unique=order.unique
            )
        )
        assert isinstance(reply, events.Created)
        return reply.handle

    def job(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        keep: bool = True,
    ) -> BlockingJob:
        """Submit a job and follow it; returns when the server has it.

        Several jobs may be under way at once.

        Args:
            keep: whether the data it sends on the way are kept for its result, too.

        The other arguments are those of :meth:`submit`.

        Raises:
            TimeoutError: the server did not answer in time; whether it has the job is unknown.
            Refused, ConnectionLost, LocalProtocolError, TypeError, ValueError: as there.
        """
        order = Order.of(function, workload, unique, priority)
        return self._submit(order, keep=keep, until=self.until())

    # Questions

    def status(self, handle: str | bytes) -> JobStatus:
        """Ask about a job by its handle.

        Of several servers, those that are up are asked in turn until one knows the job.

        Raises:
            ConnectionLost: the connection broke before the answer came; or a server is down and
                the others do not know the job.
            TimeoutError: the answer did not come in time.
        """
        name = as_name(handle)
        return self._look_for(None, lambda machine: machine.get_status(name))

    def status_of_unique(self, unique: str | bytes) -> JobStatus:
        """Ask about a job by its unique; else as :meth:`status`.

        Raises:
            ConnectionLost, TimeoutError: as :meth:`status`.
            Refused: the server cannot be asked this.
        """
        name = as_name(unique)
        home = home_of(name, b"", len(self._pool.upstreams))
        return self._look_for(home, lambda machine: machine.get_status_unique(name))

    def _look_for(self, start: int | None, ask: Callable[[ClientConnection], Request]) -> JobStatus:
        """Ask one server after the other about a job, until one knows it."""
        until = self.until()
        self._pool.pick(start, until, self.timeout)
        answer = JobStatus(False, False, 0, 0)
        down: ConnectionLost | LoginFailed | None = None
        for upstream in self._pool.walk(start):
            if not self._pool.settled(upstream, until, self.timeout):
                down = upstream.failure
                continue
            answer = status_in(self._reply(upstream, ask, until=until))
            if answer.known:
                return answer
        if down is not None:
            raise ConnectionLost(f"{down}; the others do not know the job") from down
        return answer

    def result(self, handle: str | bytes, *, wait: bool = False) -> Result:
        """Ask what became of a job, and for its result, as :meth:`trigear.Client.result` does.

        Raises:
            TimeoutError: the answer, or the end that was waited for, did not come in time. Nothing
                is lost: ask again.
        """
        from trigear.runtime.result import pauses

        name, until = as_name(handle), self.until()
        pause = pauses()
        while True:
            result = self._result(name, until)
            if result.settled or not wait:
                return result
            self._linger(next(pause), until, f"job {shown(name)} did not end")

    def _result(self, name: bytes, until: float | None) -> Result:
        from trigear.runtime.result import keeps_none, result_in

        self._pool.pick(None, until, self.timeout)
        answer: Result | None = None
        plain: BlockingUpstream | None = None
        down: ConnectionLost | LoginFailed | None = None
        for upstream in self._pool.walk(None):
            if not self._pool.settled(upstream, until, self.timeout):
                down = upstream.failure
                continue
            if not upstream.machine.extended:
                # It may not have said yet that it is; what it says is in order.
                self._reply(upstream, lambda machine: machine.echo(b""), until=until)
                if not upstream.machine.extended:
                    plain = upstream
                    continue
            reply = self._reply(upstream, lambda machine: machine.get_result(name), until=until)
            assert isinstance(reply, events.ResultTold)
            answer = result_in(reply)
            if answer.known:
                return answer
        if down is not None:
            raise ConnectionLost(f"{down}; the others do not know the job") from down
        if answer is None:
            assert plain is not None, "there is a server, and it is up"
            raise keeps_none(plain.address)
        return answer

    def _linger(self, seconds: float, until: float | None, late: str) -> None:
        """Let time pass, and take in what arrives for others meanwhile.

        Raises:
            TimeoutError: the time is up before; ``late`` says what did not happen.
        """
        end = time.monotonic() + seconds
        if until is not None and end > until:
            self.crank.wait_for(lambda: False, until, late, self.address)
        while (left := end - time.monotonic()) > 0:
            self.crank.turn(left)
            if not self._pool.any_up():
                return  # the next question says so, or finds another

    def echo(self, data: bytes) -> bytes:
        """Have a server send the same bytes back: it is alive, and has read all before them.

        Raises:
            ConnectionLost: no server can be reached, or the connection broke before the answer.
            TimeoutError: the answer did not come in time.
        """
        sent = as_data(data)
        reply = self._ask(lambda machine: machine.echo(sent))
        assert isinstance(reply, events.Echoed)
        return reply.data

    def admin(self, line: str | bytes) -> list[str]:
        """Give a text command, as :meth:`trigear.Client.admin` does.

        Raises:
            TimeoutError: the answer did not come in time; the command may have been carried out.
        """
        command = as_name(line)
        doubt = "whether the command was carried out is unknown"
        return lines_in(self._ask(lambda machine: machine.command(command), doubt=doubt))

    def wait(self) -> None:
        """Wait until a server says anything, of whichever job; see :meth:`BlockingJob.arrived`.

        Raises:
            ConnectionLost: no connection is left.
            TimeoutError: nothing came within the client's time.
        """
        self.crank.check()
        if not self._pool.any_up():
            raise self._pool.nobody()
        if not self.crank.turn(self.timeout):
            raise TimeoutError(f"nothing was heard in time: {self.address}")

    # The connection

    def close(self) -> None:
        """Hang up. Servers drop jobs that nobody waits for any more, unless they run."""
        self.crank.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def until(self) -> float | None:
        """When the time of a call is up that begins now, by the monotonic clock."""
        return None if self.timeout is None else time.monotonic() + self.timeout

    def _submit(self, order: Order, *, keep: bool, until: float | None) -> BlockingJob:
        upstream = self._pool.pick(order.home(self._pool), until, self.timeout)
        assert upstream.link is not None, "picked because it is up"
        token = submission(order, upstream.machine)
        job = BlockingJob(self, upstream.link, token, keep=keep)
        upstream.link.listen(token, job)
        try:
            self.crank.wait_for(lambda: job.told, until, NOT_ACCEPTED, upstream.address)
            job.reply()
        except BaseException:
            job.forget()
            raise
        return job

    def _ask(
        self,
        ask: Callable[[ClientConnection], Request],
        *,
        home: int | None = None,
        late: str = "no answer came",
        doubt: str = "",
        until: float | None = None,
    ) -> events.OfRequest:
        """Ask the server that is to be asked, and wait for its reply."""
        until = until or self.until()
        upstream = self._pool.pick(home, until, self.timeout)
        return self._reply(upstream, ask, late=late, doubt=doubt, until=until)

    def _reply(
        self,
        upstream: BlockingUpstream,
        ask: Callable[[ClientConnection], Request],
        *,
        late: str = "no answer came",
        doubt: str = "",
        until: float | None = None,
    ) -> events.OfRequest:
        """Ask this server, and wait for its reply."""
        assert upstream.link is not None, "picked because it is up"
        link, waiting = upstream.link, Waiting(doubt)
        token = ask(link.machine)
        link.listen(token, waiting)
        try:
            self.crank.wait_for(lambda: waiting.told, until, late, link.address)
            return waiting.reply()
        finally:
            link.forget(token)


@public
def connect_blocking(
    servers: str | Address | Iterable[str | Address],
    *,
    timeout: float | None = None,
    client_id: str | None = None,
    patience: float = PATIENCE,
    rng: random.Random | None = None,
    tls: ClientTLS | ClientContext | None = None,
    auth: Auth | None = None,
) -> BlockingClient:
    """Connect to the servers that jobs shall be submitted to, without Trio.

    Of several servers a submission with a unique goes to the one that the unique chooses, by the
    formula of Perl's client over the addresses in their order; so clients with the same list agree.
    Everything else goes to one server, drawn by lot. A server that is down is replaced by the next
    one in the list, until it is up again. Connections are made when they are first needed, and
    made again by the next call when they have broken.

    Args:
        servers: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`, `gearmans://HOST[:PORT]`
            (TLS) or `unix:PATH`; or several of them.
        timeout: seconds that each attempt to connect and each call may take; None for any time.
        client_id: what the servers' lists of connections call this one; one word.
        patience: seconds that a call waits for a server while all of them are down, within its
            time, before it raises ConnectionLost; 0 to raise at once.
        rng: where the lot comes from.
        tls: whom to trust and who we are, as for :func:`trigear.connect`.
        auth: who to log in as on every connection, likewise.

    Returns:
        The client; ``with`` closes it.

    Raises:
        ConnectionLost: nobody answers at any of them.
        LoginFailed: here, and in any call when a connection was made again, the servers refuse the
            login (:class:`LoginRefused`), or it would not be safe.
        ConfigError: this is no address, or a file of TLS cannot be used.
        TypeError: this is nothing to log in with.
        LocalProtocolError: the client id is not one word.
        ValueError: the patience is negative.
    """
    if math.isnan(patience) or patience < 0:
        raise ValueError(f"patience={patience}: a number of seconds is needed")
    check_tls(tls)
    check_auth(auth)
    several = [servers] if isinstance(servers, str | Address) else list(servers)
    places = [as_address(one) for one in several]
    greet = partial(greeting, None if client_id is None else as_name(client_id))
    greet(ClientConnection())  # who has no proper name shall hear of it here
    draw = lot if rng is None else rng.random
    pool = BlockingPool(places, greet, patience=patience, rng=draw, tls=tls, auth=auth)
    try:
        pool.begin(timeout)
    except BaseException:
        pool.crank.close()
        raise
    return BlockingClient(pool, timeout)
