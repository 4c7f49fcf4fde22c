"""`trigear tenant`: the tenants in trigear.toml, and the server that takes them over."""

from __future__ import annotations

import json
import os
import signal
import stat
import tomllib
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.cli.conftest import TRIGEAR
from tests.cli.talking import Terminal
from tests.cli.test_logins import as_user
from trigear.cli import afterwards, config_file, tenant_file
from trigear.cli.report import Status
from trigear.wire.codec import request
from trigear.wire.packets import SUBMIT_JOB_BG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Running, Said

NOBODY = "no server runs here: applies at the next start"

KEPT = """\
# Mine.
[server]
port = 4731  # not the usual one

# The good ones.
[tenant.acme]  # since 2026
max-queued-jobs = 5  # few
max_workers = 7

# Their mail.
[tenant.acme.function.mail]
timeout = "9s"

# Others.
[tenant.other]
"""


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the configuration is, of which there is none yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "trigear" / "trigear.toml"


@pytest.fixture
def kept(place: Path) -> Path:
    """A configuration that somebody cares for."""
    place.parent.mkdir(parents=True)
    place.write_text(KEPT)
    place.chmod(0o640)
    return place


def test_a_tenant_is_declared_in_a_new_file_that_is_nobody_elses(
    place: Path, trigear: Callable[..., Said]
) -> None:
    said = trigear("tenant", "add", "acme", "--max-queued-jobs", "5000", "--max-job-bytes", "1MiB")
    assert said.status == Status.DONE
    assert said.line == f"trigear: declared tenant 'acme' in {place}; {NOBODY}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert tomllib.loads(place.read_text()) == {
        "tenant": {"acme": {"max-queued-jobs": 5000, "max-job-bytes": "1MiB"}}
    }


def test_the_rest_of_the_file_stays_as_it_is(kept: Path, trigear: Callable[..., Said]) -> None:
    assert trigear("tenant", "add", "more", "--max-background-age", "7d").status == 0
    added = '\n[tenant.more]\nmax-background-age = "7d"\n'
    assert kept.read_text() == KEPT + added
    assert trigear("tenant", "remove", "more", "--yes").status == 0
    assert kept.read_text().rstrip("\n") == KEPT.rstrip("\n")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("words", "before", "after"),
    [
        (("max-queued-jobs", "9"), "max-queued-jobs = 5  # few", "max-queued-jobs = 9  # few"),
        (("max-workers", "0"), "max_workers = 7\n", "max_workers = 0\n"),
        (("max-workers", "default"), "max_workers = 7\n", ""),
        (
            ("max-job-bytes", "64KiB"),
            "max_workers = 7\n",
            'max_workers = 7\nmax-job-bytes = "64KiB"\n',
        ),
        (("max-job-bytes", "default"), "", ""),
    ],
)
def test_one_quota_changes_and_nothing_beside_it(
    kept: Path,
    trigear: Callable[..., Said],
    words: tuple[str, str],
    before: str,
    after: str,
) -> None:
    assert trigear("tenant", "set", "acme", *words).status == 0
    assert kept.read_text() == KEPT.replace(before, after, 1) if before else KEPT


def test_what_is_said_already_changes_nothing(kept: Path, trigear: Callable[..., Said]) -> None:
    said = trigear("tenant", "set", "acme", "max-queued-jobs", "5")
    assert said.line.endswith("; it said so already")
    assert kept.read_text() == KEPT


def test_a_tenant_of_which_only_functions_stand_there_gets_a_table(
    kept: Path, trigear: Callable[..., Said]
) -> None:
    kept.write_text('[tenant.acme.function.mail]\ntimeout = "9s"\n')
    assert trigear("tenant", "set", "acme", "max-workers", "3").status == 0
    assert tomllib.loads(kept.read_text())["tenant"]["acme"] == {
        "function": {"mail": {"timeout": "9s"}},
        "max-workers": 3,
    }


