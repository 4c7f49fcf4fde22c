"""The client without Trio speaks TLS and logs in."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

import trigear
from tests.runtime.calling import beside, local
from tests.runtime.test_logins import logins
from tests.runtime.test_tls import Files, secure
from tests.security.logins import LOOPBACK, NOW, SECRETS, authenticator
from trigear.engine import logins as engine_logins
from trigear.errors import ConfigError, ConnectionLost, JobLost, LoginFailed, LoginRefused, Refused
from trigear.protocol.asking import FENCE
from trigear.runtime.server import open_server
from trigear.security.mechs import Challenge, Done
from trigear.security.tls import ClientCertificates, ClientTLS
from trigear.testing.threaded import open_server_in_thread
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    OPTION_REQ,
    OPTION_RES,
    SASL_CHALLENGE,
    SASL_EXPIRING,
    SASL_MECHANISMS,
    SASL_OK,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ALICE = trigear.Auth("alice", "pencil")
PATIENCE = 30.0


@pytest.fixture(autouse=True)
def prompt_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server waits before it refuses; here not for long."""
    monkeypatch.setattr(engine_logins, "DELAY", 0.02)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@contextmanager
def guarded(config) -> Iterator[str]:
    """A server in a thread that lets in who logs in; its address."""
    addresses: list[str] = []
    ready = threading.Event()
    stop: list[Callable[[], None]] = []

    async def serve() -> None:
        async with open_server(config, logins=logins()) as server:
            addresses.extend(server.addresses)
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(server.stop))
            ready.set()
            await server.stopped.wait()

    thread = threading.Thread(target=trio.run, args=(serve,), daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    try:
        yield addresses[0]
    finally:
        stop[0]()
        thread.join(PATIENCE)


def ways_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [line.partition(" is ")[2] for line in caplog.messages if " is acme/" in line]


# It works


def test_a_client_and_an_operator_log_in_over_tls(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    large = bytes(range(256)) * 20_000
    with guarded(secure(files.server())) as address:
        tls = files.client()
        with trigear.connect_blocking(address, timeout=PATIENCE, tls=tls, auth=ALICE) as client:
            assert client.echo(large) == large
            assert client.submit_background("f", large).startswith(b"H:")
        with trigear.connect_admin_blocking(
            address, timeout=PATIENCE, tls=tls, auth=ALICE
        ) as admin:
            assert [one.total for one in admin.status()] == [1]
    assert ways_in(caplog) == ["acme/alice by SCRAM-SHA-256-PLUS"] * 2


def test_without_tls_and_on_unix_sockets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with (
        guarded(local()) as address,
        trigear.connect_blocking(address, timeout=PATIENCE, auth=ALICE) as client,
    ):
        client.submit_background("f", b"")
    with (
        guarded(beside(tmp_path)) as address,
        trigear.connect_blocking(
            address,
            timeout=PATIENCE,
            auth=trigear.Auth("alice", "pencil", mechanisms=["PLAIN"]),
            tls=ClientTLS(),  # which no Unix socket speaks
        ) as client,
    ):
        client.submit_background("f", b"")
    assert ways_in(caplog)[0] == "acme/alice by SCRAM-SHA-256"
    assert ways_in(caplog)[-1] == "acme/alice by PLAIN"


def test_a_certificate_says_who_it_is(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with guarded(secure(files.server(ClientCertificates.REQUIRED))) as address:
        tls = files.client("alice")
        with trigear.connect_blocking(
            address, timeout=PATIENCE, tls=tls, auth=trigear.Auth()
        ) as client:
            client.submit_background("f", b"")
        with pytest.raises(ConnectionLost, match=r"does it want a client certificate"):
            trigear.connect_blocking(address, timeout=PATIENCE, tls=files.client(), auth=ALICE)
    assert ways_in(caplog)[-1] == "acme/alice by EXTERNAL"


def test_tls_needs_no_login(files: Files) -> None:
    with open_server_in_thread(secure(files.server())) as server:
        with trigear.connect_blocking(
            server.address, timeout=PATIENCE, tls=files.client()
        ) as client:
            assert client.echo(b"x") == b"x"
        plain = server.address.removeprefix("gearmans://")
        with trigear.connect_blocking(plain, timeout=PATIENCE, tls=files.client()) as client:
            assert client.echo(b"x") == b"x"


# Refusals


def test_a_wrong_password_is_refused_once_and_not_again_at_once() -> None:
    with guarded(local()) as address:
        with pytest.raises(LoginRefused, match="refuses the login") as raised:
            trigear.connect_blocking(
                address, timeout=PATIENCE, auth=trigear.Auth("alice", SECRETS[-1])
            )
        assert raised.value.code == "AUTHENTICATION_FAILED"
        with (
            trigear.connect_blocking(address, timeout=PATIENCE) as client,
            pytest.raises(Refused, match="AUTHENTICATION_REQUIRED"),
        ):
            client.submit("f", b"")
    with pytest.raises(TypeError, match=r"trigear\.Auth\(user, password\) is needed"):
        trigear.connect_blocking(address, auth="alice")  # type: ignore[arg-type]


def test_tls_that_cannot_be_trusted_is_refused_with_what_to_do(files: Files, tmp_path) -> None:
    with open_server_in_thread(secure(files.server())) as server:
        with pytest.raises(
            ConnectionLost, match=r"certificate is not trusted: .*name the authority .*--ca FILE"
        ):
            trigear.connect_blocking(server.address, timeout=PATIENCE)
        with pytest.raises(ConfigError, match="cannot be read"):
            trigear.connect_blocking(server.address, tls=ClientTLS(ca=str(tmp_path / "none.pem")))
        plain = server.address.removeprefix("gearmans://")
        with (
            trigear.connect_blocking(plain, timeout=PATIENCE, patience=0) as client,
            pytest.raises(ConnectionLost, match=r"TLS required .*write gearmans://HOST:PORT"),
        ):
            client.submit("f", b"")
    with (
        open_server_in_thread() as server,
        pytest.raises(ConnectionLost, match=r"does not speak TLS there|hung up"),
    ):
        trigear.connect_blocking(f"gearmans://{server.address}", timeout=PATIENCE)


def test_a_server_that_is_silent_is_given_up_in_time(files: Files) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        here = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(ConnectionLost, match=r"no TLS handshake in time$"):
            trigear.connect_blocking(here, timeout=0.05, tls=files.client())
        with pytest.raises(ConnectionLost, match=r"no answer to the login in time$"):
            trigear.connect_blocking(here, timeout=0.05, auth=ALICE)


# Servers that do as a test says


class Door:
    """A server for one client at a time, in a thread; a test says what it does."""

    def __init__(self, serve: Callable[[Door], None], context: ssl.SSLContext | None = None):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.link: socket.socket | None = None
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.failure: BaseException | None = None
        self._serve = serve
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._serve(self)
        except BaseException as error:
            self.failure = error
        finally:
            self._listener.close()
            if self.link is not None:
                self.link.close()

    def accept(self) -> None:
        self.link, _ = self._listener.accept()
        self.link.settimeout(PATIENCE)
        if self._context is not None:
            self.link = self._context.wrap_socket(self.link, server_side=True)
        self._read = b""

    def hears(self) -> bytes:
        """The next packet, whole; nothing at the end."""
        while len(self._read) < 12 or len(self._read) < self._size:
            data = self.link.recv(65536)
            if not data:
                return b""
            self._read += data
        packet, self._read = self._read[: self._size], self._read[self._size :]
        return packet

    @property
    def _size(self) -> int:
        return 12 + int.from_bytes(self._read[8:12])

    def says(self, *packets: bytes) -> None:
        self.link.sendall(b"".join(packets))

    def offers(self, mechanisms: bytes = b"SCRAM-SHA-256") -> bytes:
        """Say how one may log in; what that begins with."""
        assert self.hears() == request(OPTION_REQ, b"sasl")
        assert self.hears() == request(ECHO_REQ, FENCE)
        self.says(
            response(OPTION_RES, b"sasl"),
            response(SASL_MECHANISMS, mechanisms, b"", b"1", b""),
            response(ECHO_RES, FENCE),
        )
        return self.hears()[12:].partition(b"\0")[2]

    def lets_in(self, lifetime: int = 0) -> None:
        exchange = authenticator().begin("SCRAM-SHA-256", LOOPBACK, NOW)
        outcome = exchange.step(self.offers(), NOW)
        assert isinstance(outcome, Challenge)
        self.says(response(SASL_CHALLENGE, outcome.data))
        outcome = exchange.step(self.hears()[12:], NOW)
        assert isinstance(outcome, Done)
        left = b"%d" % lifetime
        self.says(response(SASL_OK, b"acme/alice", b"acme", b"submit", left, outcome.data))

    def greets(self) -> None:
        for option in (b"exceptions", b"trigear"):
            assert self.hears() == request(OPTION_REQ, option)
            self.says(response(OPTION_RES, option))

    def close(self) -> None:
        self.link.close()

    def __enter__(self) -> Door:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(PATIENCE)
        if self.failure is not None:
            raise self.failure


def test_another_connection_logs_in_again_and_stretches_no_more() -> None:
    auth = trigear.Auth("alice", "pencil")

    def serve(door: Door) -> None:
        for number in range(2):
            door.accept()
            door.lets_in()
            door.greets()
            door.hears()
            door.says(response(JOB_CREATED, b"H:%d" % number))
            door.close()

    with (
        Door(serve) as door,
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=auth) as client,
    ):
        assert client.submit_background("f", b"") == b"H:0"
        stretched = dict(auth._salted)
        assert client.submit_background("f", b"", unique="x", resubmit=True) == b"H:1"
        assert auth._salted == stretched != {}


def test_a_login_that_ends_is_made_anew_while_a_job_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("trigear.runtime.renewal.LEAST_SECONDS", 0.0)

    def serve(door: Door) -> None:
        door.accept()
        door.lets_in(3_600_000)
        door.greets()
        door.hears()
        door.says(response(JOB_CREATED, b"H:1"))
        for _ in range(2):
            door.says(response(SASL_EXPIRING, b"60000"))
            door.lets_in(3_600_000)
        door.says(response(SASL_EXPIRING, b"60000"))
        door.offers()
        door.says(response(ERROR, b"AUTHENTICATION_FAILED", b"No"))
        door.says(response(WORK_COMPLETE, b"H:1", b"done"))
        assert door.hears() == b""

    with (
        Door(serve) as door,
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=ALICE) as client,
    ):
        assert client.submit("f", b"") == b"done"
    (line,) = caplog.messages
    assert "trying again in " in line


def test_a_server_that_cannot_prove_itself_any_more_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trigear.runtime.renewal.LEAST_SECONDS", 0.0)

    def serve(door: Door) -> None:
        door.accept()
        door.lets_in(1)  # so that another is due with whatever is said next
        door.greets()
        assert door.hears()[12:] == b"f\0\0"
        door.says(response(JOB_CREATED, b"H:1"))
        door.offers()
        door.says(response(SASL_OK, b"acme/alice", b"acme", b"submit", b"0", b""))
        assert door.hears() == b""

    with (
        Door(serve) as door,
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=ALICE) as client,
        pytest.raises(JobLost) as raised,
    ):
        client.submit("f", b"")
    assert isinstance(raised.value.__cause__, ConnectionLost)


