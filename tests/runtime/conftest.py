from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.runtime import wired

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def closed_wires() -> Iterator[None]:
    """No test needs to close the connections it opened."""
    yield
    while wired.WIRES:
        wired.WIRES.pop().sock.close()
