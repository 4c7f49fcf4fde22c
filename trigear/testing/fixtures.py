"""Fixtures for pytest. A `conftest.py` asks for them::

    pytest_plugins = ["trigear.testing.fixtures"]

Nothing else imports this module, because nothing else needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from trigear.testing.memory import MemoryServer, open_memory_server
from trigear.testing.threaded import ThreadServer, open_server_in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def trigear_server() -> Iterator[ThreadServer]:
    """A server of its own for this test, in a thread; see ``open_server_in_thread``."""
    with open_server_in_thread() as server:
        yield server


@pytest.fixture
async def trigear_memory_server() -> AsyncIterator[MemoryServer]:
    """A server in memory for this test, which pytest-trio runs; see ``open_memory_server``."""
    async with open_memory_server() as server:
        yield server
