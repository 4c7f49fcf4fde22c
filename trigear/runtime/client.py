"""Submit jobs and wait for their ends, ask about jobs, give text commands.

::

    async with connect("localhost:4730") as client:
        answer = await client.submit("reverse", b"hello")

No call has a timeout: use ``trio.move_on_after`` and ``trio.fail_after``. What being cancelled
means stands with each call, and as a table in ``docs/client.md``. In each case the connection
stays usable for others, because only the link's own tasks touch it.
"""

from __future__ import annotations

import math
import random
import time
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio

from trigear.errors import ConnectionLost, JobLost, LoginFailed
from trigear.model import Priority, public
from trigear.protocol import events
from trigear.protocol.choice import home_of
from trigear.protocol.client import ClientConnection
from trigear.runtime.address import Address, as_address
from trigear.runtime.backoff import PATIENCE
from trigear.runtime.batch import Batch
from trigear.runtime.greeting import check_auth, check_tls, greeting
from trigear.runtime.link import hidden_nursery, open_stream
from trigear.runtime.opening import Opening
from trigear.runtime.order import IN_DOUBT, Order, background, schedule_order, submission
from trigear.runtime.pool import Place, Pool, Upstream
from trigear.runtime.result import Result, keeps_none, pauses, result_in
from trigear.runtime.scheduling import submit_schedule
from trigear.runtime.values import (
    AnyPriority,
    JobStatus,
    as_data,
    as_name,
    as_priority,
    lines_in,
    status_in,
)
from trigear.runtime.waiting import Following, Job, Waiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from trigear.protocol.asking import Request
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientTLS

WITHOUT_TRIO: Final = (
    "Without Trio there is trigear.connect_blocking; under asyncio, call it in asyncio.to_thread"
)


