"""The benchmark of workers after a restart, with a handful of them."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from benchmarks.reconnect import main

if TYPE_CHECKING:
    import pytest


def test_all_workers_are_there_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger("trigear").level
    assert main(["--workers", "3", "--rounds", "1", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)
    assert found["seconds"] > 0
    assert logging.getLogger("trigear").level == before, "others have a log as well"
