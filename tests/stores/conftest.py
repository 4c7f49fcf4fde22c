from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.places import PLACES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.stores.places import SqlitePlace


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlitePlace]:
    """A place for a store, of each kind in turn."""
    found = PLACES[request.param](tmp_path)
    yield found
    found.clear()
