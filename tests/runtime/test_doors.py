"""Who is let in at which address, over real sockets."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from tests.runtime.calling import Caller
from tests.runtime.test_logins import logins
from tests.security.certificates import SERVER, Authority
from trigear.engine.config import ListenerConfig, ServerConfig
from trigear.engine.doors import Door, Networks, Way
from trigear.errors import ConfigError
from trigear.runtime.accepting import tls_of
from trigear.runtime.address import parse_address
from trigear.runtime.link import open_stream
from trigear.runtime.server import open_server
from trigear.security.policy import Role, network_identity
from trigear.security.tls import ClientTLS, ServerTLS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trigear.runtime.server import Server

HERE, THERE = "127.0.0.1:0", "127.0.0.2:0"
ASKING = Door(frozenset([Way.SASL]))
ACME = network_identity("127.0.0.2/32", "acme", [Role.SUBMIT, Role.WORK])
BELIEVING = Door(frozenset([Way.NETWORK]), Networks({"127.0.0.2/32": ACME}))


@asynccontextmanager
async def calling(
    server: Server, place: int = 0, source: str = "127.0.0.1"
) -> AsyncIterator[Caller]:
    """A connection from an address of this machine to one of the server's."""
    where = parse_address(server.addresses[place])
    sock = trio.socket.socket()
    await sock.bind((source, 0))
    await sock.connect((where.host, where.port))
    async with trio.SocketStream(sock) as stream:
        yield Caller(stream)


async def refused(server: Server, place: int = 0, source: str = "127.0.0.1") -> bool:
    """Whether a connection is closed that says nothing."""
    async with calling(server, place, source) as caller:
        try:
            return await caller.to_the_end() == b""
        except trio.BrokenResourceError:
            return True


async def test_t40_who_is_in_no_network_is_refused_before_a_byte_is_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = ServerConfig(listen=(HERE,), listeners={HERE: ListenerConfig(door=BELIEVING)})
    async with open_server(config, logins=logins()) as server:
        assert await refused(server)
        assert await refused(server)
        told = "refused 127.0.0.1: no network is listed that it is in"
        assert caplog.messages == [told], "once a minute at most"
        async with calling(server, source="127.0.0.2") as caller:
            said = await caller.command(b"whoami")
            assert said == b"OK net:127.0.0.2/32 acme submit,work network"
            statistics = server.statistics()
            assert (statistics.connections, statistics.closed.total()) == (1, 0)


async def test_each_address_has_its_own_doors_and_networks() -> None:
    own = ListenerConfig(allow=("127.0.0.3",), door=Door(open=True))
    config = ServerConfig(listen=(HERE, THERE), allow=("127.0.0.1",), listeners={THERE: own})
    async with open_server(config, logins=logins()) as server:
        async with calling(server) as caller:
            assert await caller.command(b"status") == (
                b"ERR AUTHENTICATION_REQUIRED Authentication+required"
            )
        assert await refused(server, 1)
        async with calling(server, 1, "127.0.0.3") as caller:
            assert await caller.command(b"status") == b"."


async def test_t21_who_says_nothing_keeps_others_waiting_only_until_it_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = ServerConfig(
        listen=(HERE, THERE), listeners={THERE: ListenerConfig()}, max_unauthenticated=2
    )
    async with (
        open_server(config, logins=logins()) as server,
        calling(server) as first,
        calling(server) as second,
        calling(server) as third,
        calling(server, 1) as other,
    ):
        for caller in (first, second, other):
            await caller.settled()
        await third.tell("ECHO_REQ", b"?")
        await other.settled()
        assert server.statistics().connections == 3
        await first.stream.aclose()
        assert await third.hears() == ("ECHO_RES", b"?")
    told = "2 connections have not logged in yet: no more are accepted until some have"
    assert caplog.messages.count(told) == 1


async def test_t22_one_address_has_a_bound_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    config = ServerConfig(
        listen=(HERE,), max_unauthenticated_per_address=1, limit_exempt=("127.0.0.3/32",)
    )
    async with open_server(config, logins=logins()) as server, calling(server) as first:
        await first.settled()
        assert await refused(server)
        assert (
            "refused 127.0.0.1: too many connections from there have not logged in yet"
            in caplog.messages
        )
        async with calling(server, source="127.0.0.2") as other:
            await other.settled()
        async with (
            calling(server, source="127.0.0.3") as one,
            calling(server, source="127.0.0.3") as more,
        ):
            await one.settled()
            await more.settled()


async def test_a_handshake_that_fails_makes_room_again(tmp_path: Path) -> None:
    certificate, key = Authority().issue("localhost", usage=[SERVER]).write(tmp_path, "server")
    where = "gearmans://127.0.0.1:0"
    config = ServerConfig(listen=(where,), tls=ServerTLS(certificate, key), max_unauthenticated=1)
    async with open_server(config, logins=logins()) as server:
        for _ in range(2):
            async with calling(server) as plain:
                await plain.say(b"status\n")
                assert b"TLS_REQUIRED" in await plain.to_the_end()
        verify = ClientTLS(verify=False)
        async with await open_stream(parse_address(server.addresses[0]), verify) as stream:
            await Caller(stream).settled()


async def test_each_address_has_its_own_tls(tmp_path: Path) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    first, second = (
        ServerTLS(*authority.issue(name, usage=[SERVER]).write(tmp_path, name))
        for name in ("localhost", "elsewhere")
    )
    here, there = "gearmans://127.0.0.1:0", "gearmans://127.0.0.2:0"
    config = ServerConfig(
        listen=(here, there), tls=first, listeners={there: ListenerConfig(tls=second)}
    )

    async def name_at(server: Server, place: int) -> str:
        from cryptography import x509

        verify = ClientTLS(verify=False)
        address = parse_address(server.addresses[place])
        async with await open_stream(address, verify) as stream:
            found = x509.load_der_x509_certificate(stream.layer.certificate)  # type: ignore[attr-defined]
            return found.subject.rfc4514_string()

    async with open_server(config, logins=logins()) as server:
        assert await name_at(server, 0) == "CN=localhost"
        assert await name_at(server, 1) == "CN=elsewhere"
        server.reload(config)
        authority.issue("other", usage=[SERVER]).write(tmp_path, "elsewhere")
        (tmp_path / "localhost.pem").write_text("moths")
        with pytest.raises(ConfigError, match=r"localhost\.pem"):
            server.reload(config)
        assert await name_at(server, 1) == "CN=elsewhere", "all or nothing"
    assert tls_of(ServerConfig(), 0.0) == {}
