"""gearmand's face: its options, its defaults, its parser's manners."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trigear as package
from trigear.cli.gearmand import LOOPBACK_HINT, gearmand_command, plan_of
from trigear.cli.logs import LEVELS, LogSettings, LogStyle
from trigear.cli.plan import PidFileSettings, Plan, handle_prefix
from trigear.cli.report import Failure
from trigear.cli.store import StorePlan
from trigear.engine.config import EngineConfig, Keepalive, ServerConfig
from trigear.security.tls import ServerTLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Said

HTTP = "http" if Path("/etc/services").exists() else "80"
"""The name of a port, where this system knows names of ports."""


SYSTEM_KEEPALIVE = Keepalive(None, None, None, None)


def plan_for(*args: str) -> Plan:
    return plan_of(gearmand_command.make_context("gearmand", list(args)), "/start")


def test_defaults_are_gearmands() -> None:
    engine = EngineConfig(
        handle_prefix=handle_prefix(),
        version=f"2.0.0+trigear.{package.__version__}",
        verbosity="ERROR",
        exceptions=False,
        attempts=0,
        backoff=0.0,
        dead_letters=False,
        wakeup=0,
        drain_refuses=False,
    )
    assert plan_for() == Plan(
        program="gearmand",
        config=ServerConfig(
            engine=engine,
            port=4730,
            backlog=32,
            keepalive=SYSTEM_KEEPALIVE,
            grace=None,
            compat_gearmand=True,
        ),
        log=LogSettings(
            target="/var/log/gearmand.log",
            style=LogStyle.GEARMAND,
            level="ERROR",
            forgiving=True,
            program="gearmand",
        ),
        pid_file=PidFileSettings("/var/gearmand.pid", required=False),
        run_as_option="--user",
        hint=LOOPBACK_HINT,
        failure=1,
    )


# Every option that gearmand documents, in the forms its own tests use.
ACCEPTED = [
    ["-b", "10"],
    ["--backlog=10"],
    ["--backlog", "-5"],
    ["-d"],
    ["--daemon"],
    ["--exceptions"],
    ["-f", "10"],
    ["--file-descriptors=10"],
    ["-h"],
    ["--help"],
    ["-j", "6"],
    ["-j", "-1"],
    ["--job-retries=255"],
    ["--job-handle-prefix=my_own_private_handle"],
    ["--hashtable-buckets=2000"],
    ["--keepalive"],
    ["--keepalive-idle=10"],
    ["--keepalive-interval=3"],
    ["--keepalive-count=10"],
    ["-l", '"tmp/foo"'],
    ["--log-file=stderr"],
    ["-L", "10"],
    ["--listen=10"],
    ["-p", "10"],
    ["-p4731"],
    ["--port=10"],
    ["--port", HTTP],
    ["-P", '"tmp/gearmand.pid"'],
    ['--pid-file="tmp/gearmand.pid"'],
    ["-r", "http"],
    ["--protocol=http", "--http-port=8090"],
    ["-R"],
    ["--round-robin"],
    ["-dR"],
    ["-q", "builtin"],
    ["--queue-type=BUILTIN"],
    ["--queue-type=libsqlite3", "--libsqlite3-db=x", "--libsqlite3-table=t"],
    ["--libsqlite3-db=x", "--store-queue-on-shutdown"],
    ["-q", "MySQL", "--mysql-host=h", "--mysql-port=1", "--mysql-user=u", "--mysql-password=p"],
    ["--mysql-db=d", "--mysql-table=t"],
    ["-q", "postgres", "--libpq-conninfo=host=h", "--libpq-table=t"],
    ["-q", "POSTGRES"],
    ["-q", "redis", "--redis-server=h", "--redis-port=1", "--redis-password=p"],
    ["--redis-prefix=x"],
    ["-q", "libmemcached", "--libmemcached-servers=h:1", "--libmemcached-prefix=x"],
    ["--libtokyocabinet-file=f", "--libtokyocabinet-optimize"],
    ["--libdrizzle-host=h", "--libdrizzle-port=1", "--libdrizzle-uds=p", "--libdrizzle-user=u"],
    ["--libdrizzle-password=p", "--libdrizzle-db=d", "--libdrizzle-table=t", "--libdrizzle-mysql"],
    ["--syslog"],
    ["--coredump"],
    ["-t", "8"],
    ["--threads=10"],
    ["-u", "nobody"],
    ["--user=nobody"],
    *([f"--verbose={level}"] for level in LEVELS),
    ["-V"],
    ["--version"],
    ["-w", "4"],
    ["--worker-wakeup=255"],
    ["--ssl", "--ssl-ca-file=a", "--ssl-certificate=b", "--ssl-key=c"],
    ["--insecure-open"],
    [],
    ["--"],
]


@pytest.mark.parametrize("args", ACCEPTED, ids=" ".join)
def test_option_is_well_formed(args: list[str], gearmand: Callable[..., Said]) -> None:
    assert gearmand("--check-args", *args).status == 0


@pytest.mark.parametrize("before", [True, False])
def test_only_checking_prints_no_help_and_no_version(
    *, before: bool, gearmand: Callable[..., Said]
) -> None:
    for asked in ("--help", "--version"):
        said = gearmand("--check-args", asked) if before else gearmand(asked, "--check-args")
        assert (said.status, said.out) == (0, "")


REFUSED = [
    (["foo"], "foo"),
    (["--log"], "--log"),
    (["--daem"], "--daem"),
    (["-v"], "--verbose LEVEL"),
    (["-vvv"], "--verbose LEVEL"),
    (["--verbose"], "--verbose"),
    (["--verbose=BAD"], "--verbose"),
    (["--verbose=info"], "--verbose"),
    (["-d", "-d"], "--daemon"),
    (["-d", "--daemon"], "more than once"),
    (["--port", "1", "--port", "2"], "--port"),
    (["-p", "1", "--port", "2"], "more than once"),
    (["--daemon=1"], "--daemon"),
    (["-d=1"], "-="),
    (["--listen="], "a value must follow '--listen=' at once"),
    (["--config-file"], "--config-file"),
    (["--config-file", "/no/such/file"], "/no/such/file: No such file"),
    (["-j", "x"], "--job-retries"),
    (["-j", "256"], "--job-retries"),
    (["-j", "-2"], "--job-retries"),
    (["-w", "256"], "--worker-wakeup"),
    (["-b", "x"], "--backlog"),
    (["--hashtable-buckets", "0"], "--hashtable-buckets"),
    (["--keepalive-idle", "x"], "--keepalive-idle"),
    (["-p", "no-such-service"], "neither a port nor"),
    (["-q", "nope"], "there is no such queue"),
    (["-r", "nope"], "there is no such protocol"),
    (["-f", "-1"], "--file-descriptors"),
    (["--grace", "3s"], "--grace"),
    (["--check-args", "--check-args"], "more than once"),
]


@pytest.mark.parametrize(("args", "words"), REFUSED, ids=[" ".join(args) for args, _ in REFUSED])
def test_mistake_fails_in_one_line(
    args: list[str], words: str, gearmand: Callable[..., Said]
) -> None:
    said = gearmand("--check-args", *args) if "--check-args" not in args else gearmand(*args)
    assert said.status == 1
    assert said.out == ""
    assert words in said.line
    assert said.line.startswith("gearmand: error: ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-q", "redis"], "--queue-type redis is not in this version"),
        (["-q", "libsqlite3"], "--queue-type libsqlite3 needs --libsqlite3-db"),
        (["-q", "MySQL"], "there are: builtin, libsqlite3, Postgres"),
        (["--protocol=http"], "--protocol http is not in this version"),
    ],
)
def test_what_this_version_lacks_is_refused_and_not_left_out(
    args: list[str], words: str, gearmand: Callable[..., Said]
) -> None:
    said = gearmand(*args)
    assert said.status == 1
    assert words in said.line
    checked = gearmand("--check-args", *args)
    assert checked.status == 0
    assert words in checked.line


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-L", "127.0.0.1"], "listen", ("127.0.0.1",)),
        (["-p", "4999"], "port", 4999),
        (["-b", "5"], "backlog", 5),
        (["--keepalive-idle=9"], "keepalive", SYSTEM_KEEPALIVE),
        (["--keepalive"], "keepalive", SYSTEM_KEEPALIVE),
        (
            ["--keepalive", "--keepalive-idle=9", "--keepalive-interval=3", "--keepalive-count=2"],
            "keepalive",
            Keepalive(9, 3, 2, None),
        ),
    ],
)
def test_option_sets_what_the_sockets_do(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args).config, field) == value


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-j", "-1"], "attempts", 0),
        (["-j", "0"], "attempts", 1),
        (["-j", "1"], "attempts", 1),
        (["-j", "10"], "attempts", 10),
        (["--exceptions"], "exceptions", True),
        (["-w", "3"], "wakeup", 3),
        (["--job-handle-prefix=my_handle"], "handle_prefix", b"my_handle"),
        (["--verbose=NOTICE"], "verbosity", "NOTICE"),
    ],
)
def test_option_sets_what_the_engine_does(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args).config.engine, field) == value


@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        (["-d"], "daemon", True),
        (["-u", "nobody"], "run_as", "nobody"),
        (["-f", "512"], "descriptors", 512),
        (["-f", "0"], "descriptors", None),
        (["-P", "x.pid"], "pid_file", PidFileSettings("/start/x.pid", required=True)),
        (["--insecure-open"], "insecure_open", True),
        (["-L", "127.0.0.1"], "hint", None),
        (["-R", "-t", "9", "--hashtable-buckets=5", "--coredump"], "notes", ()),
    ],
)
def test_option_sets_what_the_process_does(args: list[str], field: str, value: Any) -> None:
    assert getattr(plan_for(*args), field) == value


def test_log_options_choose_file_level_and_system_log() -> None:
    log = plan_for("-l", "x.log", "--verbose=DEBUG", "--syslog").log
    assert (log.target, log.level, log.syslog) == ("/start/x.log", "DEBUG", True)
    assert plan_for("-l", "stderr").log.target == "stderr"
    assert plan_for("-l", "none").log.target == "none"


def test_options_that_switch_nothing_on_are_said_to_be_without_effect() -> None:
    (note,) = plan_for("--libsqlite3-db=x", "--ssl-key=y").notes
    assert note.endswith("--libsqlite3-db --ssl-key")


SSL = ["--ssl", "--ssl-certificate=c.pem", "--ssl-key=k.pem"]


@pytest.mark.parametrize(
    ("args", "listen"),
    [
        ([], "gearmans://localhost:4730"),
        (["-L", "::1", "-p", "7"], "gearmans://[::1]:7"),
        (["-L", "gearmans://127.0.0.1:8"], "gearmans://127.0.0.1:8"),
    ],
)
def test_ssl_is_tls_at_the_port(args: list[str], listen: str) -> None:
    plan = plan_for(*SSL, *args)
    assert plan.config.listen == (listen,)
    assert plan.config.tls == ServerTLS("/start/c.pem", "/start/k.pem")
    assert plan.notes == ()


def test_files_of_ssl_have_a_place_where_nobody_names_one() -> None:
    tls = ServerTLS("/etc/ssl/certs/gearmand.pem", "/etc/ssl/certs/gearmand.key")
    assert plan_for("--ssl").config.tls == tls


def test_environment_wins_over_the_files_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEARMAND_SERVER_PEM", "/e/c.pem")
    monkeypatch.setenv("GEARMAND_SERVER_KEY", "/e/k.pem")
    assert plan_for(*SSL).config.tls == ServerTLS("/e/c.pem", "/e/k.pem")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([*SSL], "c.pem: it cannot be read"),
        ([*SSL, "--ssl-ca-file=/none/ca.pem"], "/none/ca.pem: it cannot be read"),
        ([*SSL, "-L", "unix:x.sock"], "no TLS on a Unix socket"),
        ([*SSL, "-L", "gearman://localhost"], "contradict each other"),
        ([*SSL, "-L", "a b"], "has no usable host"),
    ],
)
def test_ssl_that_cannot_be_had_stops_the_start(
    args: list[str], words: str, gearmand: Callable[..., Said], tmp_path: Path
) -> None:
    options = ["-p", "0", "-l", "stderr", "-P", str(tmp_path / "pid")]
    said = gearmand(*options, *args)
    assert said.status == 1
    assert words in said.line


def test_queue_in_sqlite_is_the_file_that_is_named() -> None:
    plan = plan_for("-q", "LibSQLite3", "--libsqlite3-db=x/queue.db", "--ssl-key=y")
    assert plan.store == StorePlan("/start/x/queue.db")
    (note,) = plan.notes
    assert note.endswith("no TLS: --ssl-key")
    assert plan_for("--libsqlite3-db=x").store == StorePlan()


def test_what_gearmands_sqlite_queue_can_and_ours_need_not_is_said() -> None:
    options = ["--libsqlite3-table=t", "--store-queue-on-shutdown"]
    table, shutdown = plan_for("-q", "libsqlite3", "--libsqlite3-db=x", *options).notes
    assert table.startswith("--libsqlite3-table: without effect")
    assert shutdown.startswith("--store-queue-on-shutdown: without effect")


def test_handle_prefix_that_would_not_fit_is_refused(gearmand: Callable[..., Said]) -> None:
    said = gearmand("--job-handle-prefix", "x" * 43)
    assert said.status == 1
    assert "job handle prefix" in said.line


def test_help_and_version_go_to_standard_output(gearmand: Callable[..., Said]) -> None:
    said = gearmand("--help")
    assert (said.status, said.err) == (0, "")
    assert "--worker-wakeup" in said.out
    said = gearmand("-V")
    assert (said.status, said.err) == (0, "")
    assert said.out.startswith(f"\ngearmand 2.0.0+trigear.{package.__version__} - ")


@pytest.mark.parametrize(
    ("args", "port"),
    [([], 4999), (["-p", "4730"], 4999), (["-p", "4731"], 4731)],
)
def test_environment_replaces_the_port_that_is_the_default(
    args: list[str], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEARMAND_PORT", "4999")
    assert plan_for(*args).config.port == port


def test_environment_with_a_bad_port_is_named(
    gearmand: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEARMAND_PORT", "many")
    said = gearmand("-l", "none")
    assert said.status == 1
    assert "GEARMAND_PORT: 'many'" in said.line


def test_trigears_own_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIGEAR_SERVER_PORT", "1")
    monkeypatch.setenv("GEARMAND_BACKLOG", "1")
    assert plan_for() == plan_for("--port", "4730")


# The configuration file.


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "gearmand.conf"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_configuration_file_has_options_as_on_the_command_line(
    written: Callable[[str], str],
) -> None:
    path = written("--port 4799 --verbose\nINFO\n-w3 --insecure-open --daemon -L 0.0.0.0\n")
    plan = plan_for("--config-file", path)
    assert plan.config.port == 4799
    assert plan.config.listen == ("0.0.0.0",)
    assert plan.config.engine.wakeup == 3
    assert (plan.log.level, plan.insecure_open, plan.daemon) == ("INFO", True, True)


def test_command_line_wins_over_the_configuration_file(written: Callable[[str], str]) -> None:
    assert plan_for("--config-file", written("--port 4799"), "-p", "4800").config.port == 4800


def test_pid_file_from_the_configuration_file_is_one_that_somebody_chose(
    written: Callable[[str], str],
) -> None:
    assert plan_for("--config-file", written("-P /x/y")).pid_file == PidFileSettings("/x/y")


def test_words_in_the_file_that_are_no_options_are_passed_over_and_named(
    written: Callable[[str], str],
) -> None:
    path = written("# the port\n--port 4799\n")
    plan = plan_for("--config-file", path)
    assert plan.config.port == 4799
    assert plan.notes == (f"{path}: not options and without effect: # the port",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("--nonsense", "--nonsense"),
        ("--port 1 --port 2", "more than once"),
        ("--port many", "neither a port nor"),
        ("--verbose loud", "loud"),
        ("--job-retries", "requires an argument"),
    ],
)
def test_mistake_in_the_file_names_the_file(
    text: str, words: str, written: Callable[[str], str], gearmand: Callable[..., Said]
) -> None:
    path = written(text)
    said = gearmand("--check-args", "--config-file", path)
    assert said.status == 1
    assert path in said.line
    assert words in said.line


def test_usual_file_is_read_if_it_is_there(
    written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trigear.cli.gearmand.CONFIG_FILE", written("--port 4799"))
    assert plan_for().config.port == 4799


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_wide_address_needs_to_be_called_insecure(
    address: str, gearmand: Callable[..., Said], written: Callable[[str], str]
) -> None:
    for args in (["-L", address], ["--config-file", written(f"--listen={address}")]):
        said = gearmand("-l", "none", *args)
        assert said.status == 1
        assert "add --insecure-open if that is meant" in said.line


def test_failure_carries_status_one() -> None:
    with pytest.raises(Failure) as caught:
        plan_for("--nonsense")
    assert caught.value.status == 1
