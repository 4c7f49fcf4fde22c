"""Development certificates hold in a real TLS handshake under strict verification, both ways."""

from __future__ import annotations

import runpy
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

SCRIPT = Path(__file__).parent.parent / "certs-dev" / "make_certs.py"


@pytest.fixture(scope="module")
def main() -> Callable[[list[str]], int]:
    made: Callable[[list[str]], int] = runpy.run_path(str(SCRIPT))["main"]
    return made


@pytest.fixture(scope="module")
def certs(main: Callable[[list[str]], int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    assert main(["--out", str(folder), "--client", "alice"]) == 0
    return folder


def context(folder: Path, *, server: bool, identity: str | None) -> ssl.SSLContext:
    """Verifies the other side against ca.pem as strictly as OpenSSL can."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(folder / "ca.pem")
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.verify_mode = ssl.CERT_REQUIRED
    if identity is not None:
        made.load_cert_chain(folder / f"{identity}.pem", folder / f"{identity}-key.pem")
    return made


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, server_hostname: str
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Both ends after a handshake in memory; raises what the side that refuses raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname=server_hostname),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    waiting = list(ends)
    while waiting:
        for end in list(waiting):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(end)
    return ends


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_both_sides_accept_each_other_and_talk(certs: Path, name: str) -> None:
    client, server = handshake(
        context(certs, server=True, identity="server"),
        context(certs, server=False, identity="client"),
        name,
    )
    seen = server.getpeercert()
    assert seen is not None
    assert seen["subjectAltName"] == (("DNS", "alice"),)
    client.write(b"there")
    assert server.read() == b"there"
    server.write(b"and back")
    assert client.read() == b"and back"


@pytest.mark.parametrize(
    ("server_identity", "client_identity", "name", "complaint"),
    [
        ("server", "client", "elsewhere.example", "Hostname mismatch"),
        ("client", "client", "alice", "unsuitable certificate purpose|unsupported certificate"),
        ("server", "server", "localhost", "unsuitable certificate purpose|unsupported certificate"),
        ("server", None, "localhost", "peer did not return a certificate"),
    ],
    ids=["wrong name", "client as server", "server as client", "no client certificate"],
)
def test_certificates_hold_only_for_what_they_are_for(
    certs: Path, server_identity: str, client_identity: str | None, name: str, complaint: str
) -> None:
    with pytest.raises(ssl.SSLError, match=complaint):
        handshake(
            context(certs, server=True, identity=server_identity),
            context(certs, server=False, identity=client_identity),
            name,
        )


def test_another_authority_is_not_trusted(
    main: Callable[[list[str]], int], certs: Path, tmp_path: Path
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            context(certs, server=True, identity="server"),
            context(tmp_path, server=False, identity="client"),
            "localhost",
        )


def test_keys_are_readable_by_their_owner_only(certs: Path) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in certs.glob("*-key.pem")}
    assert modes == {"ca-key.pem": 0o600, "server-key.pem": 0o600, "client-key.pem": 0o600}


def test_names_and_days_are_taken_from_the_command_line(
    main: Callable[[list[str]], int], tmp_path: Path
) -> None:
    given = ["-n", "jobs.example", "-n", "192.0.2.7", "--days", "3"]
    assert main([*given, "--out", str(tmp_path / "made" / "here")]) == 0
    for name in ("jobs.example", "192.0.2.7"):
        handshake(
            context(tmp_path / "made" / "here", server=True, identity="server"),
            context(tmp_path / "made" / "here", server=False, identity="client"),
            name,
        )


def test_nothing_is_overwritten_without_force(
    main: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(["--out", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert main(["--out", str(tmp_path), "--force"]) == 0
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] != before[name] for name in before)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--days", "0"], "--days 0"),
        (["--name", "two words"], "two words"),
        (["--name", ""], "neither"),
        (["--client", "härbert"], "xn--"),
    ],
)
def test_bad_arguments_end_with_a_usage_line(
    main: Callable[[list[str]], int],
    arguments: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path)])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_line(
    main: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main(["--out", str(tmp_path / "file" / "folder")]) == 1
    assert "Not a directory" in capsys.readouterr().err


def test_help_names_every_option() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True
    )
    for option in ("--name", "--client", "--days", "--out", "--force"):
        assert option in done.stdout
