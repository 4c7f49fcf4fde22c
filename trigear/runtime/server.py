"""A Gearman server in a nursery.

::

    serve
    ├── listeners      one task per socket: accept
    ├── hub            every connection
    ├── timer          the engine's deadlines
    ├── committer      one thread, one batch at a time (only with a store)
    ├── reader         one thread, what is asked for (only with a store)
    ├── verifier       one thread, one password at a time (only with logins)
    ├── keeper         one thread, results that are kept elsewhere (only if they are)
    └── drain          once asked for: waits until nothing runs or the grace is over
"""

from __future__ import annotations

import logging
import os
import random
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trigear.engine.config import ServerConfig
from trigear.engine.doors import TurnedAway
from trigear.engine.engine import Engine
from trigear.engine.gate import STALL_SECONDS
from trigear.engine.handles import HandleMint
from trigear.engine.wishes import Wish
from trigear.errors import StoreFenced, StoreUnusable, TrigearInternalError
from trigear.model import TERM_SHIFT, CloseReason, counted
from trigear.runtime.accepting import Acceptor, renew_tls, tls_of
from trigear.runtime.clock import now
from trigear.runtime.committer import Committer
from trigear.runtime.doorstep import Doorstep
from trigear.runtime.expiry import mind_the_ends
from trigear.runtime.handshakes import Handshakes
from trigear.runtime.hub import LINGER, Hub
from trigear.runtime.link import hidden_nursery
from trigear.runtime.listeners import address_text, bind, unlink_unix
from trigear.runtime.loading import Loading, opened
from trigear.runtime.memory import collector, keep_memory
from trigear.runtime.reader import Reader, from_store
from trigear.runtime.results import Keeper, results_opened
from trigear.stores.base import KEY_BYTES, Owner, Tenure

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from trigear.engine.logins import Logins
    from trigear.engine.statistics import Statistics
    from trigear.security.tls import Listening
    from trigear.security.users import Users
    from trigear.stores.base import Store
    from trigear.stores.results import ResultStore

log: Final = logging.getLogger("trigear.server")

DRAIN_LOOK: Final = 0.1
"""Seconds between two looks whether a draining server is done."""

PATIENCE: Final = 0.001
"""See :mod:`trigear.runtime.hub`; the least that epoll can wait."""


class Server:
    """A running server, as :func:`serve` hands it over when it accepts connections."""

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        addresses: Sequence[str],
        config: ServerConfig,
        tls: Mapping[str, Listening],
    ) -> None:
        self._engine = engine
        self._hub = hub
        self._config = config
        self._tls = tls
        self.addresses = tuple(addresses)
        """What the server listens at, as `host:port`, `[host]:port` or `unix:path`."""
        self._loading: Loading | None = None
        self.drain_asked = trio.Event()
        self.stopped = trio.Event()
        self.failure: Exception | None = None
        self.on_reload: Callable[[], object] = _nothing
        """Called when an operator asks for files to be read anew."""

    @property
    def restored(self) -> int:
        """How many jobs were read from the store so far."""
        return 0 if self._loading is None else self._loading.jobs

    @property
    def loading(self) -> bool:
        """Whether jobs are still being read from the store."""
        return self._loading is not None and not self._loading.done

    def statistics(self) -> Statistics:
        """Counters and gauges of this moment."""
        return self._engine.statistics()

    def drain(self) -> None:
        """Stop gracefully: close the listeners, let running jobs end for at most the grace.

        Returns at once; :func:`serve` returns when the drain is over. Asking again changes
        nothing; :meth:`stop` ends it early.
        """
        if not self.drain_asked.is_set():
            self._engine.drain(now())
            self._hub.flush()
            self.drain_asked.set()

    def stop(self) -> None:
        """Stop now. Connections are closed; jobs in memory are gone."""
        self.stopped.set()

    def fulfil(self) -> None:
        """Do what operators have asked for."""
        wishes, self._engine.wishes = self._engine.wishes, []
        for wish in wishes:
            log.info("asked by an operator: %s", wish.value)
            if wish is Wish.STOP:
                self.stop()
            elif wish is Wish.DRAIN:
                self.drain()
            else:
                self.on_reload()

    def note(self, event: str, **facts: object) -> None:
        """Enter something about the server itself into the audit log."""
        self._engine.audit.note(event, now(), {}, **facts)

    def renew_users(self, users: Users) -> int:
        """Take other users. Connections of those who are gone, or whose password is another one,
        are ended; other rights hold at once.

        Returns:
            How many connections are ended.
        """
        ended = self._engine.renew_users(users, now())
        self._hub.flush()
        return ended

    def reload(self, config: ServerConfig) -> None:
        """Take the settings that may change while running: those of the functions, timeouts,
        attempts, and TLS with its files. Addresses stay as they are.

        Raises:
            ConfigError: something of TLS cannot be used; nothing has changed then.
        """
        renew_tls(self._tls, config, now().wall)
        self._engine.reload(config.engine)


