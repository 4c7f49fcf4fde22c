"""`trigear certs`: what it makes, what OpenSSL thinks of that, and a server that uses it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.cli.at_work import wait_until
from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.security.certificates import DAY, Authority
from trigear.cli import logins
from trigear.cli.report import Status
from trigear.security import issuing, replacing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Running, Said

WHOAMI = b"whoami\n"


@pytest.fixture
def folder(trigear: Callable[..., Said], tmp_path: Path) -> Path:
    """A folder with an authority, and certificates of a server and of acme/alice."""
    made = tmp_path / "certs"
    assert trigear("certs", "init", "--dir", str(made)).status == Status.DONE
    assert trigear("certs", "client", "acme/alice", "--dir", str(made)).status == Status.DONE
    return made


def verified(folder: Path, *names: str, options: tuple[str, ...] = ()) -> bool:
    """Whether OpenSSL accepts certificates by the letter."""
    done = subprocess.run(
        [*("openssl", "verify", "-x509_strict", "-CAfile"), str(folder / "ca.pem"), *options]
        + [str(folder / name) for name in names],
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_openssl_accepts_what_is_made_and_keys_are_for_their_owner(folder: Path) -> None:
    assert verified(folder, "server.pem", options=("-purpose", "sslserver"))
    assert verified(folder, "alice.pem", options=("-purpose", "sslclient"))
    assert not verified(folder, "alice.pem", options=("-purpose", "sslserver"))
    assert verified(folder, "server.pem", options=("-verify_hostname", "localhost"))
    assert verified(folder, "server.pem", options=("-verify_ip", "::1"))
    for key in folder.glob("*-key.pem"):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_next_step_is_told(trigear: Callable[..., Said], tmp_path: Path) -> None:
    folder = tmp_path / "c"
    said = trigear("certs", "init", "jobs.example", "10.0.0.5", "--dir", str(folder))
    assert f"{folder}/ca.pem\tthe authority" in said.out
    assert f"--cert {folder}/server.pem --key {folder}/server-key.pem" in said.line
    said = trigear("certs", "client", "bob", "--dir", str(folder), "--json")
    files = [json.loads(line)["file"] for line in said.out.splitlines()]
    assert files == [str(folder / name) for name in ("bob.pem", "bob-key.pem", "ca.pem")]
    assert "--auth mtls" in said.line
    shown = json.loads(trigear("certs", "show", "bob.pem", "--dir", str(folder), "--json").out)
    assert shown["names"] == ["trigear://default/bob"]


def test_nothing_is_replaced_unasked(trigear: Callable[..., Said], folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for command in ("init",), ("client", "acme/alice"), ("server", "localhost"):
        said = trigear("certs", *command, "--dir", str(folder))
        assert (said.status, "already there" in said.line) == (Status.NO, True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    said = trigear("certs", "server", "other.example", "--dir", str(folder), "--force")
    assert said.status == Status.DONE
    assert verified(folder, "server.pem", options=("-verify_hostname", "other.example"))
    trigear("certs", "init", "--dir", str(folder), "--force")
    assert not verified(folder, "alice.pem")


def test_another_server_has_files_of_its_own(trigear: Callable[..., Said], folder: Path) -> None:
    place = ("--dir", str(folder))
    said = trigear("certs", "server", "jobs2.example", "--file", "jobs2", *place)
    assert said.status == Status.DONE
    assert verified(folder, "jobs2.pem", options=("-verify_hostname", "jobs2.example"))
    for stem in "ca", "crl", "../x", "a-key":
        said = trigear("certs", "server", "jobs2.example", "--file", stem, *place)
        assert (said.status, "cannot be the name" in said.line) == (Status.USAGE, True)


@pytest.mark.parametrize("command", [("client", "acme/alice"), ("server", "x"), ("revoke",)])
def test_without_an_authority_the_first_step_is_told(
    trigear: Callable[..., Said], tmp_path: Path, command: tuple[str, ...]
) -> None:
    said = trigear("certs", *command, "--dir", str(tmp_path))
    assert said.status == Status.NO
    assert "there is no authority here; `trigear certs init` makes one" in said.line


@pytest.mark.parametrize("name", ["a b", "acme/", "/alice", "acme/x/y", "acme/al ice"])
def test_who_cannot_be_a_user_gets_no_certificate(
    trigear: Callable[..., Said], folder: Path, name: str
) -> None:
    said = trigear("certs", "client", name, "--dir", str(folder))
    assert (said.status, "is no user: write TENANT/NAME" in said.line) == (Status.USAGE, True)


def test_a_name_that_no_server_can_have_is_refused(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    said = trigear("certs", "init", "a b", "--dir", str(tmp_path / "c"))
    assert (said.status, "neither a host name nor an IP" in said.line) == (Status.USAGE, True)
    assert not (tmp_path / "c").exists()


def test_what_is_revoked_stays_revoked(trigear: Callable[..., Said], folder: Path) -> None:
    place = ("--dir", str(folder))
    said = trigear("certs", "revoke", "alice.pem", *place)
    assert (said.status, "say --yes" in said.line) == (Status.USAGE, True)
    assert not (folder / "crl.pem").exists()
    said = trigear("certs", "revoke", "alice.pem", "--yes", *place)
    assert "revoked: 1, altogether 1" in said.line
    crl = ("-crl_check", "-CRLfile", str(folder / "crl.pem"))
    assert not verified(folder, "alice.pem", options=crl)
    assert verified(folder, "server.pem", options=crl)
    # A list only for its date, and one with a certificate that is in it already.
    for files in (), (str(folder / "alice.pem"),):
        said = trigear("certs", "revoke", *files, *place)
        assert "revoked: 0, altogether 1" in said.line
    assert not verified(folder, "alice.pem", options=crl)
    made = x509.load_pem_x509_crl((folder / "crl.pem").read_bytes())
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3


def test_who_revokes_at_the_same_time_is_waited_for_and_not_forgotten(
    trigear: Callable[..., Said], folder: Path
) -> None:
    place = ("--dir", str(folder))
    trigear("certs", "client", "acme/bob", *place)
    words = [*TRIGEAR, "certs", "revoke", "bob.pem", "--yes", *place]
    with replacing.locked(str(folder / "crl.pem")):
        other = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        # It has read whatever it reads before it waits: it holds the lock's file open.
        wait_until(lambda: waits_for(other.pid, folder / "crl.pem.lock"))
        pem = folder / "crl.pem"
        made = trigear_list(folder, "alice.pem")
        replacing.replace(str(pem), made, mode=0o644)
    _, said = other.communicate(timeout=PATIENCE)
    assert "revoked: 1, altogether 2" in said


def waits_for(pid: int, lock: Path) -> bool:
    """Whether a process has a file open."""
    links = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(OSError):
        return any(os.path.realpath(link) == str(lock) for link in links.iterdir())
    return False


def trigear_list(folder: Path, file: str) -> bytes:
    """A revocation list with one certificate in it."""
    now = datetime.datetime.now(datetime.UTC)
    authority = issuing.read_authority(folder / "ca.pem", folder / "ca-key.pem")
    entry = issuing.revoked(issuing.read_certificate(folder / file), now)
    return issuing.revocation_list(authority, [entry], 1, now, 10)


def test_what_cannot_be_revoked_is_named(
    trigear: Callable[..., Said], folder: Path, tmp_path: Path
) -> None:
    strange, _ = Authority("them").client().write(tmp_path, "strange")
    for file, says in (
        ("nobody.pem", "there is no such file, neither here nor in"),
        (strange, "it is not by the authority in"),
        (str(folder / "alice-key.pem"), "there is no certificate in it"),
    ):
        said = trigear("certs", "revoke", file, "--yes", "--dir", str(folder))
        assert (said.status != Status.DONE, says in said.line) == (True, True)
    (folder / "crl.pem").write_text("no")
    said = trigear("certs", "revoke", "--dir", str(folder))
    assert "it is no revocation list" in said.line


def test_certificates_are_shown(trigear: Callable[..., Said], folder: Path) -> None:
    trigear("certs", "revoke", "--dir", str(folder))
    said = trigear("certs", "show", "--dir", str(folder), "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [(Path(row["file"]).name, row["purpose"], row["names"]) for row in rows] == [
        ("alice.pem", "client", ["trigear://acme/alice"]),
        ("ca.pem", "authority", []),
        ("server.pem", "server", ["localhost", "127.0.0.1", "::1"]),
    ]
    assert rows[0]["subject"] == "CN=alice"
    assert len(rows[0]["sha256"]) == 64
    assert said.status == Status.DONE


def test_certificates_that_end_are_remarked_upon(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    authority = Authority("them")
    authority.server(begins=-3 * DAY, expires=-DAY).write(tmp_path, "a")
    said = trigear("certs", "show", "--dir", str(tmp_path))
    assert (said.status, "a.pem: it has expired" in said.err) == (Status.NO, True)
    authority.issue("any", expires=3 * DAY + DAY / 2).write(tmp_path, "a")
    said = trigear("certs", "show", "--dir", str(tmp_path))
    assert (said.status, "a.pem: it expires in 3 days" in said.err) == (Status.DONE, True)
    assert "\tany\t" in said.out
    # The list as well: once it has ended the server lets in nobody with a certificate.
    crl = tmp_path / "crl.pem"
    for end, words in ((-DAY, "it has expired"), (3 * DAY + DAY / 2, "it expires in 3 days")):
        crl.write_bytes(authority.crl(expires=end))
        said = trigear("certs", "show", "--dir", str(tmp_path))
        assert said.status == (Status.NO if end < 0 * DAY else Status.DONE)
        assert f"{crl}: {words}; `trigear certs revoke` makes a new one" in said.err
    assert trigear("certs", "show", "a.pem", "--dir", str(tmp_path)).err.count("crl.pem") == 0


def test_the_usual_folder_is_beside_the_users(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(logins, "SYSTEM", str(tmp_path / "system"))
    assert trigear("certs", "show").status == Status.DONE
    assert trigear("certs", "init").status == Status.DONE
    assert (tmp_path / "trigear" / "certs" / "server.pem").exists()


@pytest.mark.slow
def test_a_server_knows_a_user_by_the_certificate_until_it_is_revoked(
    trigear: Callable[..., Said], start: Callable[..., Running], folder: Path, tmp_path: Path
) -> None:
    users = ("--users", str(tmp_path / "users.toml"))
    trigear("user", "add", "alice", "--tenant", "acme", "--no-password", *users)
    trigear("certs", "revoke", "--dir", str(folder))
    server = start(
        *(*TRIGEAR, "server", "--store", "memory", "--listen", "gearmans://127.0.0.1:0"),
        *("--auth", "mtls", *users, "--client-certs", "required"),
        *("--cert", str(folder / "server.pem"), "--key", str(folder / "server-key.pem")),
        *("--client-ca", str(folder / "ca.pem"), "--crl", str(folder / "crl.pem")),
    )
    port = int(server.address.rpartition(":")[2])
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(folder / "alice.pem", folder / "alice-key.pem")

    def whoami() -> bytes:
        with (
            socket.create_connection(("127.0.0.1", port), PATIENCE) as link,
            context.wrap_socket(link, server_hostname="127.0.0.1") as secure,
        ):
            secure.sendall(WHOAMI)
            return secure.recv(1000)

    assert whoami().startswith(b"OK acme/alice acme ")
    trigear("certs", "revoke", "alice.pem", "--yes", "--dir", str(folder))
    server.send(signal.SIGHUP)
    assert "certificates read" in server.read_until("SIGHUP: ")
    with pytest.raises(ssl.SSLError, match="revoked"):
        whoami()
