"""`trigear.toml`: what may stand in it, what wins over what, what is said about mistakes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from trigear.broker.quotas import Quotas
from trigear.cli.manners import Manners
from trigear.cli.report import Failure, Status
from trigear.cli.server import plan_of, server_command
from trigear.engine.config import FunctionSettings, OnTimeout, TenantSettings
from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said
    from trigear.cli.plan import Plan


def plan_for(*args: str) -> Plan:
    ctx = server_command.make_context("server", list(args), obj=Manners())
    return plan_of(ctx, "/start")


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "trigear.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


WHOLE = """
[server]
listen = ["127.0.0.1:4731", "unix:run.sock"]
port = 4732
allow = "10.0.0.0/8"
job-retries = 3
on-timeout = "fail"
grace = "5m"
max-packet = "1MiB"
keepalive-idle = 30
log-level = "debug"
log-file = "server.log"
log-format = "json"
pid-file = "server.pid"
daemon = true
run-as = "nobody"
file-descriptors = 4096

[function."resize image"]
timeout = "90s"
attempts = 0
on_timeout = "fail"

[function.mail]
timeout = 5

[function.report]
keep-results = "24h"
keep-results-count = 100
keep_results_size = "1MiB"
reuse-results = true

[tenant.acme]
max-queued-jobs = 7
max_queued_bytes = "1MiB"
max-background-age = "7d"

[tenant.acme.function.mail]
timeout = "9s"

