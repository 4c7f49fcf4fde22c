"""`trigear server`: options, their defaults, and those that contradict each other."""

from __future__ import annotations

import dataclasses
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trigear as package
from trigear.cli.logs import LogSettings, LogStyle
from trigear.cli.manners import Manners
from trigear.cli.plan import PidFileSettings, Plan
from trigear.cli.report import Status
from trigear.cli.server import plan_of, reread, server_command
from trigear.cli.store import StorePlan
from trigear.engine.config import EngineConfig, Keepalive, OnTimeout, ServerConfig
from trigear.security.tls import ClientCertificates, ServerTLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Said

HTTP = "http" if Path("/etc/services").exists() else "80"
"""The name of a port, where this system knows names of ports."""

SECURE = ["--listen", "gearmans://localhost", "--cert", "c.pem", "--key", "k.pem"]


def plan_for(*args: str) -> Plan:
    ctx = server_command.make_context("server", list(args), obj=Manners())
    return plan_of(ctx, "/start")


def test_defaults_are_those_of_the_server_itself() -> None:
    plan = plan_for()
    name = platform.node().encode()[:40]
    engine = EngineConfig(handle_prefix=b"H:" + name, version=package.__version__)
    assert plan.config == ServerConfig(engine=engine)
    assert plan.store.path is not None
    plan = dataclasses.replace(plan, config=ServerConfig(), store=StorePlan(), reread=None)
    assert plan == Plan()


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-L", "127.0.0.1", "--listen", "[::1]:5"], "listen", ("127.0.0.1", "[::1]:5")),
        (["-L", "unix:a/../b.sock"], "listen", ("unix:/start/b.sock",)),
        (["-L", "gearman://localhost:1"], "listen", ("gearman://localhost:1",)),
        (["-p", "7"], "port", 7),
        (["--port", HTTP], "port", 80),
        (["--allow", "10.0.0.0/8", "--allow", "::1"], "allow", ("10.0.0.0/8", "::1/128")),
        (["--grace", "500ms"], "grace", 0.5),
        (["--no-keepalive"], "keepalive", None),
        (["--keepalive-idle", "5m"], "keepalive", Keepalive(300, 10, 6, 120)),
        (["--keepalive-interval", "3"], "keepalive", Keepalive(60, 3, 6, 120)),
        (["--keepalive-count", "2"], "keepalive", Keepalive(60, 10, 2, 120)),
        (["--keepalive-timeout", "1m"], "keepalive", Keepalive(60, 10, 6, 60)),
    ],
)
def test_option_sets_what_the_sockets_do(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args).config, field) == value


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-j", "-1"], "attempts", 0),
        (["-j", "0"], "attempts", 1),
        (["--job-retries", "1"], "attempts", 1),
        (["--job-retries=300"], "attempts", 300),
        (["--on-timeout", "fail"], "on_timeout", OnTimeout.FAIL),
        (["--max-packet", "1MiB"], "max_packet", 1 << 20),
        (["--log-level", "notice"], "verbosity", "NOTICE"),
        (["-v"], "verbosity", "DEBUG"),
        (["--quiet"], "verbosity", "ERROR"),
    ],
)
def test_option_sets_what_the_engine_does(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args).config.engine, field) == value


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-l", "x.log"], "log", LogSettings(target="/start/x.log")),
        (["-l", "none"], "log", LogSettings(target="none")),
        (["--log-file", "syslog"], "log", LogSettings(target="syslog")),
        (["--log-format", "json"], "log", LogSettings(style=LogStyle.JSON)),
        (["-P", "x.pid"], "pid_file", PidFileSettings("/start/x.pid")),
        (["-d", "-l", "none"], "daemon", True),
        (["-u", "nobody:daemon"], "run_as", "nobody:daemon"),
        (["--file-descriptors", "4096"], "descriptors", 4096),
        (["--insecure-open"], "insecure_open", True),
        (["--quiet"], "quiet", True),
    ],
)
def test_option_sets_what_the_process_does(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args), field) == value


def test_options_of_tls_are_settings_with_paths_from_where_the_server_was_started() -> None:
    files = ["--client-certs", "optional", "--client-ca", "ca.pem", "--crl", "/crl.pem"]
    assert plan_for(*SECURE, *files, "--tls-min", "1.3").config.tls == ServerTLS(
        "/start/c.pem",
        "/start/k.pem",
        ClientCertificates.OPTIONAL,
        "/start/ca.pem",
        "/crl.pem",
        "1.3",
    )


