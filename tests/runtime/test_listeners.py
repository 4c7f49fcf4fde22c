"""Binding: which addresses, what stays behind, and what is said when it does not work."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trigear.engine.config import ServerConfig
from trigear.errors import ConfigError
from trigear.runtime.listeners import address_text, bind, peer_text, unlink_unix

if TYPE_CHECKING:
    from collections.abc import Iterator

NOWHERE = "192.0.2.1"
"""An address that is kept for documentation: no machine has it."""


@pytest.fixture
def bound() -> Iterator[list[socket.socket]]:
    """Sockets that are closed after the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def listen(*addresses: str, port: int = 0) -> list[socket.socket]:
    return bind(ServerConfig(listen=addresses, port=port))


def refusal(*addresses: str) -> str:
    """The one line that is said of these addresses."""
    with pytest.raises(ConfigError) as caught:
        listen(*addresses)
    text = str(caught.value)
    assert "\n" not in text
    return text


def port_of(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def connects(sock: socket.socket) -> bool:
    with socket.socket(sock.family) as probe:
        try:
            probe.connect(sock.getsockname())
        except OSError:
            return False
        return True


# TCP


def test_a_name_is_bound_on_all_its_addresses_that_this_machine_has(
    bound: list[socket.socket],
) -> None:
    bound += listen("localhost")
    assert {sock.getsockname()[0] for sock in bound} <= {"127.0.0.1", "::1"}
    for sock in bound:
        assert connects(sock)
        assert not sock.getblocking()


def test_several_addresses_are_bound(bound: list[socket.socket]) -> None:
    bound += listen("127.0.0.1", "127.0.0.2:0", "[::1]:0")
    assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1", "127.0.0.2", "::1"]
    assert all(map(connects, bound))


def test_ipv6_leaves_ipv4_alone(bound: list[socket.socket]) -> None:
    bound += listen("[::]:0")
    (six,) = bound
    assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    bound += listen(f"0.0.0.0:{six.getsockname()[1]}")


def test_an_address_in_use_is_named(bound: list[socket.socket]) -> None:
    bound += listen("127.0.0.1")
    address = f"127.0.0.1:{port_of(bound[0])}"
    assert refusal(address) == (
        f"listen {address}: address already in use; "
        "another server listens there: stop it, or choose another port"
    )


def test_an_address_that_was_in_use_a_moment_ago_can_be_bound(bound: list[socket.socket]) -> None:
    """A connection that the server closed first leaves the address occupied for minutes."""
    (listener,) = listen("127.0.0.1")
    where = listener.getsockname()
    with socket.create_connection(where):
        accepted, _ = listener.accept()
        accepted.close()
        listener.close()
        bound += listen(f"127.0.0.1:{where[1]}")


def test_an_address_of_another_machine_is_refused() -> None:
    assert refusal(f"{NOWHERE}:0") == (
        f"listen {NOWHERE}:0: cannot assign requested address; this machine has no such address"
    )


def test_a_name_that_nobody_knows_is_refused() -> None:
    text = refusal("no-such-host.invalid:0")
    assert text.startswith(
        "listen no-such-host.invalid:0: 'no-such-host.invalid' cannot be resolved"
    )


def test_what_is_no_address_is_refused() -> None:
    assert refusal("a:b:c").startswith("listen: 'a:b:c' has too many colons")


def test_nothing_stays_bound_when_one_address_cannot_be_used(
    bound: list[socket.socket], tmp_path: Path
) -> None:
    (free,) = listen("127.0.0.1")
    port = free.getsockname()[1]
    free.close()
    refusal(f"127.0.0.1:{port}", f"{NOWHERE}:0")
    bound += listen(f"127.0.0.1:{port}")


def found(*hosts: str) -> list[tuple[object, ...]]:
    return [
        (
            socket.AF_INET6 if ":" in host else socket.AF_INET,
            socket.SOCK_STREAM,
            0,
            "",
            (host, 0, 0, 0) if ":" in host else (host, 0),
        )
        for host in hosts
    ]


def test_addresses_of_a_name_that_this_machine_does_not_have_are_left_out(
    bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names often stand for an IPv6 address too, on machines without IPv6."""
    names = found("127.0.0.1", NOWHERE, "2001:db8::1", "127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: names)
    bound += listen("name")
    assert [sock.getsockname()[0] for sock in bound] == ["127.0.0.1"]
    names[:] = found(NOWHERE, "2001:db8::1")
    assert "this machine has no such address" in refusal("name")


def test_a_name_of_which_one_address_is_in_use_is_not_bound_at_all(
    bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    bound += listen("127.0.0.1")
    used = bound[0].getsockname()
    (free,) = listen("127.0.0.2")
    other = free.getsockname()
    free.close()
    names = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", where) for where in (other, used)]
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: names)
        assert "address already in use" in refusal("name")
    bound += listen(f"127.0.0.2:{other[1]}")


def test_a_family_that_the_system_lacks_is_an_address_that_is_not_there(
    bound: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [(9999, socket.SOCK_STREAM, 0, "", ("x", 0)), *found("127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: names)
    bound += listen("name")
    assert len(bound) == 1


# Unix sockets


def test_a_unix_socket_is_for_its_user_and_group(
    bound: list[socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "jobs.sock"
    before = os.umask(0)
    os.umask(before)
    bound += listen(f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert os.umask(before) == before
    assert connects(bound[0])


def test_the_socket_of_a_server_that_died_goes(bound: list[socket.socket], tmp_path: Path) -> None:
    path = tmp_path / "jobs.sock"
    (dead,) = listen(f"unix:{path}")
    dead.close()
    assert path.exists()
    bound += listen(f"unix:{path}")
    assert connects(bound[0])


def test_the_socket_of_a_server_that_lives_stays(
    bound: list[socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "jobs.sock"
    bound += listen(f"unix:{path}")
    assert refusal(f"unix:{path}") == (
        f"listen unix:{path}: another server listens there; stop it, or choose another path"
    )
    assert connects(bound[0])


def test_the_socket_of_a_server_that_lives_and_is_busy_stays(tmp_path: Path) -> None:
    """One whose backlog is full answers nobody; it is asked without waiting."""
    path = tmp_path / "jobs.sock"
    (listener,) = bind(ServerConfig(listen=(f"unix:{path}",), backlog=0))
    with listener, socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(path))
        assert refusal(f"unix:{path}").startswith(f"listen unix:{path}: ")
        assert path.exists()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    assert refusal(f"unix:{path}") == (
        f"listen unix:{path}: a file is there that is no socket; choose another path"
    )
    assert path.read_text() == "data"


def test_a_path_that_cannot_be_is_refused(tmp_path: Path) -> None:
    assert refusal(f"unix:{tmp_path}/none/jobs.sock") == (
        f"listen unix:{tmp_path}/none/jobs.sock: no such file or directory"
    )
    (tmp_path / "file").write_text("")
    assert refusal(f"unix:{tmp_path}/file/jobs.sock") == (
        f"listen unix:{tmp_path}/file/jobs.sock: not a directory"
    )


def test_the_files_of_unix_sockets_are_removed_before_they_close(
    bound: list[socket.socket], tmp_path: Path
) -> None:
    paths = [tmp_path / name for name in ("one", "two", "three")]
    bound += listen(*(f"unix:{path}" for path in paths), "127.0.0.1")
    paths[1].unlink()
    bound[2].close()
    unlink_unix(bound)
    assert [path.exists() for path in paths] == [False, False, True]
    with socket.socket(socket.AF_UNIX) as nameless:
        unlink_unix([nameless])


# What a user without privileges may


PROGRAM = """
import encodings.idna, os, sys
from trigear.engine.config import ServerConfig
from trigear.errors import ConfigError
from trigear.runtime.listeners import bind
if os.geteuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
try:
    bind(ServerConfig(listen=(sys.argv[1],)))
except ConfigError as error:
    print(error)
"""


def as_nobody(address: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, address], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_port_of_the_system_needs_privileges() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    assert as_nobody("127.0.0.1:1") == (
        "listen 127.0.0.1:1: permission denied; "
        "ports below 1024 need root: start as root and give --run-as USER\n"
        if first > 1
        else ""  # this system lets everybody have them
    )


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "closed"
    directory.mkdir(mode=0o000)
    path = f"unix:{directory}/jobs.sock"
    assert as_nobody(path) == f"listen {path}: permission denied\n"


# Texts


def test_what_a_socket_is_called(bound: list[socket.socket], tmp_path: Path) -> None:
    bound += listen("127.0.0.1", "[::1]:0", f"unix:{tmp_path}/jobs.sock")
    four, six, unix = map(address_text, bound)
    assert four == f"127.0.0.1:{port_of(bound[0])}"
    assert six == f"[::1]:{port_of(bound[1])}"
    assert unix == f"unix:{tmp_path}/jobs.sock"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("10.0.0.1", 99), "10.0.0.1"),
        (("::1", 99, 0, 0), "::1"),
        ("", "-"),
        ("/run/x.sock", "-"),
        (b"\0abstract", "-"),
    ],
)
def test_what_a_peer_is_called(address: object, text: str) -> None:
    assert peer_text(address) == text
