"""For tests of programs that use trigear: servers in memory and in a thread, jobs without a server.

======================================  ===========================================================
:func:`open_memory_server`              a server for a test on Trio; its time is Trio's, be that a
                                        ``MockClock``
:func:`open_server_in_thread`           a server with an address, for everything else
:func:`call`, :func:`call_blocking`     have a worker's handler do one job, without a server
:class:`FakeJob`,                       jobs to call a handler with, that keep what it says: for
:class:`FakeThreadJob`,                 handlers on Trio, plain functions and handlers written for
:class:`FakeAsyncioJob`                 asyncio
`trigear.testing.fixtures`              the servers as fixtures for pytest; to be named in
                                        ``pytest_plugins``
======================================  ===========================================================

Importing this imports no pytest. The other modules in here are what trigear's own tests stand on:
they may change without notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.runtime.worker import import_aio
from trigear.testing.jobs import FakeJob, FakeThreadJob, call, call_blocking
from trigear.testing.memory import MemoryServer, open_memory_server
from trigear.testing.threaded import ThreadServer, open_server_in_thread

if TYPE_CHECKING:
    from trigear.testing.aio_jobs import FakeAsyncioJob

__all__ = [
    "FakeAsyncioJob",
    "FakeJob",
    "FakeThreadJob",
    "MemoryServer",
    "ThreadServer",
    "call",
    "call_blocking",
    "open_memory_server",
    "open_server_in_thread",
]

for _thing in (
    *(FakeJob, FakeThreadJob, call, call_blocking),
    *(MemoryServer, ThreadServer, open_memory_server, open_server_in_thread),
):
    _thing.__module__ = __name__  # the name by which programs import it


def __getattr__(name: str) -> object:
    if name != "FakeAsyncioJob":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_aio()  # whose error says what to install
    from trigear.testing.aio_jobs import FakeAsyncioJob

    FakeAsyncioJob.__module__ = __name__
    return FakeAsyncioJob
