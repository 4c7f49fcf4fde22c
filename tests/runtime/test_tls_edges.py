"""Certificates that are no good, at a server that runs: who shows one is told so by an alert and
nothing else, and the server goes on. What is at the other end is OpenSSL, and nothing of ours."""

from __future__ import annotations

import itertools
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography import x509

from tests.security.certificates import CLIENT, DAY, SERVER, Authority, Issued
from tests.security.chance import dice
from trigear.engine.config import ServerConfig
from trigear.engine.doors import Way
from trigear.engine.logins import Logins
from trigear.runtime.address import parse_address
from trigear.runtime.server import open_server
from trigear.security.mechs import Authenticator, LoginSettings
from trigear.security.throttle import Throttle
from trigear.security.tls import ClientCertificates, ServerTLS
from trigear.security.users import Users

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trigear.runtime.server import Server

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
ASKING = [ClientCertificates.OPTIONAL, ClientCertificates.REQUIRED]

USERS = """
version = 1
[users.alice]
tenant = "acme"
roles = ["submit"]
certs = ["cn:alice"]
[users.bob]
tenant = "labs"
roles = ["submit"]
certs = ["dns:bob.example"]
"""

ALICE = "OK acme/alice acme submit mtls\r\n"
NOBODY = "OK - - - -\r\n"

_addresses = itertools.count(2)