def test_a_tenant_is_removed_with_its_functions_and_the_comments_of_others_stay(
    kept: Path, trigear: Callable[..., Said]
) -> None:
    said = trigear("tenant", "remove", "acme", "--yes")
    what = "the quotas of tenant 'acme' and its settings of 1 function"
    assert said.line == f"trigear: removed {what} in {kept}; {NOBODY}"
    text = kept.read_text()
    assert tomllib.loads(text) == {"server": {"port": 4731}, "tenant": {"other": {}}}
    for comment in ("# Mine.", "# not the usual one", "# Others.\n[tenant.other]"):
        assert comment in text


def test_removing_asks_first(kept: Path, trigear: Callable[..., Said]) -> None:
    said = trigear("tenant", "remove", "acme")
    assert said.status == Status.USAGE
    assert "There is no terminal to ask on: say --yes" in said.line
    terminal = Terminal("tenant", "remove", "acme")
    try:
        terminal.read_until("[y/N]")
        terminal.type("n\n")
        assert terminal.wait() == Status.NO
    finally:
        terminal.close()
    assert kept.read_text() == KEPT


def test_a_dry_run_shows_the_difference(kept: Path, trigear: Callable[..., Said]) -> None:
    said = trigear("tenant", "set", "acme", "max-queued-jobs", "9", "--dry-run")
    assert said.line == "trigear: nothing was changed"
    assert "-max-queued-jobs = 5  # few\n+max-queued-jobs = 9  # few\n" in said.out
    said = trigear("tenant", "set", "acme", "max-queued-jobs", "5", "--dry-run")
    assert (said.out, said.line) == ("", "trigear: there is nothing to change")
    said = trigear("tenant", "remove", "acme", "--dry-run", "--json")
    assert json.loads(said.out) == {"tenant": "acme", "file": str(kept), "would_change": True}
    assert trigear("tenant", "add", "more", "--dry-run").out.endswith("+[tenant.more]\n")
    assert kept.read_text() == KEPT
    assert sorted(os.listdir(kept.parent)) == ["trigear.toml"]


def test_programs_are_told_in_json(place: Path, trigear: Callable[..., Said]) -> None:
    said = trigear("tenant", "add", "acme", "--json")
    assert json.loads(said.out) == {
        "tenant": "acme",
        "file": str(place),
        "changed": True,
        "then": NOBODY,
    }


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (("add", "acme"), Status.USAGE, "there is such a tenant already; change it with"),
        (("add", "a b"), Status.USAGE, "'a b' is no name"),
        (("add", "x", "--max-workers", "many"), Status.USAGE, "'many' is not a number of workers"),
        (("set", "acne", "max-workers", "1"), Status.NO, "did you mean 'acme'?"),
        (("set", "zzz", "max-workers", "1"), Status.NO, "`trigear tenant list` has all"),
        (("set", "acme", "max-work", "1"), Status.USAGE, "'max-work' is not one of"),
        (("set", "acme", "max-workers", "-1"), Status.USAGE, "No such option"),
        (("set", "acme", "max-workers", "x"), Status.USAGE, "max-workers: 'x' is not a number"),
        (("remove", "zzz", "--yes"), Status.NO, "there is no tenant 'zzz'"),
        (("show", "zzz"), Status.NO, "there is no tenant 'zzz'"),
    ],
)
def test_mistakes_are_named_and_change_nothing(
    kept: Path,
    trigear: Callable[..., Said],
    words: tuple[str, ...],
    status: Status,
    complaint: str,
) -> None:
    said = trigear("tenant", *words)
    assert said.status == status
    assert complaint in said.line
    assert kept.read_text() == KEPT


@pytest.mark.parametrize(
    ("text", "words", "complaint"),
    [
        ("tenant = { acme = {} }\n", ("add", "more"), "change it by hand"),
        ("[tenant]\nacme.max-workers = 3\n", ("remove", "acme", "--yes"), "change it by hand"),
        ("[tenant.acme\n", ("add", "more"), "is not TOML"),
        ("[tenant.acme]\nmax = 1\n", ("add", "more"), "no such setting"),
    ],
)
def test_a_file_that_is_written_otherwise_is_left_alone(
    kept: Path,
    trigear: Callable[..., Said],
    text: str,
    words: tuple[str, ...],
    complaint: str,
) -> None:
    kept.write_text(text)
    said = trigear("tenant", *words)
    assert said.status != 0
    assert complaint in said.line
    assert kept.read_text() == text


