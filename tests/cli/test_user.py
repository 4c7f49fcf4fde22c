"""`trigear user` and `trigear auth`: the file of users, edited and asked."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from tests.cli.talking import Terminal
from tests.security.certificates import CLIENT, Authority
from trigear.cli import logins
from trigear.cli.report import Status
from trigear.security import users_file, x509id
from trigear.security.policy import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the users are, of whom there is none yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(logins, "SYSTEM", str(tmp_path / "system"))
    return tmp_path / "config" / "trigear" / "users.toml"


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file with a password."""
    file = tmp_path / "password"
    file.write_text("pencil\n")
    return file


def test_user_is_added_with_a_password_that_is_shown_once(
    place: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    said = trigear("user", "add", "alice", "--tenant", "acme", "--role", "submit", "--submit", "f*")
    assert said.status == Status.DONE
    assert "added 'alice'" in said.err
    password = tmp_path / "made"
    password.write_text(said.out)
    assert len(said.out.strip()) >= 27
    assert said.out.strip() not in place.read_text()
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert trigear("user", "verify", "alice", "--password-file", str(password)).status == 0
    user = users_file.load(str(place)).get("alice")
    assert user is not None
    assert (user.tenant, user.roles, user.submit.globs) == ("acme", {Role.SUBMIT}, ("f*",))


def test_password_from_a_file_is_not_shown(
    place: Path, secret: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    file = ["--password-file", str(secret)]
    said = trigear("user", "add", "alice", *file)
    assert (said.out, "no role yet" in said.err) == ("", True)
    assert trigear("user", "verify", "alice", *file).status == 0
    secret.write_text("other")
    assert trigear("user", "verify", "alice", *file).status == Status.NO
    assert "there is such a user already" in trigear("user", "add", "alice").line
    assert trigear("user", "verify", "alice").status == Status.USAGE


def test_another_password_leaves_the_old_one_good_for_a_while(
    place: Path, secret: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    trigear("user", "add", "alice", "--password-file", str(secret))
    new = tmp_path / "new"
    new.write_text("pen")
    said = trigear("user", "passwd", "alice", "--overlap", "1h", "--password-file", str(new))
    assert said.status == Status.DONE
    for file in (secret, new):
        assert trigear("user", "verify", "alice", "--password-file", str(file)).status == 0
    trigear("user", "passwd", "alice", "--password-file", str(new))
    assert trigear("user", "verify", "alice", "--password-file", str(secret)).status == 1


def test_users_are_listed_shown_shut_out_and_removed(
    place: Path, trigear: Callable[..., Said]
) -> None:
    who = ["--uid", "1001", "--cert", "cn:bob", "--no-password"]
    trigear("user", "add", "bob", "--role", "work", "--role", "admin", *who)
    row = {"name": "bob", "tenant": "default", "roles": "work admin", "state": "in force"}
    assert json.loads(trigear("user", "list", "--json").out) == row
    shown = trigear("user", "show", "bob").out
    assert "password\tnone" in shown
    assert "certs\tcn:bob" in shown
    assert trigear("user", "disable", "bob").status == 0
    assert "shut out" in trigear("user", "list").out
    assert trigear("user", "enable", "bob").status == 0
    assert "in force" in trigear("user", "show", "bob").out
    assert trigear("user", "remove", "bob").status == Status.USAGE
    assert trigear("user", "remove", "bob", "--yes").status == 0
    assert trigear("user", "list").out == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["list"], "there is no user yet; add one with `trigear user add NAME`"),
        (["disable", "x"], "there is no user yet"),
        (["add", "a/b"], "'a/b' is no name"),
        (["add", "x", "--no-password", "--ask"], "contradict each other"),
        (["add", "x", "--ask"], "there is no terminal to ask on"),
    ],
)
def test_what_cannot_be_is_one_line(
    args: list[str], words: str, place: Path, trigear: Callable[..., Said]
) -> None:
    said = trigear("user", *args)
    assert said.status != 0
    assert words in said.line


