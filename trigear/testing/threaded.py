"""A server in a thread, on a port of its own: for code that knows no Trio, or takes an address."""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from trigear.engine.config import ServerConfig
from trigear.runtime.blocking import connect_blocking
from trigear.runtime.link import hidden_nursery
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.runtime.blocking import BlockingClient
    from trigear.runtime.server import Server
    from trigear.runtime.worker import Worker

ANSWER_SECONDS: Final = 30.0
"""How long a client waits by default: a test that fails shall not hang."""

HERE: Final = ServerConfig(listen=("127.0.0.1",), port=0)
"""Any free port of the loopback."""


class ThreadServer:
    """A server that runs in a thread. Made by :func:`open_server_in_thread`.

    ``addresses`` is where it listens; each can be given to whatever connects.
    """

    def __init__(self, server: Server, nursery: trio.Nursery) -> None:
        self.addresses = server.addresses
        self._server = server
        self._nursery = nursery
        self._token = trio.lowlevel.current_trio_token()

    @property
    def address(self) -> str:
        """The first of its addresses."""
        return self.addresses[0]

    def connect(self, *, timeout: float | None = ANSWER_SECONDS) -> BlockingClient:
        """A client, as :func:`trigear.connect_blocking` makes it; ``with`` closes it.

        Args:
            timeout: seconds that connecting and each call may take; None for any time.

        Raises:
            ConnectionLost: the server is not there any more.
        """
        return connect_blocking(self.address, timeout=timeout)

    @contextmanager
    def work(self, *workers: Worker) -> Iterator[None]:
        """Let workers work here while the block runs, in the server's thread. The block begins when
        they can be given jobs.

        Raises:
            ValueError: a worker has no functions.
            RuntimeError: a worker runs already; or this is a Trio task, which must not be blocked:
                there, run the worker in a nursery.

        At the end of the block the workers are cancelled as ``Worker.run`` describes it.
        """
        with ExitStack() as stack:
            for worker in workers:
                leave = trio.from_thread.run(self._enter, worker, trio_token=self._token)
                stack.callback(leave)
            yield

    async def _enter(self, worker: Worker) -> Callable[[], None]:
        """Run a worker; what ends it, to be called from outside."""
        scope, over = trio.CancelScope(), trio.Event()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            try:
                with scope:
                    await worker.run(self.address, task_status=task_status)
            finally:
                over.set()

        async def end() -> None:
            scope.cancel()
            await over.wait()

        def leave() -> None:
            # What ended the server meanwhile is raised where the server's block ends.
            with suppress(trio.RunFinishedError, trio.Cancelled):
                trio.from_thread.run(end, trio_token=self._token)

        await self._nursery.start(run)
        return leave

    def stop(self) -> None:
        """End it. Returns at once."""
        with suppress(trio.RunFinishedError):
            trio.from_thread.run_sync(self._server.stop, trio_token=self._token)


@contextmanager
def open_server_in_thread(config: ServerConfig = HERE) -> Iterator[ThreadServer]:
    """Run a server in a thread while the block runs. Its jobs are kept in memory.

    Args:
        config: where it listens and how it behaves; by default a free port of 127.0.0.1, and as
            `trigear server` does.

    Raises:
        ConfigError, OSError: an address cannot be used.
        BaseException: what a handler raised that is no ``Exception``, at the end of the block.
    """
    servers: list[ThreadServer] = []
    failures: list[BaseException] = []
    settled = threading.Event()

    async def serve() -> None:
        async with open_server(config) as server, hidden_nursery() as nursery:
            servers.append(ThreadServer(server, nursery))
            settled.set()
            await server.stopped.wait()
            nursery.cancel_scope.cancel()

    def run() -> None:
        try:
            trio.run(serve)
        except BaseException as error:
            failures.append(error)
        finally:
            settled.set()

    thread = threading.Thread(target=run, name="trigear server", daemon=True)
    thread.start()
    settled.wait()
    try:
        if servers:
            yield servers[0]
    finally:
        if servers:
            servers[0].stop()
        thread.join()
        if failures:
            raise failures[0]
