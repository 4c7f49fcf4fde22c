"""Workers that know nothing of being refused, and are: they do not go on as fast as they can.

Left to themselves most connect again at once when they are turned away, or ask again at once when
they are told no; without care that was 80 to 1200 requests a second of each of them.
"""

from __future__ import annotations

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
    came: trio.Event = field(default_factory=trio.Event)

    async def meet(self, client: trio.SocketStream) -> None:
        self.connections += 1
        self.came.set()
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

TELLING = ("perl", "gear")
"""Workers that say what a server refuses them with."""


@dataclass
class Seen:
    """What came of all the tries: of workers how often they asked, by where they were refused and
    who they are, and what everybody said."""

    connections: dict[tuple[str, str], int] = field(default_factory=dict)
    requests: dict[tuple[str, str], int] = field(default_factory=dict)
    said: dict[tuple[str, str], str] = field(default_factory=dict)


async def watch(peer: Peer, port: int, said: pathlib.Path, code: str) -> Counter:
    """Have a worker try its luck for a while; and if it can say the code, until it has."""
    counter = Counter(port)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, counter.meet, 0, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        address = servers.Address(listener.socket.getsockname()[1])
        (command,) = peer.worker_commands(address, {"f": "reverse"}, said.with_suffix(".record"))
        with said.open("wb") as sink:
            process = await trio.lowlevel.open_process(
                command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink
            )
        try:
            with trio.move_on_after(servers.START_SECONDS):
                await counter.came.wait()
            with trio.move_on_after(SECONDS):
                await process.wait()
            asked = Counter(port, list(counter.requests), counter.connections)
            with trio.move_on_after(servers.WAIT_SECONDS):
                while code not in await trio.Path(said).read_text():
                    await trio.sleep(0.05)  # what it writes raises no event
        finally:
            with trio.CancelScope(shield=True):
                if process.poll() is None:
                    process.kill()
                await process.wait()
        nursery.cancel_scope.cancel()
    return asked


async def try_all(refusing: Refusing, tools: PeerTools, directory: pathlib.Path) -> Seen:
    """Everybody at once: what takes its time is the server, on purpose."""
    seen = Seen()

    async def work(mode: str, peer: Peer) -> None:
        said = directory / f"{peer.name} {mode}"
        code = CODES["no login"] if mode == "no login" and peer.name in TELLING else ""
        counter = await watch(peer, refusing.ports[mode], said, code)
        seen.connections[mode, peer.name] = counter.connections
        seen.requests[mode, peer.name] = len(counter.requests)
        seen.said[mode, f"{peer.name} worker"] = said.read_text(errors="replace")

    async def ask(mode: str, asker: Asker) -> None:
        with trio.fail_after(servers.WAIT_SECONDS):
            done = await trio.run_process(
                asker.command(tools, refusing.ports[mode]),
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
            )
        seen.said[mode, asker.name] = done.stdout.decode()

    async with trio.open_nursery() as nursery:
        for mode in refusing.ports.keys() - {"only work"}:
            for peer in LEGACY:
                nursery.start_soon(work, mode, peer)
        for mode in CODES:
            for asker in ASKERS:
                nursery.start_soon(ask, mode, asker)
    return seen


@pytest.fixture(scope="module")
def seen(refusing: Refusing, peer_tools: PeerTools, directory: pathlib.Path) -> Seen:
    return trio.run(try_all, refusing, peer_tools, directory)


def test_t36_a_worker_that_is_refused_asks_no_more_than_now_and_then(seen: Seen) -> None:
    most = FIRST + MOST * SECONDS
    assert {key: count for key, count in seen.requests.items() if count >= most} == {}
    # They did try.
    assert {key for key, count in seen.connections.items() if not count} == set()


def test_who_is_refused_reads_why(seen: Seen) -> None:
    # The extension's own word for any ERROR when it connects.
    assert "Failed to set exception option" in seen.said["no TLS", "php"]
    for mode, code in CODES.items():
        for asker in ASKERS:
            if (mode, asker.name) != ("no TLS", "php"):
                assert code in seen.said[mode, asker.name]


def test_workers_that_can_say_why_they_are_refused_say_it(seen: Seen) -> None:
    for name in TELLING:
        assert CODES["no login"] in seen.said["no login", f"{name} worker"]
