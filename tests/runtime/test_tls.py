"""TLS between trigear and others: our server with OpenSSL's own clients, our clients with our
server, and what is said when it does not work."""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509

import trigear
from tests.engine.world import packet
from tests.runtime.calling import Caller
from tests.security.certificates import CLIENT, SERVER, Authority
from trigear.engine.config import EngineConfig, ServerConfig
from trigear.errors import ConfigError, ConnectionLost
from trigear.runtime import handshakes, hub
from trigear.runtime.address import parse_address
from trigear.runtime.link import open_stream
from trigear.runtime.listeners import bind
from trigear.runtime.secure import TlsStream
from trigear.runtime.server import open_server
from trigear.security.tls import ClientCertificates, ClientTLS, ServerTLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trigear.runtime.server import Server


class Files:
    """An authority, and a server's certificate for this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        (folder / "ca.pem").write_bytes(self.authority.pem)
        self.ca = str(folder / "ca.pem")
        here = [
            x509.DNSName("localhost"),
            x509.IPAddress(ip_address("127.0.0.1")),
        ]
        self.certificate, self.key = self.authority.issue(
            "localhost", names=here, usage=[SERVER]
        ).write(folder, "server")

    def server(self, clients: ClientCertificates = ClientCertificates.NONE) -> ServerTLS:
        ca = "" if clients is ClientCertificates.NONE else self.ca
        return ServerTLS(self.certificate, self.key, clients, ca)

    def client(self, name: str = "") -> ClientTLS:
        if not name:
            return ClientTLS(ca=self.ca)
        certificate, key = self.authority.issue(name, usage=[CLIENT]).write(self.folder, name)
        return ClientTLS(ca=self.ca, certificate=certificate, key=key)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


def secure(tls: ServerTLS, engine: EngineConfig | None = None, **more: object) -> ServerConfig:
    return ServerConfig(
        engine or EngineConfig(), listen=("gearmans://127.0.0.1",), port=0, tls=tls, **more
    )


@asynccontextmanager
async def calling(server: Server, tls: ClientTLS | None) -> AsyncIterator[Caller]:
    stream = await open_stream(parse_address(server.addresses[0]), tls)
    async with stream:
        yield Caller(stream)


def openssl(files: Files, server: Server) -> ssl.SSLSocket:
    """A connection made by nothing of ours."""
    context = ssl.create_default_context(cafile=files.ca)
    where = parse_address(server.addresses[0])
    return context.wrap_socket(
        socket.create_connection((where.host, where.port)), server_hostname="localhost"
    )


# It works


async def test_a_client_and_a_worker_do_jobs_over_tls(files: Files) -> None:
    worker = trigear.Worker()

    @worker.function("reverse")
    async def reverse(job: trigear.WorkerJob) -> bytes:
        return job.workload[::-1]

    async with open_server(secure(files.server())) as server, trio.open_nursery() as nursery:
        (address,) = server.addresses
        assert address.startswith("gearmans://127.0.0.1:")
        tls = files.client()
        await nursery.start(partial(worker.run, address, tls=tls))
        async with trigear.connect(address, tls=tls) as client:
            assert await client.submit("reverse", b"hello") == b"olleh"
            large = bytes(range(256)) * 20_000
            assert await client.submit("reverse", large) == large[::-1]
        nursery.cancel_scope.cancel()


async def test_a_client_of_openssl_is_served_and_told_when_it_is_over(files: Files) -> None:
    async with open_server(secure(files.server())) as server:

        def talk() -> tuple[bytes, bytes, str | None]:
            with openssl(files, server) as link:
                # In one write with what comes behind the handshake, or nearly.
                link.sendall(b"version\n")
                version = link.recv(100)
                link.sendall(b"\0REQ\0\0\0\x10\0\0\0\x03abc" + b"\0XYZ")
                answer = b""
                while piece := link.recv(1000):
                    answer += piece
                return version, answer, link.version()

        version, answer, tls = await trio.to_thread.run_sync(talk)
    assert version.startswith(b"OK ")
    assert answer.startswith(b"\0RES\0\0\0\x11\0\0\0\x03abc")
    assert b"INVALID_MAGIC" in answer
    assert tls == "TLSv1.3"


async def test_what_arrives_with_the_end_of_the_handshake_is_not_forgotten(files: Files) -> None:
    """Bytes in the layer raise no event."""
    async with open_server(secure(files.server())) as server:
        context = ssl.create_default_context(cafile=files.ca)
        where = parse_address(server.addresses[0])
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        end = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        stream = await trio.open_tcp_stream(where.host, where.port)
        async with stream:
            while True:
                try:
                    end.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await stream.send_all(outgoing.read())
                    incoming.write(await stream.receive_some())
            end.write(b"version\n")
            await stream.send_all(outgoing.read())
            incoming.write(await stream.receive_some())
            assert end.read().startswith(b"OK ")


async def test_packets_cut_anywhere_arrive_whole(files: Files) -> None:
    async with (
        open_server(secure(files.server())) as server,
        calling(server, files.client()) as caller,
    ):
        packet = b"\0REQ\0\0\0\x10\0\0\0\x05hello"
        for number in range(len(packet)):
            await caller.say(packet[number : number + 1])
        assert await caller.hears() == ("ECHO_RES", b"hello")


async def test_a_flood_over_tls_is_answered_in_full(files: Files) -> None:
    async with (
        open_server(secure(files.server())) as server,
        calling(server, files.client()) as caller,
        trio.open_nursery() as nursery,
    ):
        echo = b"\0REQ\0\0\0\x10\0\0\x10\0" + b"x" * 4096
        nursery.start_soon(caller.say, echo * 500)
        for _ in range(500):
            assert await caller.hears() == ("ECHO_RES", b"x" * 4096)


async def test_the_end_of_a_tls_conversation_ends_the_connection(files: Files) -> None:
    async with open_server(secure(files.server())) as server:
        async with calling(server, files.client()) as caller:
            await caller.settled()
            stream = caller.stream
            assert isinstance(stream, TlsStream)
            # Says that nothing more comes, and leaves the socket open.
            await stream._stream.send_all(stream.layer.farewell())
            assert await caller.to_the_end() == b""
        assert server.statistics().connections == 0


async def test_a_broken_record_ends_its_connection_with_an_alert(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        open_server(secure(files.server())) as server,
        calling(server, files.client()) as caller,
        calling(server, files.client()) as other,
    ):
        await caller.settled()
        stream = caller.stream
        assert isinstance(stream, TlsStream)
        await stream._stream.send_all(b"\x17\x03\x03\0\x20" + b"moths" * 10)
        with pytest.raises(trio.BrokenResourceError, match="bad record mac"):
            await caller.to_the_end()
        await other.settled()
    assert "closed: peer broke the TLS protocol" in caplog.text


async def test_a_server_that_is_stopped_says_farewell(files: Files) -> None:
    async with (
        open_server(secure(files.server())) as server,
        calling(server, files.client()) as caller,
    ):
        await caller.settled()
        server.stop()
        assert await caller.to_the_end() == b""
        stream = caller.stream
        assert isinstance(stream, TlsStream)
        assert stream.layer.over


# Who gets in


async def test_a_certificate_that_is_not_trusted_is_refused_by_the_client(files: Files) -> None:
    async with open_server(secure(files.server())) as server:
        with pytest.raises(ConnectionLost, match=r"its certificate is not trusted: .*; name the"):
            async with calling(server, None):
                pytest.fail("connected")
        other = ClientTLS(verify=False)
        async with calling(server, other) as caller:
            await caller.settled()


async def test_a_server_of_another_name_is_refused_by_the_client(files: Files, tmp_path) -> None:
    certificate, key = files.authority.server("elsewhere.example").write(tmp_path, "x")
    async with open_server(secure(ServerTLS(certificate, key))) as server:
        with pytest.raises(ConnectionLost, match=r"not trusted: .*mismatch"):
            async with calling(server, files.client()):
                pytest.fail("connected")


async def test_a_client_without_the_certificate_that_is_wanted_is_told_so(files: Files) -> None:
    config = secure(files.server(ClientCertificates.REQUIRED))
    async with open_server(config) as server:
        async with calling(server, files.client("alice")) as caller:
            await caller.settled()
        # With TLS 1.3 a client hears of it only when it reads.
        async with calling(server, files.client()) as caller:
            with pytest.raises(
                trio.BrokenResourceError, match=r"refuses us: .*certificate required; does it want"
            ):
                await caller.settled()


async def test_t12_plain_speech_on_a_tls_port_is_answered_plainly(files: Files) -> None:
    async with open_server(secure(files.server())) as server:
        where = parse_address(server.addresses[0])
        for said, answer in (
            (b"\0REQ\0\0\0\x10\0\0\0\0", b"TLS_REQUIRED\0TLS required"),
            (b"status\n", b"ERR TLS_REQUIRED TLS+required\r\n"),
        ):
            async with await trio.open_tcp_stream(where.host, where.port) as stream:
                await stream.send_all(said)
                heard = b"".join([piece async for piece in stream])
            assert answer in heard
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            await stream.send_eof()
            assert [piece async for piece in stream] == []


async def test_a_server_that_speaks_plainly_is_named_to_the_client(files: Files) -> None:
    config = ServerConfig(EngineConfig(), listen=("127.0.0.1",), port=0)
    async with open_server(config) as server:
        with pytest.raises(ConnectionLost, match=r"TLS|hung up"):
            async with calling(server, files.client()):
                pytest.fail("connected")


async def test_a_peer_that_says_nothing_is_let_go_in_time(
    files: Files, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with open_server(secure(files.server())) as server:
        where = parse_address(server.addresses[0])
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            assert [piece async for piece in stream] == []
    assert "no TLS handshake within 10 s" in caplog.text


async def test_a_client_does_not_wait_for_ever_for_a_handshake(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def listen_in_silence(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, listen_in_silence, 0, host="127.0.0.1")
        )
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectionLost, match="no TLS handshake within 20 s"):
            await open_stream(parse_address(f"gearmans://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()


async def test_one_address_cannot_keep_others_from_their_handshakes(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "OPEN_PER_ADDRESS", 1)
    async with open_server(secure(files.server(), limit_exempt=())) as server:
        where = parse_address(server.addresses[0])

        async def connected(source: str) -> trio.SocketStream:
            sock = trio.socket.socket()
            await sock.bind((source, 0))
            await sock.connect((where.host, where.port))
            return trio.SocketStream(sock)

        # Says nothing and so holds the one place of its address.
        async with await connected("127.0.0.2"):
            waiting = await connected("127.0.0.2")
            async with calling(server, files.client()) as caller:
                await caller.settled()
            await waiting.send_all(b"status\n")
            with trio.move_on_after(0.05) as scope:
                await waiting.receive_some()
            assert scope.cancelled_caught
        assert await waiting.receive_some() == b"ERR TLS_REQUIRED TLS+required\r\n"
        await waiting.aclose()


# Settings


def test_a_listener_for_tls_needs_a_certificate() -> None:
    with pytest.raises(ConfigError, match=r"asks for TLS, and there is no certificate; .*--cert"):
        bind(ServerConfig(listen=("gearmans://127.0.0.1",), port=0))


async def test_files_that_cannot_be_used_stop_the_start(files: Files) -> None:
    tls = ServerTLS(files.certificate, "/nowhere/key.pem")
    with pytest.raises(ConfigError, match=r"/nowhere/key\.pem"):
        async with open_server(secure(tls)):
            pytest.fail("serves")


async def test_a_reload_serves_a_new_certificate_and_a_bad_one_leaves_the_old(
    files: Files, tmp_path: Path
) -> None:
    certificate, key = files.authority.server().write(tmp_path, "server")
    config = secure(ServerTLS(certificate, key))

    def served(server: Server) -> bytes:
        context = ssl.create_default_context(cafile=files.ca)
        where = parse_address(server.addresses[0])
        with (
            socket.create_connection((where.host, where.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as link,
        ):
            return link.getpeercert(binary_form=True) or b""

    async with open_server(config) as server:
        first = await trio.to_thread.run_sync(served, server)
        files.authority.server().write(tmp_path, "server")
        server.reload(config)
        second = await trio.to_thread.run_sync(served, server)
        (tmp_path / "server.pem").write_text("moths")
        with pytest.raises(ConfigError, match="no certificate in it"):
            server.reload(config)
        assert await trio.to_thread.run_sync(served, server) == second != first


def test_files_of_a_client_are_looked_at_before_it_connects() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/ca.pem: it cannot be read"):
        trigear.connect("localhost", tls=ClientTLS(ca="/nowhere/ca.pem"))


async def test_files_of_a_client_that_go_away_are_an_error_of_the_connection(
    files: Files, tmp_path: Path
) -> None:
    async with open_server(secure(files.server())) as server:
        with pytest.raises(
            ConnectionLost, match=r"no connection to .*gone\.pem: it cannot be read"
        ):
            async with calling(server, ClientTLS(ca=str(tmp_path / "gone.pem"))):
                pytest.fail("connected")


def test_what_the_hub_reads_at_once_is_more_than_a_record() -> None:
    """A record that is larger than a read would never be opened whole in one go."""
    assert hub.READ_SIZE >= 1 << 14


@pytest.mark.parametrize("over", ["with a word", "without one"])
async def test_t43_a_packet_that_is_cut_off_is_none(over: str, files: Files) -> None:
    submission = packet("SUBMIT_JOB_BG", b"f", b"", b"all of it")
    async with open_server(secure(files.server())) as server:
        async with calling(server, files.client()) as caller:
            await caller.say(packet("ECHO_REQ", b"?") + submission[:-1])
            assert await caller.hears() == ("ECHO_RES", b"?")
            if over == "without one":
                # As somebody does who cuts the connection under TLS.
                await trio.aclose_forcefully(caller.stream)
        async with calling(server, files.client()) as caller:
            assert await caller.command(b"status") == b"."
