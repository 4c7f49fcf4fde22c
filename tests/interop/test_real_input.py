"""Thousands of files hashed right although a worker is killed on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop import real_input, servers

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import PeerTools

pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.mark.parametrize("name", sorted(servers.COMMANDS))
def test_every_file_is_hashed_right_although_a_worker_dies_holding_a_job(
    name: str,
    peer_tools: PeerTools,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = real_input.documents()
    with servers.running(name, servers.COMMANDS[name], tmp_path) as server:
        outcome = real_input.hash_all(server, files, tmp_path, report=print)
    with capsys.disabled():
        print(f"\n{name}: {outcome}")
    assert outcome.files >= real_input.FILES or outcome.size >= real_input.BYTES
    assert outcome.wrong == []
    assert outcome.right == outcome.files
    assert outcome.killed_while_holding
    assert outcome.running_when_killed >= 1
    assert outcome.run_again > 0