def test_what_looks_like_a_table_inside_of_a_text_is_none(
    kept: Path, trigear: Callable[..., Said]
) -> None:
    text = "x = '''\n[tenant.acme]\n[ \n'''\n[tenant.acme]\nmax-workers = 3\n"
    assert tenant_file.TenantFile(str(kept), text).tenants["acme"].quotas.max_workers == 3
    kept.write_text(text)
    said = trigear("tenant", "remove", "acme", "--yes")
    assert "change it by hand" in said.line
    assert kept.read_text() == text


def test_a_file_that_cannot_be_read_or_written_is_named(
    kept: Path, trigear: Callable[..., Said]
) -> None:
    kept.write_bytes(b"# \xff\n")
    assert "is not TOML" in trigear("tenant", "list").line
    assert "Is a directory; name another" in trigear("tenant", "list", "--config", "/").line
    folder = kept.parent / "file" / "below.toml"
    (kept.parent / "file").write_text("")
    said = trigear("tenant", "add", "acme", "--config", str(folder))
    assert "name another file with --config" in said.line


def test_tenants_are_listed_and_shown(kept: Path, trigear: Callable[..., Said]) -> None:
    rows = [json.loads(line) for line in trigear("tenant", "list", "--json").out.splitlines()]
    assert [row["tenant"] for row in rows] == ["acme", "other"]
    assert rows[0]["max_queued_jobs"] == 5
    assert rows[1]["max_queued_bytes"] == "256MiB"
    assert rows[1]["max_background_age"] == 0
    lines = trigear("tenant", "show", "acme").out.splitlines()
    assert "max-queued-jobs\t5\tfile" in lines
    assert "max-workers\t7\tfile" in lines
    assert "max-job-bytes\t16MiB\tdefault" in lines


def test_without_a_file_nothing_is_declared(place: Path, trigear: Callable[..., Said]) -> None:
    assert trigear("tenant", "list").out == ""
    assert not place.exists()


