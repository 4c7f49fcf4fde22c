"""Workers that know nothing of being refused, and are: they do not go on as fast as they can.

Left to themselves most connect again at once when they are turned away, or ask again at once when
they are told no; without care that was 80 to 1200 requests a second of each of them.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conftest import PeerTools, free_port
from tests.interop import servers
from tests.interop.peers import PEERS
from trigear.cli.root import run_trigear

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

    from tests.interop.peers import Peer

pytestmark = pytest.mark.peers

SECONDS = 4.0
MOST = 3  # requests a second, once it is known that it comes back
FIRST = 4  # requests before that

LEGACY = [peer for peer in PEERS if peer.name != "trigear"]

LISTENERS = {
    "no login": 'address = "127.0.0.1:{}"\nauth = ["sasl"]',
    "no role": 'address = "127.0.0.1:{}"\nauth = ["network"]\n[listener.networks]\n'
    '"127.0.0.0/8" = {{ tenant = "acme", roles = ["submit"] }}',
    "other function": 'address = "127.0.0.1:{}"\nauth = ["network"]\n[listener.networks]\n'
    '"127.0.0.0/8" = {{ tenant = "acme", roles = ["submit", "work"], work = ["x*"] }}',
    "no network": 'address = "127.0.0.1:{}"\nauth = ["network"]\n[listener.networks]\n'
    '"192.0.2.0/24" = {{ tenant = "acme", roles = ["submit", "work"] }}',
    "not allowed": 'address = "127.0.0.1:{}"\nauth = ["none"]\nallow = ["192.0.2.0/24"]',
    "only work": 'address = "127.0.0.1:{}"\nauth = ["network"]\n[listener.networks]\n'
    '"127.0.0.0/8" = {{ tenant = "acme", roles = ["work"] }}',
    "no TLS": 'address = "gearmans://127.0.0.1:{}"\nauth = ["mtls"]\nclient-certs = "required"\n'
    'client-ca = "certs/ca.pem"',
}
"""Where workers are refused, and how; but for one address, where clients are."""


@dataclass
class Refusing:
    """A server that refuses whoever comes, in another way at each address."""

    ports: dict[str, int]
    log: pathlib.Path


@pytest.fixture(scope="module")
def refusing(directory: pathlib.Path, stunnel: str) -> Iterator[Refusing]:
    assert run_trigear(["certs", "init", "--dir", str(directory / "certs"), "--quiet"]) == 0
    ports: dict[str, int] = {}

    def server(port: int) -> list[str]:
        ports.update({name: free_port() for name in LISTENERS}, **{"no login": port})
        (directory / "refusing.toml").write_text(
            '[server]\nstore = "memory"\nusers = "nobody.toml"\n'
            'cert = "certs/server.pem"\nkey = "certs/server-key.pem"\n'
            + "".join(
                f"[[listener]]\n{text.format(ports[name])}\n" for name, text in LISTENERS.items()
            )
        )
        return [sys.executable, "-m", "trigear", "server", "--config", "refusing.toml"]

    def without_certificate(port: int) -> list[str]:
        (directory / "stunnel.conf").write_text(
            f"foreground = yes\npid =\n[gearman]\nclient = yes\naccept = 127.0.0.1:{port}\n"
            f"connect = 127.0.0.1:{ports['no TLS']}\nCAfile = certs/ca.pem\nverifyChain = yes\n"
        )
        return [stunnel, "stunnel.conf"]

    with servers.running("refusing", server, directory) as running:
        ports["no certificate"] = free_port()
        process = subprocess.Popen(
            without_certificate(ports["no certificate"]),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield Refusing(ports, running.log)
        finally:
            servers.stop(process)


@dataclass
class Counter:
    """Stands before a server and counts what is asked of it."""

    port: int
    requests: list[int] = field(default_factory=list)
    connections: int = 0

    async def meet(self, client: trio.SocketStream) -> None:
        self.connections += 1
        try:
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", self.port) as server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._carry_requests, client, server)
                async for piece in server:
                    await client.send_all(piece)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the two hung up

    async def _carry_requests(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        unread = b""
        async for piece in client:
            unread += piece
            while len(unread) >= 12 and len(unread) >= (end := 12 + int.from_bytes(unread[8:12])):
                self.requests.append(int.from_bytes(unread[4:8]))
                unread = unread[end:]
            await server.send_all(piece)
        await server.send_eof()


async def watch(peer: Peer, port: int, directory: pathlib.Path, mode: str) -> Counter:
    """Have a worker try its luck for a while."""
    counter = Counter(port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, counter.meet, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        address = servers.Address(listener.socket.getsockname()[1])
        (command,) = peer.worker_commands(address, {"f": "reverse"}, directory / "record")
        with (directory / f"{peer.name} {mode}").open("wb") as said:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            with trio.move_on_after(SECONDS):
                await process.wait()
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.kill()
                await process.wait()
        nursery.cancel_scope.cancel()
    return counter


async def test_t36_a_worker_that_is_refused_asks_no_more_than_now_and_then(
    refusing: Refusing, directory: pathlib.Path
) -> None:
    seen: dict[tuple[str, str], Counter] = {}

    async def one(mode: str, peer: Peer) -> None:
        seen[mode, peer.name] = await watch(peer, refusing.ports[mode], directory, mode)

    async with trio.open_nursery() as nursery:
        for mode in refusing.ports.keys() - {"only work"}:
            for peer in LEGACY:
                nursery.start_soon(one, mode, peer)
    table = {key: (its.connections, len(its.requests)) for key, its in seen.items()}
    assert {key: found for key, found in table.items() if found[1] >= FIRST + MOST * SECONDS} == {}
    # They did try.
    assert {key for key, found in table.items() if not found[0]} == set()


@dataclass
class Asker:
    """A program that submits a background job or asks for something, and what it is."""

    name: str
    command: Callable[[PeerTools, int], list[str | pathlib.Path]]


ASKERS = (
    Asker("gearman", lambda tools, port: [tools.gearman, "-p", str(port), "-b", "-f", "f", "x"]),
    Asker("gearadmin", lambda tools, port: [tools.gearadmin, "-p", str(port), "--status"]),
    Asker(
        "php",
        lambda tools, port: [
            *(tools.php, "-r"),
            f"$client = new GearmanClient(); $client->addServer('localhost', {port});"
            "$client->doBackground('f', 'x'); echo $client->error();",
        ],
    ),
    Asker(
        "perl",
        lambda tools, port: [
            *(tools.perl, "-MGearman::Client", "-e"),
            f"Gearman::Client->new(job_servers => ['localhost:{port}'])"
            "->dispatch_background(f => 'x')",
        ],
    ),
)


CODES = {
    "no login": "AUTHENTICATION_REQUIRED",
    "no TLS": "TLS_REQUIRED",
    "only work": "PERMISSION_DENIED",
}


def test_who_is_refused_reads_why(refusing: Refusing, peer_tools: PeerTools) -> None:
    asking = {
        (asker.name, mode): subprocess.Popen(
            asker.command(peer_tools, refusing.ports[mode]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for asker in ASKERS
        for mode in CODES
    }
    said = {key: each.communicate(timeout=servers.WAIT_SECONDS)[0] for key, each in asking.items()}
    # The extension's own word for any ERROR when it connects.
    assert "Failed to set exception option" in said.pop(("php", "no TLS"))
    assert {key: text for key, text in said.items() if CODES[key[1]] not in text} == {}


def test_workers_that_can_say_why_they_are_refused_say_it(
    refusing: Refusing, directory: pathlib.Path
) -> None:
    address = servers.Address(refusing.ports["no login"])
    said = {name: directory / f"{name} says" for name in ("perl", "gear")}
    with contextlib.ExitStack() as stack:
        for peer in LEGACY:
            if peer.name in said:
                sink = stack.enter_context(said[peer.name].open("wb"))
                (command,) = peer.worker_commands(address, {"f": "reverse"}, directory / "record")
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
                )
                stack.callback(servers.stop, process)
        for file in said.values():
            servers.wait_until(
                f"why in {file}", lambda file=file: CODES["no login"] in file.read_text()
            )