@pytest.mark.parametrize(
    ("said", "error", "words"),
    [
        (response(ERROR, b"UNKNOWN_OPTION", b"what?"), LoginFailed, "knows no logins"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ConnectionLost, "broke the protocol"),
        (b"", ConnectionLost, "closed the connection during the login"),
    ],
)
def test_a_server_without_logins_gets_no_job(said: bytes, error, words: str) -> None:
    def serve(door: Door) -> None:
        door.accept()
        door.hears()
        door.hears()
        if said:
            door.says(said)
            assert door.hears() == b""
        door.close()

    with (
        Door(serve) as door,
        pytest.raises(error, match=words),
    ):
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=ALICE)


def test_a_server_that_is_busy_is_asked_again() -> None:
    def serve(door: Door) -> None:
        for code in (b"AUTHENTICATION_TEMPORARY_FAILURE", b"AUTHENTICATION_FAILED"):
            door.accept()
            door.offers()
            door.says(response(ERROR, code, b"No"))
            assert door.hears() == b""
            door.close()

    with (
        Door(serve) as door,
        pytest.raises(LoginRefused, match="AUTHENTICATION_FAILED"),
    ):
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=ALICE)


def test_a_refused_login_is_not_tried_by_every_call() -> None:
    def serve(door: Door) -> None:
        door.accept()
        door.lets_in()
        door.close()
        door.accept()
        door.offers()
        door.says(response(ERROR, b"AUTHENTICATION_FAILED", b"No"))
        assert door.hears() == b""
        door.close()

    with (
        Door(serve) as door,
        trigear.connect_blocking(door.address, timeout=PATIENCE, auth=ALICE) as client,
    ):
        for _ in range(10):
            with pytest.raises((LoginRefused, ConnectionLost)):
                client.echo(b"")
        with pytest.raises(LoginRefused):
            client.echo(b"")


def test_a_tls_server_that_says_nothing_is_explained(files: Files) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def serve(door: Door) -> None:
        door.accept()
        door.close()

    with (
        Door(serve, context) as door,
        pytest.raises(ConnectionLost, match="hung up right after the TLS handshake"),
    ):
        trigear.connect_blocking(door.address, timeout=PATIENCE, tls=files.client(), auth=ALICE)
