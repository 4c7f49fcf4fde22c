"""Logins over real sockets: what a connection says of itself, and passwords checked in a thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trigear
from tests.runtime.calling import Caller, beside, local
from tests.security.certificates import CLIENT, SERVER, Authority
from tests.security.chance import dice
from tests.security.logins import PENCIL
from trigear.engine.config import ServerConfig
from trigear.engine.doors import Way
from trigear.engine.logins import Logins
from trigear.runtime.address import parse_address
from trigear.runtime.link import open_stream
from trigear.runtime.server import open_server
from trigear.security.mechs import Authenticator, LoginSettings
from trigear.security.throttle import Throttle
from trigear.security.tls import ClientCertificates, ClientTLS, ServerTLS
from trigear.security.users import Users

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ALICE = f"""
version = 1
[users.alice]
tenant = "acme"
roles = ["submit", "work", "admin", "operator"]
scram = ["{PENCIL.text()}"]
unix_uids = [{os.getuid()}]
certs = ["cn:alice"]
"""


def logins() -> Logins:
    users = Users.parse(ALICE)
    ways = [Way.SASL, Way.MTLS, Way.PEER]
    return Logins(Authenticator(users, LoginSettings(), Throttle(), bytes(32), dice()), ways)


async def test_password_is_checked_while_others_are_served(tmp_path: Path) -> None:
    async with (
        open_server(beside(tmp_path), logins=logins()) as server,
        await open_stream(parse_address(server.addresses[0])) as stream,
    ):
        caller = Caller(stream)
        assert (await caller.ask("OPTION_REQ", b"sasl"))[0] == "OPTION_RES"
        said = await caller.hears()
        assert said[1] == b"EXTERNAL SCRAM-SHA-256 PLAIN"
        assert said[4] == b"acme/alice"
        said = await caller.ask("SASL_START", b"PLAIN\0\0alice\0pencil")
        assert said[:2] == ("SASL_OK", b"acme/alice")
        assert (await caller.ask("SUBMIT_JOB_BG", b"f", b"", b""))[0] == "JOB_CREATED"


async def test_check_that_breaks_lets_nobody_in(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours = logins()

    def broken(session: object, work: object) -> object:
        return offer(session, lambda: 1 // 0)

    offer, ours.offer = ours.offer, broken
    async with (
        open_server(beside(tmp_path), logins=ours) as server,
        await open_stream(parse_address(server.addresses[0])) as stream,
    ):
        caller = Caller(stream)
        await caller.ask("OPTION_REQ", b"sasl")
        await caller.hears()
        said = await caller.ask("SASL_START", b"PLAIN\0\0alice\0pencil")
        assert said[:2] == ("ERROR", b"AUTHENTICATION_FAILED")
    assert "a password cannot be checked: ZeroDivisionError" in caplog.text


async def test_plain_connection_of_this_machine_is_offered_scram() -> None:
    async with (
        open_server(local(), logins=logins()) as server,
        await open_stream(parse_address(server.addresses[0])) as stream,
    ):
        caller = Caller(stream)
        await caller.ask("OPTION_REQ", b"sasl")
        assert await caller.hears() == ("SASL_MECHANISMS", b"SCRAM-SHA-256", b"", b"1", b"")
        said = await caller.ask("SUBMIT_JOB_BG", b"f", b"", b"")
        assert said[:2] == ("ERROR", b"AUTHENTICATION_REQUIRED")


async def test_client_certificate_is_who_one_is(tmp_path: Path) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    certificate, key = authority.issue("localhost", usage=[SERVER]).write(tmp_path, "server")
    own, own_key = authority.issue("alice", usage=[CLIENT]).write(tmp_path, "alice")
    tls = ServerTLS(certificate, key, ClientCertificates.OPTIONAL, str(ca))
    config = ServerConfig(listen=("gearmans://127.0.0.1:0",), tls=tls)
    client = ClientTLS(certificate=own, key=own_key, verify=False)
    async with (
        open_server(config, logins=logins()) as server,
        await open_stream(parse_address(server.addresses[0]), client) as stream,
    ):
        caller = Caller(stream)
        assert (await caller.ask("SUBMIT_JOB_BG", b"f", b"", b""))[0] == "JOB_CREATED"
        await caller.ask("OPTION_REQ", b"sasl")
        said = await caller.hears()
        assert said[2].startswith(b"tls-server-end-point")
        assert said[4] == b"acme/alice"


async def test_operators_see_sessions_end_them_and_steer_the_server(tmp_path: Path) -> None:
    async with open_server(beside(tmp_path), logins=logins()) as server:
        asked = []
        server.on_reload = lambda: asked.append("reload")
        where = server.addresses[0]
        async with (
            trigear.connect_admin(where) as admin,
            await open_stream(parse_address(where)) as idle,
        ):
            me = await admin.whoami()
            assert (me.identity, me.tenant, me.method) == ("acme/alice", "acme", "peer")
            assert me.roles == ("submit", "work", "admin", "operator")
            await Caller(idle).settled()
            first, other = await admin.sessions()
            assert (first.identity, other.identity) == ("acme/alice", "acme/alice")
            assert await admin.end_session(other.session)
            assert b"SESSION_ENDED" in await Caller(idle).to_the_end()
            assert not await admin.end_session(other.session)
            await admin.reload()
            await admin.whoami()
            assert asked == ["reload"]
            await admin.drain()
            await server.stopped.wait()


async def test_operator_stops_the_server_at_once(tmp_path: Path) -> None:
    async with (
        open_server(beside(tmp_path), logins=logins()) as server,
        trigear.connect_admin(server.addresses[0]) as admin,
    ):
        await admin.shutdown()
        await server.stopped.wait()
