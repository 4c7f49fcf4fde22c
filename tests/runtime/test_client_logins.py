"""Clients, workers and operators on Trio log in: at real servers, and at some that are not what
they seem."""

from __future__ import annotations

import logging
import ssl
import traceback
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

import trigear
from tests.runtime.calling import beside, local
from tests.runtime.entrance import SCRAM, between, let_in, offer, turn_away
from tests.runtime.scripted import ScriptedPlace, scripted
from tests.runtime.test_logins import logins
from tests.runtime.test_tls import Files, secure
from tests.security.certificates import SERVER, Authority
from tests.security.logins import PENCIL, SECRETS
from trigear.engine import logins as engine_logins
from trigear.engine.config import ServerConfig
from trigear.errors import ConnectionLost, LoginFailed, LoginRefused, Refused
from trigear.runtime.address import parse_address
from trigear.runtime.client import connect_to, open_client
from trigear.runtime.pool import Place
from trigear.runtime.server import open_server
from trigear.security.scram import Hash
from trigear.security.tls import ClientCertificates, ClientTLS
from trigear.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    OPTION_RES,
    SASL_CHALLENGE,
    SASL_OK,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from trigear.runtime.server import Server


ALICE = trigear.Auth("alice", "pencil")
ANYWHERE = trigear.Auth("alice", "pencil", allow_plaintext_scram=True)
"""Streams in memory could lead to anybody."""


