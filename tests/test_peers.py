"""The foreign programs that other tests lean on are the ones we think they are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PeerTools, missing_packages

if TYPE_CHECKING:
    from tests.conftest import ForeignServer


@pytest.mark.peers
def test_gearmand_of_debian_is_the_c_server_and_answers(gearmand_c: ForeignServer) -> None:
    assert gearmand_c.ask(b"version").startswith(b"OK 1.1.")
    assert gearmand_c.ask(b"status", end=b".\n") == b".\n"


@pytest.mark.peers
def test_gearman_tool_reaches_the_server(gearmand_c: ForeignServer, peer_tools: PeerTools) -> None:
    done = subprocess.run(
        [peer_tools.gearadmin, "-h", gearmand_c.host, "-p", str(gearmand_c.port), "--getpid"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(gearmand_c.process.pid) in done.stdout


@pytest.mark.peers
def test_perl_and_php_know_gearman(peer_tools: PeerTools) -> None:
    for command in (
        [peer_tools.perl, "-MGearman::Client", "-MGearman::Worker", "-e1"],
        [peer_tools.php, "-r", "exit(class_exists('GearmanClient') ? 0 : 1);"],
        ["/bin/sh", "-c", f"head -n 1 {peer_tools.perl_gearmand} | grep -q perl"],
    ):
        subprocess.run(command, check=True)


def test_what_is_missing_is_named_by_its_debian_package() -> None:
    nowhere = Path("/nonexistent")
    without_php_and_gearman = PeerTools(php=nowhere, gearman=nowhere)
    missing = missing_packages(without_php_and_gearman)
    assert {"gearman-tools", "php-cli", "php-gearman"} <= set(missing)
    assert "libgearman-client-perl" in missing_packages(PeerTools(perl=nowhere))
