"""How commands are told to speak TLS and to log in: options, environment, contexts, files."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import click
import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from trigear.cli import access, connecting, contexts
from trigear.cli.access import Access, merged, read_password
from trigear.cli.worker_plan import WorkerPlan
from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said

SECRET = "correct horse"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(contexts, "SYSTEM", str(tmp_path / "no-system"))
    return tmp_path


@pytest.fixture
def password(tmp_path: Path) -> Path:
    place = tmp_path / "password"
    place.write_text(SECRET + "\n")
    place.chmod(0o600)
    return place


def chosen(given: Access, **options: object) -> Access:
    named: dict[str, object] = {"server": (), "host": None, "port": None, "context": None}
    return connecting.choose(**(named | options), given=given).access  # type: ignore[arg-type]


# Which wins


def test_options_win_over_the_context_and_the_environment_over_the_one_in_use(
    folder: Path, trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--ca", "ca.pem", "--user", "ann", "--password-file", "pw"]
    said = trigear("context", "add", "live", "gearmans://jobs.example", *words, "--use")
    assert said.line == (
        "trigear: context 'live' is gearmans://jobs.example, with TLS, as 'ann'; in use"
    )
    here = os.getcwd()
    kept = Access(ca=f"{here}/ca.pem", user="ann", password_file=f"{here}/pw")
    assert chosen(Access()) == kept
    assert chosen(Access(), server=("other",)) == Access()
    assert chosen(Access(user="bob")) == Access(ca=kept.ca, user="bob")
    assert chosen(Access(password_file="mine")).password_file == "mine"
    monkeypatch.setenv("TRIGEAR_USER", "env")
    monkeypatch.setenv("TRIGEAR_PASSWORD_FILE", "/env")
    assert chosen(Access()) == Access(ca=kept.ca, user="env", password_file="/env")
    assert chosen(Access(), context="live") == kept
    assert chosen(Access(), server=("other",)) == Access(user="env", password_file="/env")
    assert chosen(Access(user="bob")) == Access(ca=kept.ca, user="bob")


def test_certificate_and_key_come_from_one_place() -> None:
    context = Access(cert="a", key="b", insecure=True)
    assert merged([Access(cert="mine"), context]) == Access(cert="mine", insecure=True)
    assert merged([Access(), context]) == context


def test_password_without_a_user_is_a_mistake() -> None:
    with pytest.raises(click.UsageError, match="no user: name one with --user, or with TRIGEAR"):
        merged([Access(password_file="pw")])


def test_context_keeps_all_of_it_and_lists_it(folder: Path, trigear: Callable[..., Said]) -> None:
    options = ["--tls", "--cert", "c.pem", "--key", "k.pem", "--insecure-no-verify", "--user", "x"]
    said = trigear("context", "add", "a", "jobs", *options)
    assert "with TLS without verifying who answers, as 'x'" in said.line
    text = (folder / "config" / "trigear" / contexts.NAME).read_text()
    assert "insecure-no-verify = true\n" in text
    assert f'cert = "{os.getcwd()}/c.pem"\n' in text
    assert trigear("context", "list").out == "\ta\tjobs\ttls\tx\n"
    trigear("context", "add", "a", "jobs", "--replace", "--user", "y")
    assert contexts.read().accesses["a"] == Access(user="y")
    said = trigear("context", "add", "b", "jobs", "--password-file", "pw")
    assert said.status == 2
    assert "whose password?" in said.line


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("tls = 1", "[context.a] tls: is neither true nor false"),
        ("user = 5", "[context.a] user: is no text"),
        ('ca = ""', "[context.a] ca: is no text"),
        ('password = "secret"', "[context.a] password: this version does not know"),
    ],
)
def test_context_that_makes_no_sense_is_refused(folder: Path, line: str, complaint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        contexts.checked("f", f'[context.a]\nservers = ["x"]\n{line}\n'.encode())
    assert complaint in str(raised.value)


def test_paths_in_a_file_begin_where_the_file_is(folder: Path) -> None:
    text = b'[context.a]\nservers = ["x"]\nca = "ca.pem"\ncert = "/c.pem"\nkey = "k"\n'
    found = contexts.checked("/etc/trigear/contexts.toml", text).accesses["a"]
    assert found == Access(ca="/etc/trigear/ca.pem", cert="/c.pem", key="/etc/trigear/k")


# Files and passwords


def test_password_is_all_that_is_in_its_file(password: Path) -> None:
    assert read_password(str(password)) == SECRET.encode()
    password.write_bytes(b" \xff \r\n")
    assert read_password(str(password)) == b" \xff "


@pytest.mark.parametrize(
    ("mode", "text", "complaint"),
    [
        (0o640, "x", "others may get at it (mode 0640); run: chmod 600 "),
        (0o604, "x", "others may get at it (mode 0604)"),
        (0o620, "x", "others may get at it (mode 0620)"),
        (0o600, "", "it is empty; the password is all that is to be in it"),
        (0o600, "\n", "it is empty"),
        (0o600, "x" * 1025, "it is longer than 1024 bytes"),
    ],
)
def test_password_that_others_can_read_is_none(
    password: Path, mode: int, text: str, complaint: str
) -> None:
    password.write_text(text)
    password.chmod(mode)
    with pytest.raises(ConfigError) as raised:
        read_password(str(password))
    assert complaint in str(raised.value)
    assert str(raised.value).startswith(f"--password-file: {password}: ")


def test_credential_of_a_service_manager_is_good(as_root: None, password: Path) -> None:
    os.chown(password, 0, 0)
    password.chmod(0o440)
    assert read_password(str(password)) == SECRET.encode()
    os.chown(password, 0, 12345)
    with pytest.raises(ConfigError, match="others may get at it"):
        read_password(str(password))


def test_password_file_that_is_not_there_or_somebody_elses(
    password: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="it cannot be read: No such file"):
        read_password(f"{password}.not")
    if os.geteuid() == 0:
        os.chown(password, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="it belongs to somebody else"):
        read_password(str(password))


def test_password_is_read_once_and_shows_nowhere(password: Path) -> None:
    ours = Access(user="ann", password_file=str(password))
    auth = ours.auth()
    password.unlink()
    assert ours.auth() is auth
    assert SECRET not in repr(ours) + repr(auth)
    assert SECRET not in repr(WorkerPlan(("x",), "/", password=SECRET))


def test_certificate_is_a_login_where_no_password_is_named() -> None:
    ours = Access(user="ann", cert="c", key="k")
    auth = ours.auth()
    assert auth is not None
    assert (auth.has_password, auth.external, auth.authzid) == (False, True, "ann")
    assert Access(cert="c", key="k").auth() is None


def test_certificate_without_its_key_is_refused(trigear: Callable[..., Said]) -> None:
    for there, missing in (("cert", "key"), ("key", "cert")):
        said = trigear("admin", "status", "--server", "127.0.0.1:1", f"--{there}", "x.pem")
        assert said.status == 2
        assert said.line.endswith(f"--{there}: x.pem alone is of no use; add --{missing} FILE")


def test_insecure_tls_says_what_it_is_even_when_all_is_to_be_quiet(
    trigear: Callable[..., Said],
) -> None:
    said = trigear("admin", "status", "--quiet", "--insecure-no-verify", "--server", "127.0.0.1:1")
    first, second = said.err.splitlines()
    assert first == f"trigear: {access.INSECURE}"
    assert "no server at 127.0.0.1:1" in second


def test_password_is_not_asked_for_without_a_terminal() -> None:
    done = subprocess.run(
        [*TRIGEAR, "admin", "status", "--server", "127.0.0.1:1", "--user", "ann"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        start_new_session=True,
    )
    assert done.returncode == 2
    assert "no password for 'ann', and no terminal to ask on: name a file with" in done.stderr


def test_tls_inside_another_root_needs_its_authorities(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    args = ["worker", "--allow-root", "--chroot", str(tmp_path), "-f", "x"]
    said = trigear(*args, "--server", "gearmans://jobs.example")
    assert said.status == 2
    assert "TLS inside another root needs --ca FILE" in said.line
