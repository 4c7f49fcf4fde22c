"""Started in gearmand's place, with its options, trigear serves programs that notice nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.interop import namespace

if TYPE_CHECKING:
    from tests.conftest import PeerTools

pytestmark = [pytest.mark.peers, pytest.mark.slow]


def test_workers_and_clients_go_on_when_trigear_takes_the_place_of_gearmand(
    peer_tools: PeerTools,
) -> None:
    done = namespace.run_module("tests.interop.place_taken", seconds=110)
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)
    assert notes["gearmand"]["workers alive"] == [True, True]
    assert "php_reverse: cba" in notes["gearmand"]["printed"]
    assert notes["gearmand"]["printed"].count("exit status 0") == 2
    assert notes["trigear"] == notes["gearmand"]