[tenant.other]
"""


def test_every_kind_of_value_arrives(written: Callable[[str], str]) -> None:
    plan = plan_for("--config", written(WHOLE))
    config = plan.config
    assert config.listen == ("127.0.0.1:4731", "unix:/start/run.sock")
    assert config.port == 4732
    assert config.allow == ("10.0.0.0/8",)
    assert config.grace == 300
    assert config.keepalive is not None
    assert config.keepalive.idle == 30
    assert config.engine.attempts == 3
    assert config.engine.on_timeout is OnTimeout.FAIL
    assert config.engine.max_packet == 1 << 20
    assert (plan.log.level, plan.log.target) == ("DEBUG", "/start/server.log")
    assert plan.log.style.value == "json"
    assert plan.pid_file is not None
    assert plan.pid_file.path == "/start/server.pid"
    assert (plan.daemon, plan.run_as, plan.descriptors) == (True, "nobody", 4096)
    assert config.engine.functions == {
        b"resize image": FunctionSettings(90.0, 0, OnTimeout.FAIL),
        b"mail": FunctionSettings(5.0),
        b"report": FunctionSettings(
            keep_results=86400.0,
            keep_results_count=100,
            keep_results_size=1 << 20,
            reuse_results=True,
        ),
    }
    quotas = Quotas(max_queued_jobs=7, max_queued_bytes=1 << 20, max_background_age=7 * 86400.0)
    assert config.engine.tenants == {
        "acme": TenantSettings(quotas, {b"mail": FunctionSettings(9.0)}),
        "other": TenantSettings(),
    }


def test_keys_may_be_written_with_underscores(written: Callable[[str], str]) -> None:
    path = written("[server]\njob_retries = 7\n[function.f]\non-timeout = 'fail'\n")
    engine = plan_for("--config", path).config.engine
    assert engine.attempts == 7
    assert engine.functions[b"f"].on_timeout is OnTimeout.FAIL


def test_flag_wins_over_environment_and_environment_over_file(
    written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("[server]\nport = 1\ngrace = '1s'\nmax-packet = 1024\n")
    monkeypatch.setenv("TRIGEAR_SERVER_PORT", "2")
    monkeypatch.setenv("TRIGEAR_SERVER_GRACE", "2s")
    config = plan_for("--config", path, "--port", "3").config
    assert (config.port, config.grace, config.engine.max_packet) == (3, 2.0, 1024)


def test_environment_names_the_file_and_several_addresses(
    written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIGEAR_CONFIG", written("[server]\nport = 9\n"))
    monkeypatch.setenv("TRIGEAR_SERVER_LISTEN", "127.0.0.1 unix:/tmp/x")
    config = plan_for().config
    assert config.port == 9
    assert config.listen == ("127.0.0.1", "unix:/tmp/x")


def test_usual_place_is_read_when_nobody_names_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "trigear").mkdir()
    (tmp_path / "trigear" / "trigear.toml").write_text("[server]\nport = 11\n", encoding="utf-8")
    assert plan_for().config.port == 11


def test_empty_file_changes_nothing(written: Callable[[str], str]) -> None:
    assert plan_for("--config", written("")).config == plan_for().config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1", ["[server] prot", "no such setting", "did you mean 'port'?"]),
        ("[server]\nxyzzy = 1", ["[server] xyzzy", "there are", "listen"]),
        ("[sever]\nport = 1", ["[sever]", "no such table", "did you mean 'server'?"]),
        ("port = 1", ["[port]", "no such table"]),
        ("server = 1", ["server", "is not a table"]),
        ("[server]\ncheck = true", ["[server] check", "no such setting"]),
        ("[server]\nport = 'abc'", ["[server] port", "neither a port nor"]),
        ("[server]\nport = true", ["[server] port", "takes text or a number"]),
        ("[server]\nport = [1, 2]", ["[server] port", "takes text or a number"]),
        ("[server]\nlisten = [1, [2]]", ["[server] listen", "or a list of them"]),
        ("[server]\ndaemon = 'yes'", ["[server] daemon", "write true or false"]),
        ("[server]\ngrace = 'soon'", ["[server] grace", "write 500ms, 30s, 5m or 24h"]),
        ("[server]\ngrace = -1", ["[server] grace", "is not a duration"]),
        ("[server]\nmax-packet = 'big'", ["[server] max-packet", "is not a size"]),
        ("[server]\non-timeout = 'panic'", ["[server] on-timeout", "panic"]),
        ("[server]\nstore = 'redis'", ["redis", "is no store", "or memory"]),
        ("[server]\nauth = 'other'", ["'other' is not one of 'none', 'sasl'"]),
        ("[server]\njob-retries = 1\njob_retries = 2", ["job_retries", "set twice"]),
        ("[function]\nf = 1", ["function.f", "is not a table"]),
        ("[function.f]\ntimout = 1", ["[function.f] timout", "did you mean 'timeout'?"]),
        ("[function.f]\ntimeout = '1 fortnight'", ["[function.f] timeout", "not a duration"]),
        ("[function.f]\ntimeout = -1", ["timeout", "is not a duration"]),
        ("[function.f]\nattempts = 1.5", ["attempts", "is not a number of attempts"]),
        (
            "[function.f]\nkeep-results-count = 'nine'",
            ["keep-results-count", "not a number"],
        ),
        ("[function.f]\nkeep-results-size = 'much'", ["keep-results-size", "is not a size"]),
        ("[function.f]\nreuse-results = 'maybe'", ["reuse-results", "neither yes nor no"]),
        ("[function.f]\nreuse-results = true", ["[function.f]", "set keep-results as well"]),
        ("[function.f]\nattempts = -1", ["[function.f]", "'-1' is not a number of attempts"]),
        ("[function.f]\non_timeout = 'never'", ["on_timeout", "reassign, fail"]),
        ("[function.f]\non_timeout = 'fail'\non-timeout = 'fail'", ["on-timeout", "set twice"]),
        ("[server\n", ["is not TOML", "line 1"]),
        ("[server]\nport = 1\nport = 2", ["is not TOML", "overwrite"]),
    ],
)
def test_mistake_is_one_line_with_file_place_and_remedy(
    text: str, words: list[str], written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    path = written(text)
    said = trigear("server", "--check", "--config", path)
    assert said.status == Status.USAGE
    assert [word for word in words if word not in said.line] == []


@pytest.mark.parametrize("text", ["[server]\nprot = 1", "[server]\nport = 'x'", "[server"])
def test_mistake_names_the_file(
    text: str, written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    path = written(text)
    assert path in trigear("server", "--check", "--config", path).line


def test_file_that_is_not_text_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "trigear.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not TOML"):
        plan_for("--config", str(path))


def test_file_that_is_not_there_is_a_mistake_when_somebody_named_it(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="No such file") as caught:
        plan_for("--config", str(tmp_path / "absent.toml"))
    assert caught.value.status == Status.USAGE


def test_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="Is a directory"):
        plan_for("--config", str(tmp_path))


def test_file_that_may_not_be_read_is_said_to_be_so(
    written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("")
    if os.geteuid() == 0:
        # Root may read everything: be somebody else for the moment of reading.
        os.chmod(path, 0)
        os.seteuid(65534)
    else:
        os.chmod(path, 0)
    try:
        with pytest.raises(Failure, match="Permission denied") as caught:
            plan_for("--config", path)
    finally:
        if os.getuid() == 0:
            os.seteuid(0)
    assert caught.value.status == Status.NOT_ALLOWED


def test_check_says_that_a_file_is_good(
    written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    said = trigear("config", "check", "--config", written("[server]\nlisten = '127.0.0.1'\n"))
    assert (said.status, said.err) == (0, "")
    assert "127.0.0.1" in said.out


def test_show_tells_where_each_value_comes_from(
    written: Callable[[str], str],
    trigear: Callable[..., Said],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIGEAR_SERVER_GRACE", "7s")
    path = written("[server]\nport = 12\n[function.'a b']\nattempts = 2\n")
    lines = trigear("config", "show", "--config", path).out.splitlines()
    assert [line.split() for line in lines if line.startswith(("port", "grace", "store"))] == [
        ["port", "=", "12", "#", "file"],
        ["store", "=", '"sqlite"', "#", "default"],
        ["grace", "=", "7", "#", "environment"],
    ]
    assert lines[-2:] == ['[function."a b"]', "attempts = 2"]


def test_shown_document_means_the_same_when_read_again(
    written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    path = written(WHOLE)
    again = written(trigear("config", "show", "--config", path).out)
    shown = plan_for("--config", again).config
    written(WHOLE)
    assert shown == plan_for("--config", path).config


def test_show_prints_one_json_document_on_request(trigear: Callable[..., Said]) -> None:
    import json

    shown: dict[str, Any] = json.loads(trigear("config", "show", "--json").out)
    assert shown["server"]["port"] == {"value": 4730, "from": "default"}
    assert shown["function"] == shown["tenant"] == {}


def test_tenants_are_shown_with_all_their_quotas(
    written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    import json

    shown = json.loads(trigear("config", "show", "--json", "--config", written(WHOLE)).out)
    assert shown["tenant"]["acme"] == {
        "max-connections": 1000,
        "max-workers": 500,
        "max-functions": 1000,
        "max-queued-jobs": 7,
        "max-queued-bytes": "1MiB",
        "max-job-bytes": "16MiB",
        "max-abilities-per-connection": 1000,
        "max-background-age": "7d",
        "function": {"mail": {"timeout": "9s"}},
    }
    assert shown["tenant"]["other"]["max-background-age"] == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("tenant = 1", "tenant: is not a table; write [tenant] above its keys"),
        ("[tenant]\nacme = 1", "tenant.acme: is not a table; write [tenant.acme] above its keys"),
        (
            '[tenant."a b"]',
            "[tenant.a b]: 'a b' is no name; letters, digits and ._- make one",
        ),
        (
            "[tenant.acme]\nmax-job = 1",
            "[tenant.acme] max-job: no such setting; did you mean 'max-job-bytes'?",
        ),
        (
            "[tenant.acme]\nmax-workers = -1",
            "[tenant.acme] max-workers: '-1' is not a number of workers",
        ),
        (
            "[tenant.acme]\nmax-job-bytes = true",
            "[tenant.acme] max-job-bytes: 'True' is not a size: write 64KiB, 16MiB, 1GiB or a"
            " number of bytes",
        ),
        (
            "[tenant.acme]\nmax-background-age = 'old'",
            "[tenant.acme] max-background-age: 'old' is not a duration: write 500ms, 30s, 5m or"
            " 24h",
        ),
        (
            "[tenant.acme]\nmax-workers = 1\nmax_workers = 2",
            "[tenant.acme] max_workers: is set twice; once with - and once with _",
        ),
        (
            "[tenant.acme.function.f]\ntimeout = 'x'",
            "[tenant.acme.function.f] timeout: 'x' is not a duration: write 500ms, 30s, 5m or 24h",
        ),
        (
            "[tenant.acme]\nfunction = 1",
            "tenant.acme.function: is not a table; write [tenant.acme.function] above its keys",
        ),
    ],
)
def test_what_makes_no_sense_about_a_tenant_is_named(
    written: Callable[[str], str], text: str, complaint: str
) -> None:
    path = written(text)
    with pytest.raises(ConfigError) as caught:
        plan_for("--config", path)
    assert str(caught.value) == f"{path}: {complaint}"


def test_example_is_valid_with_and_without_its_comment_signs(
    written: Callable[[str], str], trigear: Callable[..., Said]
) -> None:
    example = trigear("config", "example").out
    assert plan_for("--config", written(example)).config == plan_for().config
    # Every setting that has a default may be switched on as it stands.
    lines = [line for line in example.splitlines() if not line.endswith('= ""')]
    live = "\n".join(line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in lines)
    config = plan_for("--config", written(live)).config
    assert config.engine.functions[b"resize"].timeout == 30
    assert config.engine.tenants == {
        "acme": TenantSettings(functions={b"resize": FunctionSettings()})
    }
    assert config.own("127.0.0.1:4731").door is not None
