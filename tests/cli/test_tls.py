"""Servers that speak TLS, as real processes: both faces, bad files, new files, other users."""

from __future__ import annotations

import os
import signal
import socket
import ssl
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.cli.conftest import PATIENCE
from tests.cli.test_start import FACE, TRIGEAR, fails
from tests.security.certificates import CLIENT, SERVER, Authority, Issued
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Running

pytestmark = pytest.mark.slow

HERE = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
LISTEN = ["--listen", "gearmans://127.0.0.1:0", "--store", "memory"]


class Files:
    """An authority in ``ca.pem``, and a server's certificate, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(self.authority.pem)
        self.renew()

    def renew(self) -> Issued:
        issued = self.authority.issue("localhost", names=HERE, usage=[SERVER])
        self.certificate, self.key = issued.write(self.folder, "server")
        return issued

    @property
    def options(self) -> list[str]:
        return ["--cert", self.certificate, "--key", self.key]

    @contextmanager
    def connection(self, server: Running, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
        port = int(server.address.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as link,
        ):
            yield link

    def context(self, name: str = "") -> ssl.SSLContext:
        """That of a client, with a certificate if it has a name."""
        context = ssl.create_default_context(cafile=self.ca)
        if name:
            issued = self.authority.issue(name, usage=[CLIENT])
            context.load_cert_chain(*issued.write(self.folder, name))
        return context

    def ask(self, server: Running, text: str, name: str = "") -> str:
        """The answer to a text command, or nothing if the server ended the connection."""
        with self.connection(server, self.context(name)) as link:
            link.sendall(text.encode() + b"\n")
            return link.recv(1000).decode()

    def served(self, server: Running) -> bytes | None:
        """The certificate that the server shows."""
        with self.connection(server, self.context()) as link:
            return link.getpeercert(binary_form=True)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_server_speaks_tls_where_its_address_says_so(
    start: Callable[..., Running], files: Files
) -> None:
    plain = ["--listen", "127.0.0.1:0"]
    server = start(*TRIGEAR, "server", *LISTEN, *plain, *files.options)
    assert server.address.startswith("gearmans://127.0.0.1:")
    assert files.ask(server, "getpid") == f"OK {server.process.pid}\n"
    server.address = server.lines[-1].split(" listening on ")[1].split(";")[0].split(", ")[1]
    assert server.ask("getpid") == f"OK {server.process.pid}\n"


def test_file_has_the_settings_of_tls_too(
    start: Callable[..., Running], files: Files, tmp_path: Path
) -> None:
    (tmp_path / "trigear.toml").write_text(
        "[server]\nlisten = 'gearmans://127.0.0.1:0'\nstore = 'memory'\ntls-min = '1.3'\n"
        "cert = 'server.pem'\nkey = 'server-key.pem'\n"
        "client-certs = 'required'\nclient-ca = 'ca.pem'\n"
    )
    server = start(*TRIGEAR, "server", "--config", "trigear.toml", cwd=tmp_path)
    assert files.ask(server, "getpid", "alice") == f"OK {server.process.pid}\n"
    with pytest.raises(ssl.SSLError, match="certificate required"):
        files.ask(server, "getpid")
    old = files.context("bob")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="version"), files.connection(server, old):
        pass


def test_open_server_with_tls_does_not_warn_of_readers(
    start: Callable[..., Running], files: Files
) -> None:
    wide = ["--listen", "gearmans://0.0.0.0:0", "--insecure-open", "--store", "memory"]
    server = start(*TRIGEAR, "server", *wide, *files.options)
    assert "WARNING  open to other machines without authentication" in server.lines[0]
    assert "can be read on the way" not in server.lines[0]


def another_key() -> bytes:
    return Authority().key_pem()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda files: os.unlink(files.certificate), "server.pem: it cannot be read"),
        (lambda files: os.chmod(files.key, 0o644), "chmod 600"),
        (lambda files: Path(files.key).write_bytes(b"-"), "no private key"),
        (lambda files: Path(files.key).write_bytes(another_key()), "it is not the key of"),
    ],
    ids=["no certificate", "open key", "no key", "another key"],
)
def test_bad_files_stop_the_start_in_both_faces(
    damage: Callable[[Files], object], words: str, files: Files, tmp_path: Path
) -> None:
    damage(files)
    status, line = fails(*TRIGEAR, "server", *LISTEN, *files.options)
    assert status in (Status.NO, Status.USAGE)
    assert words in line
    names = [f"--ssl-certificate={files.certificate}", f"--ssl-key={files.key}"]
    status, line = fails(*FACE, "--ssl", *names, "--pid-file", str(tmp_path / "pid"))
    assert status == Status.NO
    assert words in line


def test_t26_sighup_reads_certificates_anew_and_keeps_the_old_where_new_ones_are_bad(
    start: Callable[..., Running], files: Files
) -> None:
    server = start(*TRIGEAR, "server", *LISTEN, *files.options)
    with files.connection(server, files.context()) as before:
        fresh = files.renew()
        server.send(signal.SIGHUP)
        assert "configuration and certificates read" in server.read_until("SIGHUP: ")
        assert files.served(server) == fresh.der
        Path(files.key).write_bytes(b"damaged")
        server.send(signal.SIGHUP)
        line = server.read_until("server-key.pem")
        assert "ERROR" in line
        assert "the old configuration stays" in line
        assert files.served(server) == fresh.der
        before.sendall(b"getpid\n")
        assert before.recv(100) == f"OK {server.process.pid}\n".encode()


def test_sighup_cannot_bring_tls_to_a_server_that_has_none(
    start: Callable[..., Running], files: Files, tmp_path: Path
) -> None:
    config = tmp_path / "trigear.toml"
    config.write_text("[server]\nlisten = '127.0.0.1:0'\n")
    server = start(*TRIGEAR, "server", "--store", "memory", "--config", str(config))
    config.write_text(
        "[server]\nlisten = 'gearmans://127.0.0.1:0'\n"
        f"cert = '{files.certificate}'\nkey = '{files.key}'\n"
    )
    server.send(signal.SIGHUP)
    assert "takes a restart: listen, tls" in server.read_until("SIGHUP: ")
    assert server.ask("version").startswith("OK")


@pytest.mark.usefixtures("as_root")
def test_files_are_read_before_another_user_takes_over(
    start: Callable[..., Running], open_folder: Path
) -> None:
    files = Files(open_folder)
    server = start(*TRIGEAR, "server", *LISTEN, *files.options, "--run-as", "nobody")
    assert files.ask(server, "version").startswith("OK")
    server.send(signal.SIGHUP)
    assert "Permission denied" in server.read_until("server-key.pem")
    assert files.ask(server, "version").startswith("OK")


def test_gearmands_face_speaks_tls_and_asks_no_client_for_a_certificate(
    start: Callable[..., Running], files: Files, tmp_path: Path
) -> None:
    names = [
        f"--ssl-ca-file={files.ca}",
        f"--ssl-certificate={files.certificate}",
        f"--ssl-key={files.key}",
    ]
    server = start(*FACE, "--ssl", *names, "--pid-file", str(tmp_path / "pid"))
    assert files.ask(server, "getpid") == f"OK {server.process.pid}\n"