async def serve(
    config: ServerConfig,
    sockets: Sequence[socket.socket],
    *,
    store: Store | None = None,
    results: ResultStore | None = None,
    tls: Mapping[str, Listening] | None = None,
    logins: Logins | None = None,
    audit: Callable[[Mapping[str, object]], object] | None = None,
    own_process: bool = False,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until the server is stopped or drained, or this call is cancelled.

    Args:
        config: how the server behaves.
        sockets: bound sockets, see :func:`trigear.runtime.listeners.bind`; closed at the end.
        store: where background jobs are recorded; None keeps them in memory. It is opened, and
            its jobs are loaded, before the first connection is accepted; closed at the end.
        results: where results of jobs are kept; None keeps them beside the jobs. Opened before the
            first connection is accepted, closed at the end.
        tls: what the configuration asks for, by :func:`trigear.runtime.accepting.tls_of`, for who
            has to read the files before privileges are dropped; None: they are read now.
        logins: how peers have to say who they are; None: nobody is asked.
        audit: gets the entries of the audit log, see :mod:`trigear.engine.audit`.
        own_process: whether this program is nothing but the server. Then automatic garbage
            collection is switched off and done when nothing else is to be done.
        task_status: gets the :class:`Server` when connections are accepted.

    Raises:
        ConfigError: a file of TLS cannot be used.
        StoreUnusable: the store cannot be opened or read; the text says what to do.
        TrigearInternalError: a bug damaged the queues, or another server took over the store.

    Cancelling it closes all connections at once.
    """
    addresses = [address_text(sock) for sock in sockets]
    seed = os.urandom(KEY_BYTES)
    limiter = trio.CapacityLimiter(1)
    async with AsyncExitStack() as stack:
        stack.callback(_close_listeners, sockets)
        if tls is None:
            tls = tls_of(config, now().wall)
        tenure = Tenure(0, seed)
        if store is not None:
            owner = Owner(os.getpid(), ", ".join(addresses), config.engine.version, seed)
            tenure = await stack.enter_async_context(opened(store, owner, limiter))
        await stack.enter_async_context(results_opened(results))
        await _serve(
            *(config, sockets, store, results, tls, logins, audit),
            *(tenure, limiter, own_process, task_status),
        )


async def _serve(
    config: ServerConfig,
    sockets: Sequence[socket.socket],
    store: Store | None,
    results: ResultStore | None,
    tls: Mapping[str, Listening],
    logins: Logins | None,
    audit: Callable[[Mapping[str, object]], object] | None,
    tenure: Tenure,
    limiter: trio.CapacityLimiter,
    own_process: bool,
    task_status: trio.TaskStatus[Server],
) -> None:
    """As :func:`serve`, with a store that is open."""
    term = tenure.term
    mint = HandleMint(config.engine.handle_prefix, tenure.key, term << TERM_SHIFT)
    engine = Engine(
        config.engine,
        mint,
        now(),
        durable=store is not None,
        term=term,
        results_elsewhere=results is not None,
        chance=random.Random().random,  # noqa: S311 - jitter, not a secret
        logins=logins,
        audit=audit,
    )
    loading = None
    if store is not None:
        loading = Loading(store, engine, limiter, own_process=own_process)
        await loading.begin()
    idle = _nothing
    if own_process:
        keep_memory()
        idle = collector()
    hub = Hub(engine, idle)
    addresses = [address_text(sock) for sock in sockets]
    server = Server(engine, hub, addresses, config, tls)
    doorstep = Doorstep(TurnedAway())
    handshakes = Handshakes(hub, doorstep)
    server._loading = loading
    timer = _Timer(engine, hub)
    committer = None if store is None else Committer(engine, store, hub.flush, limiter)
    reader = None if store is None else Reader(engine, engine.reads, from_store(store), hub.flush)
    keeper = None if results is None else Keeper(engine, results, hub.flush)

    verifier = None
    if logins is not None:
        # Only here: it brings what reads certificates.
        from trigear.runtime.verifier import Verifier, channel_of

        verifier = Verifier(engine, logins, hub.flush)
        hub.channel_of = channel_of

    patience = PATIENCE if own_process else 0.0
    hub.patience = patience

    def after_pass() -> None:
        timer.look()
        if engine.wishes:
            server.fulfil()
        if verifier is not None:
            verifier.look()
        if keeper is not None:
            hub.patience = 0.0 if engine.waits else patience
            keeper.look()
        if committer is not None and reader is not None:
            hub.patience = 0.0 if engine.waits else patience
            if engine.has_ticket:
                committer.offer()
            reader.look()
            if engine.fenced:
                server.failure = StoreFenced("another server owns the store now")
                server.stop()

    hub.after_pass = after_pass
    if committer is not None and own_process:
        hub.before_pass = committer.give_way
    acceptors = [Acceptor(sock, hub, handshakes, doorstep, tls, config, logins) for sock in sockets]
    listening = trio.CancelScope()

    async def drain() -> None:
        await server.drain_asked.wait()
        listening.cancel()
        await _wait_drained(engine, hub, config)
        server.stop()

    try:
        async with hidden_nursery() as nursery:
            nursery.start_soon(hub.run)
            nursery.start_soon(timer.run)
            if committer is not None:
                nursery.start_soon(committer.run)
            if reader is not None:
                nursery.start_soon(reader.run)
            if verifier is not None:
                nursery.start_soon(verifier.run)
            if keeper is not None:
                nursery.start_soon(keeper.run)
            if loading is not None:
                nursery.start_soon(_load_the_rest, loading, hub, server)
            if tls:
                nursery.start_soon(mind_the_ends, tls)
            nursery.start_soon(drain)
            nursery.start_soon(_listen, acceptors, sockets, hub, listening)
            task_status.started(server)
            await server.stopped.wait()
            listening.cancel()
            # What has ended shall not run again because its end was not written.
            with trio.move_on_after(STALL_SECONDS):
                if keeper is not None:
                    await keeper.finish()
                if committer is not None and not engine.fenced:
                    await committer.finish()
            nursery.cancel_scope.cancel()
    finally:
        server.stopped.set()
        _close_listeners(sockets)
        hub.close_all(CloseReason.SHUTDOWN)
        engine.audit.flush(now())
        left = engine.statistics()
        if left.jobs and store is None:
            log.warning(
                "%s gone with this server",
                counted(left.jobs, "job in memory is", "jobs in memory are"),
            )
        if left.schedules and store is None:
            log.warning(
                "%s gone with this server",
                counted(left.schedules, "schedule in memory is", "schedules in memory are"),
            )
    if isinstance(server.failure, StoreUnusable):
        # As if it had come out at the start: starting again would not help.
        raise server.failure
    if server.failure is not None:
        raise TrigearInternalError(f"the server had to stop: {server.failure}") from server.failure


async def _load_the_rest(loading: Loading, hub: Hub, server: Server) -> None:
    try:
        await loading.finish(hub.flush)
    except StoreUnusable as error:
        server.failure = error
        server.stop()


@asynccontextmanager
async def open_server(
    config: ServerConfig | None = None,
    *,
    store: Store | None = None,
    logins: Logins | None = None,
    results: ResultStore | None = None,
) -> AsyncIterator[Server]:
    """Run a server beside the block; the block's end stops it.

    Raises:
        ConfigError, OSError: an address cannot be used.
    """
    config = config or ServerConfig()
    sockets = bind(config)
    async with hidden_nursery() as nursery:
        server = await nursery.start(
            partial(serve, config, sockets, store=store, results=results, logins=logins)
        )
        yield server
        server.stop()


def _nothing() -> None:
    pass


class _Timer:
    """Calls the engine at its deadlines."""

    def __init__(self, engine: Engine, hub: Hub) -> None:
        self._engine = engine
        self._hub = hub
        self._scope = trio.CancelScope()
        self._at = 0.0

    def look(self) -> None:
        """The engine's deadline may be earlier than before."""
        deadline = self._next()
        if deadline < self._at:
            self._at = self._scope.deadline = deadline

    def _next(self) -> float:
        return min(self._engine.next_deadline(), self._hub.next_deadline())

    async def run(self) -> None:
        while True:
            self._at = self._next()
            with trio.CancelScope(deadline=self._at) as self._scope:
                await trio.sleep_forever()
            self._engine.tick(now())
            self._hub.close_overdue()
            self._hub.flush()


async def _listen(
    acceptors: Sequence[Acceptor],
    sockets: Sequence[socket.socket],
    hub: Hub,
    scope: trio.CancelScope,
) -> None:
    """Accept connections until the scope is cancelled; then the sockets are closed."""
    for sock in sockets:
        hub.watch(sock)
    with scope:
        async with trio.open_nursery() as nursery:
            for acceptor in acceptors:
                nursery.start_soon(acceptor.run, nursery)
    for sock in sockets:
        hub.unwatch(sock)
    _close_listeners(sockets)


def _close_listeners(sockets: Sequence[socket.socket]) -> None:
    unlink_unix(sockets)
    for sock in sockets:
        sock.close()


async def _wait_drained(engine: Engine, hub: Hub, config: ServerConfig) -> None:
    """Wait until nothing runs any more and the peers have what is theirs, or the grace is over.

    Peers that take nothing of it for ``LINGER`` seconds are not waited for.
    """
    grace = float("inf") if config.grace is None else config.grace
    before, since = 0, trio.current_time()
    with trio.move_on_after(grace) as scope:
        while not (engine.drained and hub.quiet):
            await trio.sleep(DRAIN_LOOK)
            if engine.hands_out_nothing:
                engine.dismiss_idle()
                hub.flush()
            if not engine.drained or hub.unsent < before:
                since = trio.current_time()
            elif trio.current_time() - since > LINGER:
                log.warning(
                    "%s left that no peer takes", counted(hub.unsent, "byte is", "bytes are")
                )
                return
            before = hub.unsent
    if scope.cancelled_caught:
        log.warning(
            "the grace of %s s is over with %s running",
            grace,
            counted(engine.statistics().running, "job"),
        )