def test_only_store_and_authentication_there_are_may_be_named() -> None:
    assert plan_for("--store", "memory", "--auth", "none").config == plan_for().config


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--daemon"], ["--daemon", "--log-file"]),
        (["--quiet", "-v"], ["contradict"]),
        (["-v", "--log-level", "error"], ["--verbose and --log-level"]),
        (["--quiet", "--log-level", "info"], ["--quiet and --log-level"]),
        (["--no-keepalive", "--keepalive-idle", "3"], ["--keepalive-idle", "contradict"]),
        (["--store", "sqlite:/x"], ["'sqlite:/x' is no store", "did you mean sqlite:///x?"]),
        (["--store", "sqlite://x"], ["'sqlite://x' names no file", "sqlite:///path"]),
        (["--store", "sqlite:///x/"], ["names no file"]),
        (["--store", "/tmp/x.db"], ["did you mean sqlite:///tmp/x.db?"]),
        (["--store", "/tmp/a b?.db"], ["did you mean sqlite:///tmp/a%20b%3F.db?"]),
        (["--store", "jobs.sqlite3"], [f"did you mean sqlite://{os.getcwd()}/jobs.sqlite3?"]),
        (["--store", "mysql://x"], ["is no store of this version", "postgresql://USER@HOST/"]),
        (["--auth", "spnego"], ["'spnego' is not one of 'none', 'sasl', 'mtls', 'peer'"]),
        (["--auth", "none", "--auth", "sasl"], ["none and sasl contradict each other"]),
        (["--users", "u.toml"], ["--users", "of no use without a login"]),
        (["--auth", "mtls"], ["--auth mtls", "--client-certs required"]),
        ([*SECURE, "--auth", "mtls"], ["--auth mtls", "--client-certs required"]),
        (["--auth", "peer"], ["--auth peer", "add --listen unix:PATH"]),
        (["--auth", "sasl", "-L", "0.0.0.0"], ["0.0.0.0:4730", "need TLS", "gearmans://"]),
        (["--compat", "gearmand-3"], ["gearmand-2"]),
        (["--grace", "soon"], ["--grace", "write 500ms"]),
        (["--max-packet", "many"], ["--max-packet", "is not a size"]),
        (["--max-packet", "10"], ["max packet", "1024"]),
        (["--port", "70000"], ["--port", "65535"]),
        (["--allow", "10.0.0.1/8"], ["--allow", "did you mean 10.0.0.0/8?"]),
        (["--job-retries", "-2"], ["--job-retries"]),
        (["--keepalive-idle", "500ms"], ["--keepalive-idle", "whole number"]),
        (["--file-descriptors", "3"], ["--file-descriptors"]),
        (["--listen", "http://x"], ["http://x", "gearman://HOST:PORT"]),
        (["--listen", "127.0.0.1:x"], ["127.0.0.1:x", "a port is a number"]),
        (["--listen", "unix:"], ["unix:", "names no path"]),
        (["--listen", "gearmans://localhost"], ["TLS", "--cert and --key"]),
        (["--cert", "c.pem"], ["--cert", "--key"]),
        (["--key", "k.pem"], ["--key", "--cert"]),
        (["--cert", "c.pem", "--key", "k.pem"], ["--cert", "--listen gearmans://HOST:PORT"]),
        (["--client-ca", "ca.pem"], ["--client-ca", "of no use"]),
        (["--crl", "crl.pem"], ["--crl", "of no use"]),
        (["--client-certs", "required"], ["--client-certs", "of no use"]),
        ([*SECURE, "--client-certs", "required"], ["--client-ca", "no authority is named"]),
        ([*SECURE, "--client-ca", "ca.pem"], ["--client-ca", "no client is asked"]),
        ([*SECURE, "--tls-min", "1.1"], ["'1.1' is not one of"]),
        (["--listen"], ["--listen"]),
        (["extra"], ["extra"]),
        (["--listne", "x"], ["--listen"]),
        (["--run-as", "no-such-user-here"], ["no-such-user-here"]),
        (["--run-as", "root:no-such-group-here"], ["no-such-group-here"]),
    ],
)
def test_what_cannot_be_is_one_line(
    args: list[str], words: list[str], trigear: Callable[..., Said]
) -> None:
    said = trigear("server", "--check", *args)
    assert said.status == Status.USAGE
    assert [word for word in words if word not in said.line] == []


def test_tls_alone_lets_nobody_in_from_elsewhere(trigear: Callable[..., Said]) -> None:
    said = trigear("server", "--check", *SECURE, "--listen", "gearmans://0.0.0.0")
    assert "gearmans://0.0.0.0:4730: other machines could connect" in said.line


@pytest.mark.parametrize("address", ["0.0.0.0", "[::]:4731", "gearman://0.0.0.0:1"])
def test_wide_address_needs_to_be_called_insecure(
    address: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("server", "--check", "--listen", address)
    assert said.status == Status.USAGE
    assert "add --insecure-open if that is meant" in said.line
    assert trigear("server", "--check", "--listen", address, "--insecure-open").status == 0


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9:1", "::1", "[::1]:2", "localhost", "unix:x.sock"]
)
def test_address_of_this_machine_only_needs_nothing(
    address: str, trigear: Callable[..., Said]
) -> None:
    assert trigear("server", "--check", "--listen", address).status == 0


def test_name_that_nobody_knows_is_said_to_be_unknown(trigear: Callable[..., Said]) -> None:
    said = trigear("server", "--check", "--listen", "no-such-host.invalid")
    assert said.status == Status.NO
    assert "no-such-host.invalid" in said.line


@pytest.mark.parametrize("form", [["--compat", "gearmand-2"], ["--compat=gearmand-2"]])
def test_gearmands_face_has_gearmands_options(
    form: list[str], trigear: Callable[..., Said]
) -> None:
    said = trigear("server", *form, "--check-args", "-t", "4", "--queue-type=builtin")
    assert (said.status, said.err) == (0, "")
    wrong = trigear("server", "--grace", "3s", *form)
    assert wrong.status == 1
    assert "--grace" in wrong.line


def test_verbose_before_the_command_counts_too(trigear: Callable[..., Said]) -> None:
    said = trigear("-v", "server", "--check", "--log-level", "info")
    assert "--verbose and --log-level" in said.line


def test_configuration_is_read_again_from_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trigear.toml"
    path.write_text("[server]\njob-retries = 1\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plan = plan_for("--config", "trigear.toml", "--port", "5")
    assert plan.config.engine.attempts == 1
    monkeypatch.chdir("/")  # as a daemon does
    path.write_text("[server]\njob-retries = 2\nport = 6\n", encoding="utf-8")
    assert plan.reread is not None
    again = plan.reread()
    assert (again.config.engine.attempts, again.config.port) == (2, 5)


def test_configuration_without_a_file_stays_as_it_was() -> None:
    assert reread(["--port", "5"], None, "/start").config == plan_for("--port", "5").config