@pytest.fixture(autouse=True)
def prompt_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server waits before it refuses; here not for long."""
    monkeypatch.setattr(engine_logins, "DELAY", 0.02)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def guarded(config) -> AsyncIterator[str]:
    """A server that lets in who logs in; its address."""
    async with open_server(config, logins=logins()) as server:
        yield server.addresses[0]


def ways_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """As whom, and how, the server let somebody in."""
    return [line.partition(" is ")[2] for line in caplog.messages if " is acme/" in line]


# It works


async def test_client_worker_and_operator_log_in(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    worker = trigear.Worker()

    @worker.function("reverse")
    async def reverse(job: trigear.WorkerJob) -> bytes:
        return job.workload[::-1]

    async with guarded(local()) as address, trio.open_nursery() as nursery:
        await nursery.start(partial(worker.run, address, auth=ALICE))
        async with trigear.connect(address, auth=ALICE, client_id="me") as client:
            assert await client.submit("reverse", b"hello") == b"olleh"
        async with trigear.connect_admin(address, auth=ALICE) as admin:
            assert [one.function for one in await admin.status()] == ["acme/reverse"]
        acting = trigear.Auth("alice", "pencil", tenant="acme")
        async with trigear.connect_admin(address, auth=acting) as admin:
            assert [one.function for one in await admin.status()] == ["reverse"]
        nobody = trigear.Auth("alice", "pencil", tenant="acem")
        with pytest.raises(LoginRefused, match="UNKNOWN_TENANT"):
            async with trigear.connect_admin(address, auth=nobody):
                pytest.fail("acts for nobody")
        nursery.cancel_scope.cancel()
    assert ways_in(caplog)[:4] == ["acme/alice by SCRAM-SHA-256"] * 4


@pytest.mark.parametrize(
    ("auth", "way"),
    [
        (ALICE, "SCRAM-SHA-256-PLUS"),
        (trigear.Auth("alice", "pencil", mechanisms=["SCRAM-SHA-256"]), "SCRAM-SHA-256"),
        (trigear.Auth("alice", "pencil", mechanisms=["PLAIN"]), "PLAIN"),
    ],
)
async def test_over_tls_the_best_is_taken(
    files: Files, caplog: pytest.LogCaptureFixture, auth: trigear.Auth, way: str
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        guarded(secure(files.server())) as address,
        trigear.connect(address, tls=files.client(), auth=auth) as client,
    ):
        await client.submit_background("f", b"")
    assert ways_in(caplog) == [f"acme/alice by {way}"]


async def test_a_certificate_or_a_unix_socket_says_who_it_is(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        guarded(secure(files.server(ClientCertificates.OPTIONAL))) as address,
        trigear.connect(address, tls=files.client("alice"), auth=trigear.Auth()) as client,
    ):
        await client.submit_background("f", b"")
    assert ways_in(caplog) == ["acme/alice by mtls", "acme/alice by EXTERNAL"]
    caplog.clear()
    async with (
        guarded(beside(tmp_path)) as address,
        trigear.connect(address, auth=trigear.Auth()) as client,
        trigear.connect(address, auth=ALICE) as named,
    ):
        await client.submit_background("f", b"")
        await named.submit_background("f", b"")
    assert ways_in(caplog)[1::2] == ["acme/alice by EXTERNAL", "acme/alice by SCRAM-SHA-256"]


async def test_each_new_connection_logs_in_before_anything_else_and_stretches_no_more() -> None:
    place = ScriptedPlace()
    auth = trigear.Auth("alice", "pencil", allow_plaintext_scram=True)
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            for number in range(2):
                server = await place.accepts()
                await let_in(server)
                await server.expects(("OPTION_REQ", b"exceptions"), ("OPTION_REQ", b"trigear"))
                await server.says(OPTION_RES, b"exceptions")
                await server.says(OPTION_RES, b"trigear")
                await server.expects(("SUBMIT_JOB_BG", b"f", b"", b"%d" % number))
                await server.says(JOB_CREATED, b"H:%d" % number)
                await server.hangs_up()

        nursery.start_soon(serve)
        async with connect_to([Place("here", place)], auth=auth) as client:
            assert await client.submit_background("f", b"0") == b"H:0"
            stretched = dict(auth._salted)
            assert len(stretched) == 1
            await trio.testing.wait_all_tasks_blocked()
            assert await client.submit_background("f", b"1") == b"H:1"
            assert auth._salted == stretched


async def test_a_server_that_was_started_again_is_logged_in_to_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def serve(config: ServerConfig, task_status: trio.TaskStatus[Server]) -> None:
        async with open_server(config, logins=logins()) as server:
            task_status.started(server)
            await server.stopped.wait()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, local())
        (address,) = server.addresses
        await nursery.start(partial(worker_of("f").run, address, auth=ALICE))
        async with trigear.connect(address, auth=ALICE) as client:
            assert await client.submit("f", b"before") == b"before"
            server.stop()
            await server.stopped.wait()
            await trio.testing.wait_all_tasks_blocked()
            server = await nursery.start(serve, ServerConfig(listen=(address,)))
            assert await client.submit("f", b"after", unique="x", resubmit=True) == b"after"
        nursery.cancel_scope.cancel()
    assert ways_in(caplog) == ["acme/alice by SCRAM-SHA-256"] * 4


# Refusals


async def test_a_wrong_password_is_an_error_of_its_own() -> None:
    async with guarded(local()) as address:
        wrong = trigear.Auth("alice", SECRETS[-1])
        with pytest.raises(
            LoginRefused, match="refuses the login: Authentication failed"
        ) as raised:
            async with trigear.connect(address, auth=wrong):
                pytest.fail("let in")
    assert raised.value.code == "AUTHENTICATION_FAILED"
    said = "".join(traceback.format_exception(raised.value))
    assert not [secret for secret in SECRETS if secret in said]


async def test_who_does_not_log_in_is_told_that_it_is_needed() -> None:
    async with guarded(local()) as address:
        async with trigear.connect(address) as client:
            with pytest.raises(Refused, match="AUTHENTICATION_REQUIRED"):
                await client.submit("f", b"")
        async with trigear.connect(address, client_id="me", patience=0) as client:
            with pytest.raises(
                ConnectionLost, match=r"ended the connection: .*; it serves nobody without a login"
            ):
                await client.submit("f", b"")
        with pytest.raises(LoginRefused, match="serves nobody without a login"):
            await worker_of("f").run(address)


async def test_what_is_no_login_is_refused_before_anything_is_connected() -> None:
    with pytest.raises(TypeError, match=r"auth=tuple: trigear\.Auth\(user, password\) is needed"):
        trigear.connect("localhost", auth=("alice", "pencil"))  # type: ignore[arg-type]


async def test_a_refused_client_tries_less_and_less_often_and_says_so_at_once(
    mock_clock: trio.testing.MockClock,
) -> None:
    place = ScriptedPlace()

    hung_up = trio.Event()

    async def refuse() -> None:
        server = await place.accepts()
        await let_in(server)
        await server.hangs_up()
        hung_up.set()
        # There are no threads any more that it would not wait for.
        mock_clock.autojump_threshold = 0
        while True:
            await turn_away(await place.accepts())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse)
        async with connect_to([Place("here", place)], auth=ANYWHERE, patience=3600) as client:
            await hung_up.wait()
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(LoginRefused, match=r"^here refuses the login"):
                await client.echo(b"")
            assert trio.current_time() < 60
            before = place.attempts
            await trio.sleep(600)
            assert 10 <= place.attempts - before <= 30
        nursery.cancel_scope.cancel()


async def test_a_server_that_refuses_for_now_is_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    place = ScriptedPlace()
    later = b"AUTHENTICATION_TEMPORARY_FAILURE"

    async def serve() -> None:
        for _ in range(3):
            await turn_away(await place.accepts(), later)
        while True:
            await turn_away(await place.accepts())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(LoginRefused) as raised:
            async with connect_to([Place("here", place)], auth=ANYWHERE):
                pytest.fail("let in")
        assert raised.value.code == "AUTHENTICATION_FAILED"
        assert place.attempts == 4
        nursery.cancel_scope.cancel()


async def test_a_server_that_refuses_for_now_is_not_waited_for_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    place = ScriptedPlace()

    async def serve() -> None:
        while True:
            await turn_away(await place.accepts(), b"AUTHENTICATION_TEMPORARY_FAILURE")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(LoginRefused, match="there were many failures"):
            async with connect_to([Place("here", place)], auth=ANYWHERE, patience=5):
                pytest.fail("let in")
        assert trio.current_time() >= 5
        nursery.cancel_scope.cancel()


async def test_another_server_that_lets_us_in_is_taken() -> None:
    strict, open_ = ScriptedPlace(), ScriptedPlace()
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            await turn_away(await strict.accepts())

        async def welcome() -> None:
            server = await open_.accepts()
            await let_in(server)
            await server.expects(("OPTION_REQ", b"exceptions"), ("OPTION_REQ", b"trigear"))
            await server.says(OPTION_RES, b"exceptions")
            await server.says(OPTION_RES, b"trigear")
            await server.expects(("ECHO_REQ", b"x"))
            await server.says(ECHO_RES, b"x")
            assert await server.hears() == ("end",)
            await server.hangs_up()

        nursery.start_soon(serve)
        nursery.start_soon(welcome)
        places = [Place("strict", strict), Place("open", open_)]
        async with connect_to(places, auth=ANYWHERE, rng=First()) as client:
            assert await client.echo(b"x") == b"x"
            assert strict.attempts == 1


class First:
    """A lot that draws the first server."""

    def randrange(self, stop: int) -> int:
        return 0

    def random(self) -> float:
        return 0.9


# Workers


def worker_of(function: str) -> trigear.Worker:
    worker = trigear.Worker()

    @worker.function(function)
    async def handler(job: trigear.WorkerJob) -> bytes:
        return job.workload

    return worker


async def test_a_worker_that_was_never_let_in_ends() -> None:
    async with guarded(local()) as address:
        with pytest.raises(LoginRefused, match="check name and password"):
            await worker_of("f").run(address, auth=trigear.Auth("alice", "wrong guess"))
        with pytest.raises(LoginFailed, match="offers no mechanism that may be used here"):
            await worker_of("f").run(address, auth=trigear.Auth())


async def test_a_worker_that_is_refused_later_stays_and_tries_less_and_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(worker_of("f").run, place, auth=ANYWHERE))
        server = await place.accepts()
        await let_in(server)
        assert (await server.hears())[0] == "SET_CLIENT_ID"
        await server.expects(("OPTION_REQ", b"trigear"))
        await server.says(OPTION_RES, b"trigear")
        await server.expects(("CAN_DO", b"f"), ("ECHO_REQ", b""), ("GRAB_JOB_UNIQ",))
        await server.says(ECHO_RES, b"")
        await trio.testing.wait_all_tasks_blocked()
        await server.hangs_up()
        await turn_away(await place.accepts())
        while not [line for line in caplog.messages if "refuses the login" in line]:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    (line,) = [line for line in caplog.messages if "refuses the login" in line]
    seconds = line.rpartition("trying again in ")[2].rstrip("s) ")
    assert 1 <= float(seconds) <= 2


async def test_a_function_that_a_worker_may_not_do_ends_it(tmp_path: Path) -> None:
    ours = logins()
    text = f"""
    version = 1
    [users.alice]
    roles = ["work"]
    work = ["other"]
    scram = ["{PENCIL.text()}"]
    """
    ours.authenticator.users = type(ours.authenticator.users).parse(text)
    async with open_server(local(), logins=ours) as server:
        with pytest.raises(
            Refused, match=r"PERMISSION_DENIED: Permission denied: doing jobs of f$"
        ):
            await worker_of("f").run(server.addresses[0], auth=ALICE)


# Servers that are not what they seem


@pytest.mark.parametrize("mechanisms", [b"PLAIN", b"PLAIN LOGIN CRAM-MD5", b""])
async def test_t5_a_list_that_was_cut_down_gets_no_password(mechanisms: bytes) -> None:
    stream, server = scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer, server, mechanisms)
        with pytest.raises(LoginFailed, match=r"^here offers no mechanism that may be used here"):
            async with open_client(stream, name="here", auth=ANYWHERE):
                pytest.fail("let in")
        assert await server.hears() == ("end",)


async def test_t5_scram_is_not_used_in_the_open_unless_that_is_wanted() -> None:
    stream, server = scripted()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(offer, server)
        with pytest.raises(LoginFailed, match="the connection is neither TLS nor on this machine"):
            async with open_client(stream, auth=ALICE):
                pytest.fail("let in")
        assert await server.hears() == ("end",)


async def test_t6_a_list_without_plus_inside_tls_is_found_out(files: Files) -> None:
    """Whoever has the server's own key can read the connection, but not make it weaker unseen."""
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outside.load_cert_chain(files.certificate, files.key)

    def cut(piece: bytes) -> bytes:
        return piece.replace(b"SCRAM-SHA-256-PLUS ", b"SCRAM-SHA-256" + b" " * 6)

    async with guarded(secure(files.server())) as address:
        async with relay(files, address, outside, cut) as here:
            with pytest.raises(LoginRefused, match="AUTHENTICATION_FAILED"):
                async with trigear.connect(here, tls=files.client(), auth=ALICE):
                    pytest.fail("let in")
        async with (
            relay(files, address, outside) as here,
            trigear.connect(here, tls=files.client(), auth=ALICE) as client,
        ):
            await client.submit_background("f", b"")


