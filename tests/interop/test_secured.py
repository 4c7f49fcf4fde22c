"""Programs that know nothing of logins, at a server that wants a client certificate: each is what
its certificate says, through a stunnel of its own or by TLS of its own."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.interop import servers
from tests.interop.features import whole
from tests.interop.peers import PEERS, Peer, Request
from trigear.cli.root import run_trigear

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

    from tests.conftest import PeerTools

pytestmark = pytest.mark.peers

TENANTS = {"acme": "reverse", "labs": "record"}
"""Tenants, and what their workers do with jobs of a function that both have."""

LEGACY = [peer for peer in PEERS if peer.name != "trigear"]
WITH_TLS = [peer for peer in PEERS if peer.name in ("perl", "gear")]


@dataclass
class Direct(servers.Server):
    """The secure server itself, asked about its functions by way of somebody who can."""

    asked: servers.Server

    def functions(self) -> dict[str, tuple[int, int, int]]:
        return self.asked.functions()


@dataclass
class Secured:
    """A server, and for each tenant what its stunnel makes of it."""

    folder: pathlib.Path
    server: servers.Server
    of: dict[str, servers.Server]

    def direct(self, tenant: str) -> Direct:
        its = self.server
        return Direct(its.port, "direct", its.process, its.log, self.of[tenant])


@pytest.fixture(scope="module")
def secured(stunnel: str, directory: pathlib.Path) -> Iterator[Secured]:
    folder = directory / "secured"
    folder.mkdir()

    place, users = ("--dir", str(folder)), ("--users", str(folder / "users.toml"))
    assert run_trigear(["certs", "init", *place]) == 0
    for tenant in TENANTS:
        assert run_trigear(["certs", "client", f"{tenant}/of-{tenant}", *place]) == 0
        user = ["user", "add", f"of-{tenant}", "--tenant", tenant, "--no-password", *users]
        roles = ["--role", "submit", "--role", "work", "--role", "admin"]
        assert run_trigear([*user, *roles]) == 0

    def server(port: int) -> list[str]:
        return [
            *(sys.executable, "-m", "trigear", "server", "--store", "memory", "--auth", "mtls"),
            *("--users", "users.toml", "--client-certs", "required", "--client-ca", "ca.pem"),
            *("--cert", "server.pem", "--key", "server-key.pem"),
            *("--listen", f"gearmans://127.0.0.1:{port}"),
        ]

    def tunnel(tenant: str, port: int) -> list[str]:
        (folder / f"{tenant}.conf").write_text(
            "foreground = yes\npid =\n[gearman]\nclient = yes\n"
            f"accept = 127.0.0.1:{port}\nconnect = 127.0.0.1:{running.port}\n"
            "CAfile = ca.pem\nverifyChain = yes\ncheckHost = localhost\n"
            f"cert = of-{tenant}.pem\nkey = of-{tenant}-key.pem\n"
        )
        return [stunnel, f"{tenant}.conf"]

    with contextlib.ExitStack() as stack:
        running = stack.enter_context(servers.running("secured", server, folder))
        through = {
            tenant: stack.enter_context(
                servers.running(tenant, lambda port, tenant=tenant: tunnel(tenant, port), folder)
            )
            for tenant in TENANTS
        }
        yield Secured(folder, running, through)


def result(client: Peer, server: servers.Server, function: str) -> bytes | None:
    """What comes of a job."""
    with contextlib.closing(client.client(server)) as session:
        session.submit(Request(function, b"abc"))
        return whole(session.events())


@pytest.mark.parametrize("peer", LEGACY, ids=lambda peer: peer.name)
def test_through_stunnel_a_program_works_with_those_of_its_tenant(
    secured: Secured, peer_tools: PeerTools, peer: Peer, directory: pathlib.Path
) -> None:
    function = f"through-{peer.name}"
    with contextlib.ExitStack() as stack:
        for tenant, behaviour in TENANTS.items():
            worker = peer.start_worker(secured.of[tenant], {function: behaviour}, directory)
            stack.callback(worker.stop)
        found = {tenant: result(peer, secured.of[tenant], function) for tenant in TENANTS}
        assert found == {"acme": b"cba", "labs": b"abc"}
        for server in secured.of.values():
            status, workers = (
                subprocess.run(
                    [peer_tools.gearadmin, "-h", server.host, "-p", str(server.port), option],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout.splitlines()
                for option in ("--status", "--workers")
            )
            assert f"{function}\t0\t0\t1" in status
            assert sum(line.endswith(f" {function}") for line in workers) == 1


@pytest.mark.parametrize("peer", WITH_TLS, ids=lambda peer: peer.name)
def test_by_its_own_tls_a_program_is_who_its_certificate_says(
    secured: Secured, peer: Peer, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = f"by-{peer.name}"
    with contextlib.ExitStack() as stack:
        found = {}
        for tenant, behaviour in TENANTS.items():
            monkeypatch.setenv("TLS_CA", str(secured.folder / "ca.pem"))
            monkeypatch.setenv("TLS_CERT", str(secured.folder / f"of-{tenant}.pem"))
            monkeypatch.setenv("TLS_KEY", str(secured.folder / f"of-{tenant}-key.pem"))
            server = secured.direct(tenant)
            worker = peer.start_worker(server, {function: behaviour}, directory)
            stack.callback(worker.stop)
            found[tenant] = result(peer, server, function)
        assert found == {"acme": b"cba", "labs": b"abc"}
        # Both workers are there, and only one of them is of this tenant.
        assert result(LEGACY[0], secured.of["acme"], function) == b"cba"
