"""The benchmark of workers after a restart, with a handful of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from benchmarks.reconnect import main

if TYPE_CHECKING:
    import pytest


def test_all_workers_are_there_again(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--workers", "3", "--rounds", "1", "--json"]) == 0
    (found,) = json.loads(capfd.readouterr().out)
    assert found["seconds"] > 0