async def test_t9_another_certificate_that_is_trusted_as_well_is_found_out(
    files: Files, tmp_path: Path
) -> None:
    other = files.authority.server().write(tmp_path, "other")
    outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    outside.load_cert_chain(*other)
    async with guarded(secure(files.server())) as address:
        async with relay(files, address, outside) as here:
            with pytest.raises(LoginRefused, match="AUTHENTICATION_FAILED"):
                async with trigear.connect(here, tls=files.client(), auth=ALICE):
                    pytest.fail("let in")
        # Whom nobody checks gets no password either.
        strangers = Authority().issue("localhost", usage=[SERVER]).write(tmp_path, "stranger")
        outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        outside.load_cert_chain(*strangers)
        careless = ClientTLS(verify=False)
        async with relay(files, address, outside) as here:
            with pytest.raises(LoginRefused, match="AUTHENTICATION_FAILED"):
                async with trigear.connect(here, tls=careless, auth=ALICE):
                    pytest.fail("let in")


@asynccontextmanager
async def relay(files: Files, address: str, outside, edit=bytes) -> AsyncIterator[str]:
    where = parse_address(address)
    inside = ssl.create_default_context(cafile=files.ca)
    target = (where.host, where.port)
    async with between(target, edit, outside=outside, inside=inside) as port:
        yield f"gearmans://localhost:{port}"