def test_file_may_be_named_and_others_may_not_read_it(
    place: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    file = tmp_path / "u.toml"
    trigear("user", "add", "alice", "--no-password", "--role", "submit", "--users", str(file))
    assert "alice" in trigear("user", "list", "--users", str(file)).out
    assert "no user 'x'" in trigear("user", "show", "x", "--users", str(file)).line
    os.chmod(file, 0o644)
    assert "chmod 600" in trigear("user", "list", "--users", str(file)).line
    assert not place.exists()


def test_empty_password_is_none(place: Path, trigear: Callable[..., Said], secret: Path) -> None:
    secret.write_text("\n")
    said = trigear("user", "add", "alice", "--password-file", str(secret))
    assert "this is no password" in said.line
    assert not place.exists()


@pytest.mark.slow
def test_terminal_is_asked_twice_and_shows_nothing(place: Path) -> None:
    terminal = Terminal("user", "add", "alice", "--ask")
    try:
        terminal.read_until("Password:")
        terminal.type("pencil\n")
        terminal.read_until("Repeat")
        terminal.type("pencil\n")
        assert terminal.wait() == 0
        assert "pencil" not in terminal.seen
    finally:
        terminal.close()
    assert users_file.load(str(place)).get("alice") is not None


def test_rights_are_explained(place: Path, trigear: Callable[..., Said]) -> None:
    trigear("user", "add", "alice", "--role", "submit", "--submit", "mail.*", "--no-password")
    said = trigear("auth", "explain", "alice", "submit", "mail.send")
    assert (said.status, said.out.startswith("allowed: ")) == (0, True)
    said = trigear("auth", "explain", "alice", "submit", "resize")
    assert (said.status, said.out.startswith("refused: ")) == (Status.NO, True)


def test_check_says_what_is_odd_and_which_tenants_are_not_declared(
    place: Path, secret: Path, trigear: Callable[..., Said]
) -> None:
    for name, tenant in (("alice", "acme"), ("bob", "acne"), ("carl", "other"), ("dora", "other")):
        given = ("--tenant", tenant, "--role", "submit", "--password-file", str(secret))
        assert trigear("user", "add", name, *given).status == 0
    assert trigear("tenant", "add", "acme").status == 0
    said = trigear("user", "check")
    assert said.status == Status.DONE
    has_none = "is not declared, and so has no quotas;"
    assert said.out.splitlines() == [
        f"bob: the tenant acne {has_none} did you mean acme?",
        f"carl, dora: the tenant other {has_none} run: trigear tenant add other",
    ]
    assert said.line == f"trigear: good: 4 users in {place}, 2 remarks"
    for tenant in ("acne", "other"):
        assert trigear("tenant", "add", tenant).status == 0
    said = trigear("user", "check", "--json")
    assert (said.out, said.line) == ("", f"trigear: good: 4 users in {place}")
    assert trigear("user", "add", "eve", "--tenant", "acme", "--no-password").status == 0
    said = trigear("user", "check", "--json")
    assert "eve: can log in only by a certificate" in json.loads(said.out)["remark"]
    place.write_text("version = 1\n[users.alice]\nrole = 1\n")
    assert trigear("user", "check").status == Status.USAGE


def test_a_certificate_is_bound_by_a_name_or_by_its_fingerprint(
    place: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    trigear("user", "add", "alice", "--tenant", "acme", "--no-password")
    authority = Authority()
    issued = authority.issue("alice.example", usage=[CLIENT])
    file, _ = issued.write(tmp_path, "alice")
    bind = ("user", "cert-bind", "alice", "--cert", file)
    assert "'alice' is known by cn:alice.example; " in trigear(*bind).line
    assert "already" in trigear(*bind).line
    assert trigear(*bind, "--pin").status == Status.DONE
    user = users_file.load(str(place)).get("alice")
    assert user is not None
    assert user.certificates == (
        "cn:alice.example",
        f"sha256:{x509id.read(issued.der).fingerprint}",
    )
    # Nobody else can be known by it.
    trigear("user", "add", "bob", "--no-password")
    said = trigear("user", "cert-bind", "bob", "--cert", file)
    assert said.status != Status.DONE
    bob = users_file.load(str(place)).get("bob")
    assert bob is not None
    assert bob.certificates == ()


def test_a_certificate_that_names_a_user_itself_is_nobody_elses(
    place: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    for name in "alice", "bob":
        trigear("user", "add", name, "--tenant", "acme", "--no-password")
    uri = x509.UniformResourceIdentifier("trigear://acme/alice")
    file, _ = Authority().issue("x", names=[uri], usage=[CLIENT]).write(tmp_path, "alice")
    assert "nothing to do" in trigear("user", "cert-bind", "alice", "--cert", file).line
    said = trigear("user", "cert-bind", "bob", "--cert", file, "--pin")
    assert (said.status, "names somebody else" in said.line) == (Status.NO, True)


def test_what_cannot_be_bound_is_told(
    place: Path, trigear: Callable[..., Said], tmp_path: Path
) -> None:
    trigear("user", "add", "alice", "--no-password")
    authority = Authority()
    server, _ = authority.server().write(tmp_path, "server")
    nameless, _ = authority.issue(usage=[CLIENT]).write(tmp_path, "nameless")
    for file, says in ((server, "it is not for clients"), (nameless, "no name in it; --pin")):
        said = trigear("user", "cert-bind", "alice", "--cert", file)
        assert (said.status, says in said.line) == (Status.NO, True)
    assert trigear("user", "cert-bind", "eve", "--cert", nameless).status == Status.NO