@public
class Client:
    """A submitter of jobs, connected to one server or several. Made by :func:`connect`.

    Any number of tasks may use it at once.
    """

    def __init__(self, pool: Pool, wall: Callable[[], float] = time.time) -> None:
        self._pool = pool
        self._wall = wall

    # Jobs

    async def submit(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        resubmit: bool = False,
    ) -> bytes:
        """Submit a job and wait for its end.

        Args:
            function: what the workers that can do it call it.
            workload: what the worker is given.
            unique: submissions to one function with the same unique become one job; ``-`` stands
                for the workload itself, nothing for no such joining.
            priority: jobs of higher priority are taken first: high, normal or low.
            resubmit: submit again if the connection breaks, as often as that happens. The job may
                run twice. Needs a unique.

        Returns:
            All the data that the job sent, and what it completed with.

        Raises:
            JobFailed: the job failed.
            JobRaised: the job raised an exception in its worker.
            JobLost: the connection broke while the job was under way.
            Refused: the server did not accept the job.
            ConnectionLost: no server can be reached; or, ``in_doubt``, the connection broke
                before the server said that it has the job.
            LocalProtocolError: a name that cannot be sent.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority; ``resubmit`` without a unique.

        Cancellation: you stop waiting. The job may have been sent, and may run; a trigear server
        drops it if it has not started and nobody else waits for it.
        """
        order = Order.of(function, workload, unique, priority, resubmit=resubmit)
        while True:
            try:
                return await self._submit(order)
            except JobLost:
                if not resubmit:
                    raise
            except ConnectionLost as error:
                if not (resubmit and error.in_doubt):
                    raise

    async def _submit(self, order: Order) -> bytes:
        upstream = await self._pool.pick(order.home(self._pool))
        job = Following()
        with upstream.listening(submission(order, upstream.machine), job):
            return await job.result()

    def open_job(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        keep: bool = True,
    ) -> AbstractAsyncContextManager[Job]:
        """Submit a job and follow it. The body begins when the server has the job.

        Args:
            keep: whether the data it sends on the way are kept for its result, too.

        The other arguments are those of :meth:`submit`.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: no server can be reached; or, ``in_doubt``, the connection broke
                before the server said that it has the job.
            LocalProtocolError: a name that cannot be sent.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority.

        Cancellation: on entering, as :meth:`submit`. Leaving the body before the job's end means
        the same, cancelled or not.
        """
        order = Order.of(function, workload, unique, priority)
        return Opening(self._open_job(order, keep), "client.open_job(...)", "job", WITHOUT_TRIO)

    @asynccontextmanager
    async def _open_job(self, order: Order, keep: bool) -> AsyncIterator[Job]:
        upstream = await self._pool.pick(order.home(self._pool))
        assert upstream.link is not None, "picked because it is up"
        job = Job(upstream.link, keep=keep)
        try:
            with upstream.listening(submission(order, upstream.machine), job):
                await job.reply()
                yield job
        finally:
            job.leave()

    async def submit_background(
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

        Args:
            at: when it may begin, as a ``datetime`` with a time zone or in seconds since 1970;
                whole seconds, rounded up. Such jobs have normal priority.
            delay: the same, in seconds from now by this machine's clock.
            resubmit: submit again if the connection breaks before the server has said that it has
                the job. The job may run twice. Needs a unique.

        The other arguments are those of :meth:`submit`.

        Returns:
            The job's handle.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: no server can be reached; or, ``in_doubt``, the connection broke
                before the server said that it has the job: whether it has is unknown.
            LocalProtocolError: a name or a time that cannot be sent; a time with a priority.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority; ``resubmit`` without a unique.

        Cancellation: whether the server has the job is unknown. Submit it again with the same
        unique to be sure.
        """
        order = Order.of(function, workload, unique, priority, resubmit=resubmit)
        epoch = order.epoch(at, delay, self._wall)
        while True:
            try:
                return await self._submit_background(order, epoch)
            except ConnectionLost as error:
                if not (resubmit and error.in_doubt):
                    raise

    async def _submit_background(self, order: Order, epoch: int | None) -> bytes:
        upstream = await self._pool.pick(order.home(self._pool))
        waiting = Waiting(IN_DOUBT)
        with upstream.listening(background(order, upstream.machine, epoch), waiting):
            reply = await waiting.reply()
        assert isinstance(reply, events.Created)
        return reply.handle

    async def schedule(
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
        """Have a background job submitted again and again, or change how that is done: there is
        one schedule for each function and unique, or each workload if there is no unique.

        Args:
            when: five fields of cron, ``@daily`` and its like, or ``@every`` and a duration.
            unique: names the schedule; a run that finds the last one unfinished joins it.
            timezone: whose clocks count.
            missed: whether one run makes up for those that were missed.

        The other arguments are those of :meth:`submit`.

        Returns:
            The schedule's handle. Each run has its own.

        Raises:
            Refused: the server did not accept it, or knows nothing of schedules.
            ConnectionLost: as :meth:`submit_background`; asking again does no harm.
            LocalProtocolError: what cannot be sent: a name, or a workload that does not fit into
                a text command, which all but the default time zone, policy and priority needs.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority or policy.

        Cancellation: whether the server has the schedule is unknown; ask again to be sure.
        """
        order = schedule_order(function, when, workload, unique, timezone, missed, priority)
        return await submit_schedule(self._pool, order)

    def map(
        self,
        function: str | bytes,
        workloads: Iterable[bytes],
        *,
        concurrency: int = 16,
        ordered: bool = True,
        unique: Callable[[bytes], str | bytes] | None = None,
        priority: AnyPriority = Priority.NORMAL,
        resubmit: bool = False,
    ) -> Batch:
        """Submit many jobs, some at a time, and iterate over their ends.

        ::

            async for outcome in client.map("resize", images, concurrency=8):
                save(outcome.index, outcome.result())

        Args:
            workloads: one job for each; taken as there is room for it.
            concurrency: how many jobs are under way, or over and not yet taken by you, at most.
            ordered: whether outcomes come in the order of the workloads, or as jobs end.
            unique: gives each workload its unique.
            resubmit: submit again what was under way when the connection broke. Needs a unique.

        The other arguments are those of :meth:`submit`.

        Returns:
            An iterator for one task. Leaving it early: see :class:`Batch`.

        Raises:
            TypeError: ``workloads`` is a single one.
            ValueError: there is no such priority; ``concurrency`` is less than one; ``resubmit``
                without ``unique``.

        Cancellation: of an iteration: nothing is lost, go on iterating.
        """
        if concurrency < 1:
            raise ValueError(f"concurrency={concurrency}: at least one job at a time is needed")
        if isinstance(workloads, str | bytes | bytearray | memoryview):
            raise TypeError("map takes many workloads, and this is one: put it into a list")
        if resubmit and unique is None:
            raise ValueError("resubmit=True needs unique, a function that gives each workload one")

        def order(workload: bytes) -> Order:
            data = as_data(workload)
            key = b"" if unique is None else unique(data)
            return Order.of(function, data, key, level, resubmit=resubmit)

        level = as_priority(priority)
        return Batch(
            self._pool,
            # Not a generator: that would be over after the first workload that is refused.
            map(order, workloads),
            concurrency=concurrency,
            ordered=ordered,
            resubmit=resubmit,
        )

    # Questions

    async def status(self, handle: str | bytes) -> JobStatus:
        """Ask about a job by its handle.

        Of several servers, those that are up are asked in turn until one knows the job.

        Raises:
            ConnectionLost: the connection broke before the answer came; or a server is down and
                the others do not know the job.

        Cancellation: you stop waiting.
        """
        name = as_name(handle)
        return await self._look_for(None, lambda machine: machine.get_status(name))

    async def status_of_unique(self, unique: str | bytes) -> JobStatus:
        """Ask about a job by its unique; else as :meth:`status`.

        Raises:
            ConnectionLost: as :meth:`status`.
            Refused: the server cannot be asked this.

        Cancellation: you stop waiting.
        """
        name = as_name(unique)
        home = home_of(name, b"", len(self._pool.upstreams))
        return await self._look_for(home, lambda machine: machine.get_status_unique(name))

    async def result(self, handle: str | bytes, *, wait: bool = False) -> Result:
        """Ask what became of a job, and for its result; of several servers as :meth:`status`.

        Servers remember the outcome of each job for a while. Results are kept where the function's
        settings say so, see ``keep-results``.

        Args:
            handle: the job's name at the server.
            wait: whether to wait until the job is over, or unknown. The server is asked again and
                again for that, twenty times a second at first and once a second in the end.

        Raises:
            Refused: the result is kept, but cannot be read now.
            ConnectionLost: as :meth:`status`; ask again.
            LocalProtocolError: the server is none of trigear's.

        Cancellation: you stop waiting, the job goes on.
        """
        name = as_name(handle)
        pause = pauses()
        while True:
            result = await self._result(name)
            if result.settled or not wait:
                return result
            await trio.sleep(next(pause))

    async def _result(self, name: bytes) -> Result:
        await self._pool.pick(None)
        answer: Result | None = None
        plain: Upstream | None = None
        down: ConnectionLost | LoginFailed | None = None
        for upstream in self._pool.walk(None):
            if not await self._pool.settled(upstream):
                down = upstream.failure
                continue
            if not upstream.machine.extended:
                # It may not have said yet that it is; what it says is in order.
                await self._reply(upstream, upstream.machine.echo(b""))
                if not upstream.machine.extended:
                    plain = upstream
                    continue
            reply = await self._reply(upstream, upstream.machine.get_result(name))
            assert isinstance(reply, events.ResultTold)
            answer = result_in(reply)
            if answer.known:
                return answer
        if down is not None:
            raise ConnectionLost(f"{down}; the others do not know the job") from down
        if plain is not None:
            raise keeps_none(plain.place.name)
        assert answer is not None, "one was up"
        return answer

    @staticmethod
    async def _reply(upstream: Upstream, token: Request) -> events.OfRequest:
        waiting = Waiting()
        with upstream.listening(token, waiting):
            return await waiting.reply()

    async def _look_for(
        self, start: int | None, ask: Callable[[ClientConnection], Request]
    ) -> JobStatus:
        """Ask one server after the other about a job, until one knows it."""
        await self._pool.pick(start)
        answer = JobStatus(False, False, 0, 0)
        down: ConnectionLost | LoginFailed | None = None
        for upstream in self._pool.walk(start):
            if not await self._pool.settled(upstream):
                down = upstream.failure
                continue
            answer = status_in(await self._reply(upstream, ask(upstream.machine)))
            if answer.known:
                return answer
        if down is not None:
            raise ConnectionLost(f"{down}; the others do not know the job") from down
        return answer

    async def echo(self, data: bytes) -> bytes:
        """Have a server send the same bytes back: it is alive, and has read all before them.

        Raises:
            ConnectionLost: no server can be reached, or the connection broke before the answer.
            TypeError: the data are not bytes.

        Cancellation: you stop waiting.
        """
        sent = as_data(data)
        upstream = await self._pool.pick(None)
        reply = await self._reply(upstream, upstream.machine.echo(sent))
        assert isinstance(reply, events.Echoed)
        return reply.data

    async def admin(self, line: str | bytes) -> list[str]:
        """Give a text command, such as ``status``. Of several servers, one gets it.

        Returns:
            The lines of the answer, without the dot that closes a list.

        Raises:
            Refused: the server answered with an `ERR` line.
            ConnectionLost: no server can be reached; or, ``in_doubt``, the connection broke
                before the answer was complete.
            LocalProtocolError: this is no line.

        Cancellation: you stop waiting. The command may have been carried out.
        """
        command = as_name(line)
        upstream = await self._pool.pick(None)
        waiting = Waiting("whether the command was carried out is unknown")
        with upstream.listening(upstream.machine.command(command), waiting):
            reply = await waiting.reply()
        return lines_in(reply)


# Connecting


@public
def connect(
    *addresses: str | Address,
    client_id: str | None = None,
    patience: float = PATIENCE,
    rng: random.Random | None = None,
    tls: ClientTLS | None = None,
    auth: Auth | None = None,
) -> AbstractAsyncContextManager[Client]:
    """Connect to the servers that jobs shall be submitted to; the body's end hangs up.

    Of several servers a submission with a unique goes to the one that the unique chooses, by the
    formula of Perl's client over the addresses in their order; so clients with the same list
    agree. Everything else goes to one server, drawn by lot. A server that is down is replaced by
    the next one in the list, until it is up again. Connections are made when they are first
    needed, and made again when they break.

    Args:
        addresses: each `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`,
            `gearmans://HOST[:PORT]` (TLS) or `unix:PATH`; none for `localhost:4730`.
        client_id: what the servers' lists of connections call this one; one word.
        patience: seconds that a call waits for a server while all of them are down, before it
            raises ConnectionLost; 0 to raise at once, ``math.inf`` to wait as long as it takes.
        rng: where the lot and the jitter of reconnecting come from.
        tls: whom to trust and who we are, which is spoken with every server but those on Unix
            sockets; None: TLS where an address begins with `gearmans://`, trusting the system's
            authorities.
        auth: who to log in as on every connection, before anything else is said there; a server
            that knows no logins is not spoken to then. None: nobody.

    Raises:
        ConnectionLost: on entering, nobody answers at any of the addresses.
        LoginFailed: on entering, and in any call when a connection was made again, the servers
            refuse the login (:class:`LoginRefused`), or it would not be safe.
        ConfigError: this is no address, or a file of TLS cannot be used.
        TypeError: the same, and no text either.
        LocalProtocolError: the client id is not one word.
        ValueError: the patience is negative.
        RuntimeError: on entering, this is not a Trio program.

    Cancellation: on entering, the attempt is given up. In the body, what was queued is sent first,
    for at most two seconds.
    """
    check_tls(tls)
    check_auth(auth)
    places = []
    for address in addresses or ("localhost",):
        where = as_address(address, "; several servers are several arguments")
        places.append(Place(str(where), partial(open_stream, where, tls)))
    opening = connect_to(places, client_id=client_id, patience=patience, rng=rng, auth=auth)
    return Opening(opening, "trigear.connect(...)", "client", WITHOUT_TRIO)


@asynccontextmanager
async def connect_to(
    places: Sequence[Place],
    *,
    client_id: str | None = None,
    patience: float = PATIENCE,
    rng: random.Random | None = None,
    wall: Callable[[], float] = time.time,
    auth: Auth | None = None,
) -> AsyncIterator[Client]:
    """As :func:`connect`, where it is up to you how to get to each server, and what time it is:
    ``wall`` tells the seconds since 1970."""
    if math.isnan(patience) or patience < 0:
        raise ValueError(f"patience={patience}: a number of seconds is needed")
    greet = partial(greeting, None if client_id is None else as_name(client_id))
    greet(ClientConnection())  # who has no proper name shall hear of it here
    lot = rng or random.Random()  # noqa: S311 - jitter, not a secret
    pool = Pool(places, greet, patience=patience, rng=lot, auth=auth)
    async with hidden_nursery() as nursery:
        try:
            await pool.begin(nursery)
            yield Client(pool, wall)
        finally:
            pool.close()


@asynccontextmanager
async def open_client(
    stream: trio.abc.Stream,
    *,
    name: str = "the server",
    client_id: str | None = None,
    auth: Auth | None = None,
) -> AsyncIterator[Client]:
    """As :func:`connect`, over a stream that leads to the server already; closes it.

    ``name`` is what the server is called in errors. When the connection breaks, it stays broken.
    """

    async def take() -> trio.abc.Stream:
        return stream

    place = Place(name, take, lasting=False)
    async with connect_to([place], client_id=client_id, auth=auth) as client:
        yield client