@pytest.mark.parametrize("silent", [False, True])
async def test_t7_a_server_that_says_it_knows_no_logins_gets_no_job(silent: bool) -> None:
    stream, server = scripted()

    async def deny() -> None:
        await server.expects(("OPTION_REQ", b"sasl"), ("ECHO_REQ", b"trigear-fence"))
        if not silent:
            await server.says(ERROR, b"UNKNOWN_OPTION", b"Server does not recognize given option")
        await server.says(ECHO_RES, b"trigear-fence")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deny)
        with pytest.raises(LoginFailed, match=r"^here knows no logins"):
            async with open_client(stream, name="here", auth=ANYWHERE) as client:
                await client.submit("f", b"secret")
        assert await server.hears() == ("end",)


@pytest.mark.parametrize("challenged", [False, True])
@pytest.mark.parametrize("proof", [b"", b"v=AAAA", b"v=" + b"A" * 43 + b"="])
async def test_t8_a_server_that_does_not_know_the_password_gets_no_job(
    challenged: bool, proof: bytes
) -> None:
    stream, server = scripted()

    async def pretend() -> None:
        await offer(server)
        _, start = await server.hears()
        if challenged:
            nonce = start.rpartition(b"r=")[2]
            first = b"r=%bservernonce,s=AAECAwQFBgcICQoLDA0ODw==,i=4096" % nonce
            await server.says(SASL_CHALLENGE, first)
            assert (await server.hears())[0] == "SASL_RESPONSE"
        await server.says(SASL_OK, b"acme/alice", b"acme", b"submit", b"0", proof)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pretend)
        with pytest.raises(LoginFailed, match=r"^here"):
            async with open_client(stream, name="here", auth=ANYWHERE) as client:
                await client.submit("f", b"secret")
        assert await server.hears() == ("end",)


