"""Clients of SASL that others wrote log in at a real server, by TLS and without."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from scramp import ScramClient

from tests.conftest import answers, free_port, install
from tests.interop import servers
from tests.interop.sasl_peers import (
    Cyrus,
    Gsasl,
    Link,
    Perl,
    Refused,
    Speaker,
    log_in,
)
from trigear.cli.root import run_trigear

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.peers

PACKAGES = ("gsasl", "sasl2-bin", "libsasl2-modules", "libauthen-scram-perl", "libauthen-sasl-perl")


@pytest.fixture(scope="session")
def sasl_programs() -> None:
    """Debian's programs for SASL. With CI=true they are installed, and never skipped."""
    perl = ("/usr/bin/perl", "-MAuthen::SCRAM", "-MAuthen::SASL", "-e1")
    if all(map(shutil.which, ("gsasl", "sasl-sample-client"))) and answers(*perl) is not None:
        return
    if os.environ.get("CI") != "true":
        pytest.skip(f"Debian packages not installed here: {' '.join(PACKAGES)}")
    install(list(PACKAGES))


@dataclass
class Place:
    """A server that asks for logins, and a user that it knows."""

    folder: pathlib.Path
    plain: int
    tls: int
    password: str

    @contextmanager
    def link(self, *, tls: bool = True, cert: str = "", most: int = 0) -> Iterator[Link]:
        with socket.create_connection(("127.0.0.1", self.tls if tls else self.plain), 20) as sock:
            if not tls:
                yield Link(sock)
                return
            context = ssl.create_default_context(cafile=self.folder / "certs/ca.pem")
            if most:
                context.maximum_version = ssl.TLSVersion(most)
            if cert:
                certs = self.folder / "certs"
                context.load_cert_chain(certs / f"{cert}.pem", certs / f"{cert}-key.pem")
            with context.wrap_socket(sock, server_hostname="localhost") as secure:
                yield Link(secure)


@pytest.fixture(scope="module")
def place(sasl_programs: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("sasl")

    certs = ("--dir", str(folder / "certs"))
    assert run_trigear(["certs", "init", *certs]) == 0
    assert run_trigear(["certs", "client", "acme/alice", *certs]) == 0
    command = [sys.executable, "-m", "trigear", "user", "add", "alice", "--tenant", "acme"]
    password = subprocess.run(
        [*command, "--role", "submit", "--users", "users.toml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()
    ports: list[int] = []

    def serving(port: int) -> list[str]:
        ports[:] = [port, free_port()]
        return [
            *(sys.executable, "-m", "trigear", "server", "--store", "memory", "--auth", "sasl"),
            *("--users", "users.toml", "--client-certs", "optional"),
            *("--client-ca", "certs/ca.pem", "--cert", "certs/server.pem"),
            *("--key", "certs/server-key.pem", "--listen", f"127.0.0.1:{ports[0]}"),
            *("--listen", f"gearmans://127.0.0.1:{ports[1]}"),
        ]

    with servers.running("sasl", serving, folder):
        yield Place(folder, *ports, password)


ALICE = ["acme/alice", "acme", "submit"]
SCRAM = "SCRAM-SHA-256"

BY_PASSWORD: dict[str, Callable[[str], Speaker]] = {
    "gsasl SCRAM": lambda password: Gsasl(SCRAM, "alice", password),
    "gsasl PLAIN": lambda password: Gsasl("PLAIN", "alice", password),
    "cyrus SCRAM": lambda password: Cyrus(SCRAM, "alice", password),
    "cyrus PLAIN": lambda password: Cyrus("PLAIN", "alice", password),
    "Authen::SCRAM": lambda password: Perl("scram.pl", SCRAM, "alice", password),
    "Authen::SASL PLAIN": lambda password: Perl("sasl.pl", "PLAIN", "alice", password),
}
"""Clients that have a password. PLAIN is offered over TLS alone."""


@pytest.mark.parametrize("name", BY_PASSWORD)
def test_a_client_of_another_library_logs_in(place: Place, name: str) -> None:
    make = BY_PASSWORD[name]
    for tls in (False, True):
        if tls or "PLAIN" not in name:
            speaker = make(place.password)
            with speaker.terminal, place.link(tls=tls) as link:
                assert log_in(link, speaker) == ALICE


def test_a_client_of_another_library_does_not_log_in_with_another_password(place: Place) -> None:
    speaker = BY_PASSWORD["cyrus SCRAM"]("guess")
    refused = pytest.raises(Refused, match="AUTHENTICATION_FAILED")
    with place.link() as link, speaker.terminal, refused:
        log_in(link, speaker)


def test_gnu_sasl_binds_its_login_to_tls_1_2(place: Place) -> None:
    with place.link(most=ssl.TLSVersion.TLSv1_2) as link:
        binding = link.tls_unique
        speaker = Gsasl("SCRAM-SHA-256-PLUS", "alice", place.password, binding)
        with speaker.terminal:
            assert log_in(link, speaker) == ALICE
    with place.link(most=ssl.TLSVersion.TLSv1_2) as link:
        speaker = Gsasl("SCRAM-SHA-256-PLUS", "alice", place.password, bytes(12))
        with speaker.terminal, pytest.raises(Refused, match="AUTHENTICATION_FAILED"):
            log_in(link, speaker)


@pytest.mark.parametrize("name", ["gsasl", "Authen::SASL"])
def test_a_client_certificate_is_enough_for_external(place: Place, name: str) -> None:
    with place.link(cert="alice") as link:
        if name == "gsasl":
            speaker: Speaker = Gsasl("EXTERNAL", "alice", "")
        else:
            speaker = Perl("sasl.pl", "EXTERNAL", "alice", "")
        with speaker.terminal:
            assert log_in(link, speaker) == ALICE


class Scramp(Speaker):
    """The package scramp."""

    def __init__(self, mechanism: str, password: str, binding: tuple[str, bytes] | None) -> None:
        self.mechanism = mechanism
        self._client = ScramClient([mechanism], "alice", password, channel_binding=binding)
        self._heard = ""

    def first(self) -> bytes:
        return self._client.get_client_first().encode()

    def hear(self, data: bytes) -> None:
        self._heard = data.decode()

    def message(self) -> bytes:
        self._client.set_server_first(self._heard)
        return self._client.get_client_final().encode()

    def ends(self, data: bytes) -> None:
        self._client.set_server_final(data.decode())


def test_scramp_logs_in_by_tls_bound_to_it_and_not_and_without_tls(place: Place) -> None:
    with place.link(tls=False) as link:
        assert log_in(link, Scramp(SCRAM, place.password, None)) == ALICE
    with place.link() as link:
        assert log_in(link, Scramp(SCRAM, place.password, None)) == ALICE
    with place.link() as link:
        # `trigear certs` signs with SHA-256, so that is the hash.
        certificate = hashlib.sha256(link.certificate).digest()
        bound = Scramp(f"{SCRAM}-PLUS", place.password, ("tls-server-end-point", certificate))
        assert log_in(link, bound) == ALICE