@dataclass
class Place:
    """A folder with an authority, its revocation list, and what a server needs."""

    folder: Path
    authority: Authority

    @classmethod
    def made(cls, folder: Path) -> Place:
        place = cls(folder, Authority())
        place.revoke()
        (folder / "ca.pem").write_bytes(place.authority.pem)
        here = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        place.authority.issue("localhost", names=here, usage=[SERVER]).write(folder, "server")
        return place

    def revoke(self, *issued: Issued) -> None:
        (self.folder / "crl.pem").write_bytes(self.authority.crl(*issued))

    def config(self, clients: ClientCertificates) -> ServerConfig:
        files = [str(self.folder / name) for name in ("server.pem", "server-key.pem")]
        more = [str(self.folder / name) for name in ("ca.pem", "crl.pem")]
        tls = ServerTLS(*files, clients, *more)
        return ServerConfig(listen=("gearmans://127.0.0.1:0",), tls=tls)

    def context(self, issued: Issued | None, version: ssl.TLSVersion) -> ssl.SSLContext:
        """That of a client with a certificate."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.maximum_version = version
        if issued is not None:
            context.load_cert_chain(*issued.write(self.folder, f"client-{next(_addresses)}"))
        return context


def logins() -> Logins:
    authenticator = Authenticator(
        Users.parse(USERS), LoginSettings(), Throttle(()), bytes(32), dice()
    )
    return Logins(authenticator, [Way.SASL, Way.MTLS])


def whoami(
    server: Server, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[str, ssl.SSLSession | None, bool]:
    """Who one is there; the session, and whether it is one of before.

    Every connection comes from an address of its own, so that none is one that comes back.
    """
    where = parse_address(server.addresses[0])
    number = next(_addresses)
    source = f"127.1.{number // 200}.{number % 200 + 1}"
    with (
        socket.create_connection((where.host, where.port), 20, (source, 0)) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as link,
    ):
        link.sendall(b"whoami\n")
        said = b""
        while not said.endswith(b"\n") and (piece := link.recv(1000)):
            said += piece
        return said.decode(), link.session, bool(link.session_reused)


async def told(server: Server, context: ssl.SSLContext) -> str:
    return (await trio.to_thread.run_sync(whoami, server, context))[0]


def uri(principal: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"trigear://{principal}")


BAD: dict[str, Callable[[Place], Issued]] = {
    "expired": lambda place: place.authority.client(begins=-2 * DAY, expires=-DAY),
    "not yet valid": lambda place: place.authority.client(begins=DAY),
    "for servers": lambda place: place.authority.issue("alice", usage=[SERVER]),
    "of another authority": lambda place: Authority().client(),
    "of one of the same name": lambda place: Authority("tests").client(),
    "of itself": lambda place: Authority("alice"),
}


@pytest.mark.parametrize("clients", ASKING)
async def test_t23_who_shows_a_bad_certificate_is_not_served_and_others_are(
    tmp_path: Path, clients: ClientCertificates
) -> None:
    place = Place.made(tmp_path)
    good, revoked = place.authority.client(), place.authority.client()
    place.revoke(revoked)
    bad = {name: make(place) for name, make in BAD.items()} | {"revoked": revoked}
    async with open_server(place.config(clients), logins=logins()) as server:
        for version in VERSIONS:
            for name, issued in bad.items():
                # The alert, or the reset behind it.
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    pytest.fail(f"{name}: {await told(server, place.context(issued, version))}")
            assert await told(server, place.context(good, version)) == ALICE
            nobody = place.context(None, version)
            if clients is ClientCertificates.OPTIONAL:
                assert await told(server, nobody) == NOBODY
            else:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await told(server, nobody)
        assert server.statistics().connections == 0


@pytest.mark.parametrize("version", VERSIONS)
async def test_t24_no_session_goes_on_once_its_certificate_is_revoked(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    place = Place.made(tmp_path)
    alice = place.authority.client()
    config = place.config(ClientCertificates.REQUIRED)
    context = place.context(alice, version)
    async with open_server(config, logins=logins()) as server:
        said, session, _ = await trio.to_thread.run_sync(whoami, server, context)
        assert said == ALICE
        place.revoke(alice)
        server.reload(config)
        for one in (session, None):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await trio.to_thread.run_sync(whoami, server, context, one)


@pytest.mark.parametrize(
    ("common_name", "names"),
    [
        ("ALICE", []),
        ("alice ", []),
        ("*", []),
        ("al*ce", []),
        ("alice,CN=x", []),
        ("x", [x509.DNSName("*.example")]),
        ("x", [x509.DNSName("BOB.example")]),
        ("x", [x509.DNSName("bob.example.org")]),
        ("alice", [x509.DNSName("bob.example")]),
        ("x", [uri("labs/alice")]),
        ("x", [uri("acme/carol")]),
        ("x", [uri("acme/alice"), uri("labs/bob")]),
    ],
)
async def test_t27_a_certificate_that_is_not_clearly_somebodys_is_nobodys(
    tmp_path: Path, common_name: str, names: list[x509.GeneralName]
) -> None:
    place = Place.made(tmp_path)
    odd = place.authority.issue(common_name, names=names, usage=[CLIENT])
    config = place.config(ClientCertificates.REQUIRED)
    async with open_server(config, logins=logins()) as server:
        assert await told(server, place.context(odd, ssl.TLSVersion.TLSv1_3)) == NOBODY


async def test_t27_a_certificate_is_its_users_by_a_uri_before_anything_else(tmp_path: Path) -> None:
    place = Place.made(tmp_path)
    clear = place.authority.issue("whoever", names=[uri("acme/alice")], usage=[CLIENT])
    config = place.config(ClientCertificates.REQUIRED)
    async with open_server(config, logins=logins()) as server:
        assert await told(server, place.context(clear, ssl.TLSVersion.TLSv1_3)) == ALICE


@pytest.mark.parametrize(
    "said", [b"status\r\n", b"\0REQ\0\0\0\x10\0\0\0\x01x", b"GET / HTTP/1.0\r\n"]
)
async def test_t12_nothing_that_is_said_before_tls_is_heard(tmp_path: Path, said: bytes) -> None:
    """Plain bytes in front of a good handshake: one answer, and no handshake."""
    place = Place.made(tmp_path)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    end = place.context(None, ssl.TLSVersion.TLSv1_3).wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with pytest.raises(ssl.SSLWantReadError):
        end.do_handshake()
    hello = outgoing.read()
    config = place.config(ClientCertificates.OPTIONAL)
    async with open_server(config, logins=logins()) as server:
        where = parse_address(server.addresses[0])
        async with await trio.open_tcp_stream(where.host, where.port) as stream:
            await stream.send_all(said + hello)
            heard = b"".join([piece async for piece in stream])
        assert server.statistics().connections == 0
    error = b"\0RES\0\0\0\x13\0\0\0\x19TLS_REQUIRED\0TLS required"
    assert heard == (b"ERR TLS_REQUIRED TLS+required\r\n" if said[0] else error)