async def test_t19_a_server_that_asks_for_too_much_work_gets_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, server = scripted()
    monkeypatch.setattr(Hash, "stretch", lambda *_: pytest.fail("it was done"))

    async def ask_for_much() -> None:
        await offer(server)
        _, start = await server.hears()
        nonce = start.rpartition(b"r=")[2]
        salt = b"AAECAwQFBgcICQoLDA0ODw=="
        await server.says(SASL_CHALLENGE, b"r=%bservernonce,s=%b,i=10000000" % (nonce, salt))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_much)
        with pytest.raises(LoginFailed, match="asks for 10000000 iterations; 4096 to 1000000"):
            async with open_client(stream, auth=ANYWHERE):
                pytest.fail("let in")
        assert await server.hears() == ("end",)


async def test_a_server_that_leaves_or_talks_nonsense_during_the_login_is_lost() -> None:
    stream, server = scripted()
    async with trio.open_nursery() as nursery:

        async def leave() -> None:
            await offer(server)
            await server.hears()
            await server.hangs_up()

        nursery.start_soon(leave)
        with pytest.raises(ConnectionLost, match=r"^here closed the connection during the login$"):
            async with open_client(stream, name="here", auth=ANYWHERE):
                pytest.fail("let in")
    stream, server = scripted()
    await server.sends(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConnectionLost, match=r"^here broke the protocol: .*is it a Gearman server"):
        async with open_client(stream, name="here", auth=ANYWHERE):
            pytest.fail("let in")


async def test_plain_speech_with_a_server_for_tls_is_explained(files: Files) -> None:
    async with guarded(secure(files.server())) as address:
        plain = address.removeprefix("gearmans://")
        with pytest.raises(LoginRefused, match=r"TLS required.*; write gearmans://HOST:PORT"):
            async with trigear.connect(plain, auth=ALICE):
                pytest.fail("let in")
        async with trigear.connect(plain, patience=0) as client:
            with pytest.raises(ConnectionLost, match=r"TLS required.*write gearmans://HOST:PORT"):
                await client.submit("f", b"")


async def test_a_certificate_that_is_missing_is_guessed_at(files: Files) -> None:
    async with guarded(secure(files.server(ClientCertificates.REQUIRED))) as address:
        with pytest.raises(ConnectionLost, match=r"does it want a client certificate"):
            async with trigear.connect(address, tls=files.client(), auth=ALICE):
                pytest.fail("let in")
    # A server that says nothing at all.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    async def hang_up(stream: trio.SocketStream) -> None:
        await trio.SSLStream(stream, context, server_side=True).do_handshake()
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with pytest.raises(ConnectionLost, match="hung up right after the TLS handshake: does it"):
            async with trigear.connect(
                f"gearmans://127.0.0.1:{port}", tls=files.client(), auth=ALICE
            ):
                pytest.fail("let in")
        nursery.cancel_scope.cancel()


# Secrets


async def test_t37_no_secret_is_said_to_the_log(
    files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN"):
        for password in ("pencil", "wrong guess"):
            auth = trigear.Auth("alice", password, mechanisms=[name])
            assert password not in repr(auth)
            async with guarded(secure(files.server())) as address:
                try:
                    async with trigear.connect(address, tls=files.client(), auth=auth) as client:
                        await client.submit_background("f", b"")
                except LoginRefused as error:
                    said = (
                        f"{error!r} {error.__dict__} {''.join(traceback.format_exception(error))}"
                    )
                    assert password not in said
    assert "logged in at" in caplog.text
    for secret in (*SECRETS, "p=", "v=", "c=biws"):
        assert secret not in caplog.text.replace("pencil.text", "")
    assert SCRAM