def test_the_place_of_a_new_file_is_the_persons_or_the_systems(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(config_file, "usual_place", lambda: None)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert tenant_file.usual_place() == "/etc/trigear/trigear.toml"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert tenant_file.usual_place() == "/home/ann/.config/trigear/trigear.toml"


# The server


@pytest.mark.parametrize("found_by", ["store", "pid file"])
def test_the_running_server_takes_the_change_over(
    place: Path,
    trigear: Callable[..., Said],
    start: Callable[..., Running],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    found_by: str,
) -> None:
    place.parent.mkdir(parents=True)
    if found_by == "store":
        place.write_text("[server]\nlisten = '127.0.0.1:0'\n")
    else:
        pid_file = tmp_path / "pid"
        place.write_text(
            f"[server]\nlisten = '127.0.0.1:0'\nstore = 'memory'\npid-file = '{pid_file}'\n"
        )
    server = start(*TRIGEAR, "server")
    said = trigear("tenant", "add", "acme", "--max-workers", "3")
    assert said.line.endswith(f"; reload sent to process {server.process.pid}")
    assert "configuration read" in server.read_until("SIGHUP: ")
    monkeypatch.setenv("TRIGEAR_SERVERS", server.address)
    said = trigear("tenant", "show", "acme", "--usage", "--json")
    rows = [json.loads(line) for line in said.out.splitlines()]
    (row,) = [row for row in rows if row["quota"] == "max-workers"]
    # Nobody logs in there, so that it has no quotas, and nothing is used up.
    assert row == {"quota": "max-workers", "limit": 3, "from": "file", "used": 0, "exceeded": 0}
    said = trigear("admin", "tenants", "--server", server.address)
    assert "acme\tmax-workers\t0\t0\t0" in said.out.splitlines()
    server.send(signal.SIGTERM)
    server.wait()
    assert trigear("tenant", "set", "acme", "max-workers", "4").line.endswith(NOBODY)


def test_quotas_that_hold_for_nobody_are_told_of(
    kept: Path, trigear: Callable[..., Said], start: Callable[..., Running]
) -> None:
    said = trigear("config", "check")
    assert said.status == 0
    assert "warning: tenants have quotas in trigear.toml, and nobody has to log in" in said.line
    options = ("--listen", "127.0.0.1:0", "--store", "memory")
    server = start(*TRIGEAR, "server", *options, "--config", str(kept))
    assert "nobody is held to them" in "".join(server.lines)
    kept.write_text("[tenant.acme.function.f]\ntimeout = 3\n")
    assert trigear("config", "check").err == ""


def test_a_process_that_is_no_server_is_not_told(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir(parents=True)
    pid_file = tmp_path / "pid"
    place.write_text(f"[server]\nstore = 'memory'\npid-file = '{pid_file}'\n")
    assert afterwards.running_server() is None
    for text in (str(os.getpid()), "", "x", "0", "99999999999"):
        pid_file.write_text(text)
        assert afterwards.running_server() is None
    place.write_text("[server]\nno-such = 1\n")
    told = afterwards.tell_server()
    assert told.startswith(f"no server can take it over: {place}: [server] no-such: no such")


def test_a_server_of_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(afterwards, "running_server", lambda config: 4711)
    for error, said in (
        (PermissionError, "process 4711 is somebody else's: let its user run `kill -HUP 4711`"),
        (ProcessLookupError, NOBODY),
    ):

        def kill(pid: int, number: int, error: type[OSError] = error) -> None:
            raise error

        monkeypatch.setattr(os, "kill", kill)
        assert afterwards.tell_server() == said


def test_quotas_hold_on_a_server_with_logins_and_the_audit_log_tells_of_it(
    place: Path, trigear: Callable[..., Said], start: Callable[..., Running], tmp_path: Path
) -> None:
    audit, users = tmp_path / "audit.log", place.parent / "users.toml"
    place.parent.mkdir(parents=True)
    place.write_text(
        "[server]\nlisten = '127.0.0.1:0'\nauth = 'sasl'\nstore = 'memory'\n"
        f"audit-log = '{audit}'\n"
    )
    assert trigear("tenant", "add", "acme", "--max-queued-jobs", "1").status == 0
    password = trigear("user", "add", "alice", "--tenant", "acme", "--role", "submit").out.strip()
    server = start(*TRIGEAR, "server")
    with server.connect() as link, link.makefile("rwb") as stream:
        assert as_user(stream, "alice", password).startswith(b"OK acme/alice")
        assert submitted(stream) == b"H:"
        assert submitted(stream) == b"QU"
        said = trigear("tenant", "set", "acme", "max-queued-jobs", "2")
        assert said.line.endswith(f"reload sent to process {server.process.pid}")
        server.read_until("SIGHUP: ")
        assert submitted(stream) == b"H:"
        users.chmod(0o644)
        place.write_text("[server\n")
        server.send(signal.SIGHUP)
        server.read_until("audit log reopened")
    server.send(signal.SIGTERM)
    server.wait()
    entries = [json.loads(line) for line in audit.read_text().splitlines()]
    told = [(entry["event"], entry.get("quota", entry.get("tenants"))) for entry in entries]
    assert told == [
        ("auth.ok", None),
        ("quota.exceeded", "max-queued-jobs"),
        ("config.reload", ["acme"]),
        ("auth.reload", None),
        ("config.reload", None),
        ("auth.reload", None),
        ("session.ended", None),
    ]
    first = entries[0]
    assert (first["identity"], first["method"], first["peer"]) == (
        "acme/alice",
        "SCRAM-SHA-256",
        "127.0.0.1",
    )
    assert first["listener"] == server.address
    assert ["is not TOML" in str(entry.get("reason")) for entry in entries].count(True) == 1
    assert "chmod 600" in entries[-2]["reason"]
    assert password not in audit.read_text()


def submitted(stream: BinaryIO) -> bytes:
    """The first letters of the answer to a submission: of a handle, or of an error."""
    stream.write(request(SUBMIT_JOB_BG, b"f", b"", b"work"))
    stream.flush()
    header = stream.read(12)
    return stream.read(int.from_bytes(header[8:12]))[:2]
