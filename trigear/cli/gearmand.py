"""`gearmand`: the server with the options and the defaults of gearmand 2.0.

Its parser has manners of its own, and scripts rely on them: no abbreviations, no positional
arguments, no option twice, every failure is exit status 1. Where this server does not offer what
an option asks for (a queue of another kind, HTTP), it does not start: going on without would
be something else than what was asked for. One default differs, and the start says so: without
`--listen` only this machine is served, and a wider address needs `--insecure-open`.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from trigear import __version__
from trigear.cli.logs import LEVELS, LogSettings, LogStyle
from trigear.cli.plan import PidFileSettings, Plan, absolute, attempts_for, handle_prefix
from trigear.cli.report import Failure, line_for
from trigear.cli.store import NO_PSYCOPG, StorePlan
from trigear.cli.tls import settings_of
from trigear.cli.values import PORT, parse_port
from trigear.engine.config import EngineConfig, Keepalive, ServerConfig
from trigear.errors import ConfigError
from trigear.model import DEFAULT_PORT
from trigear.runtime.address import parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.stores.postgresql_place import Place

GEARMAND_VERSION: Final = f"2.0.0+trigear.{__version__}"
"""What `--version` and the text command `version` answer: gearmand's version comes first, for
scripts that compare it."""

CONFIG_FILE: Final = "/etc/gearmand.conf"
LOG_FILE: Final = "/var/log/gearmand.log"
PID_FILE: Final = "/var/gearmand.pid"
FAILURE: Final = 1
SSL_CERTIFICATE: Final = "/etc/ssl/certs/gearmand.pem"
SSL_KEY: Final = "/etc/ssl/certs/gearmand.key"

BUILTIN: Final = "builtin"
SQLITE: Final = "libsqlite3"
POSTGRES: Final = "Postgres"
QUEUES: Final = (BUILTIN, SQLITE, POSTGRES)
QUEUES_ELSEWHERE: Final = (
    "MySQL",
    "libmemcached",
    "redis",
    "libtokyocabinet",
    "libdrizzle",
)

ELSEWHERE_OPTIONS: Final = {
    "--http-port": "PORT",
    "--store-queue-on-shutdown": None,
    "--mysql-host": "HOST",
    "--mysql-port": "PORT",
    "--mysql-user": "USER",
    "--mysql-password": "PASSWORD",
    "--mysql-db": "NAME",
    "--mysql-table": "NAME",
    "--redis-server": "HOST",
    "--redis-port": "PORT",
    "--redis-password": "PASSWORD",
    "--redis-prefix": "TEXT",
    "--libmemcached-servers": "TEXT",
    "--libmemcached-prefix": "TEXT",
    "--libtokyocabinet-file": "FILE",
    "--libtokyocabinet-optimize": None,
    "--libdrizzle-host": "HOST",
    "--libdrizzle-port": "PORT",
    "--libdrizzle-uds": "PATH",
    "--libdrizzle-user": "USER",
    "--libdrizzle-password": "PASSWORD",
    "--libdrizzle-db": "NAME",
    "--libdrizzle-table": "NAME",
    "--libdrizzle-mysql": None,
}
"""Options of what another option switches on, and their values' kinds (None: a switch). Alone they
do nothing, in gearmand neither."""


SQLITE_OPTIONS: Final = ("--libsqlite3-db", "--libsqlite3-table", "--store-queue-on-shutdown")
POSTGRES_OPTIONS: Final = ("--libpq-conninfo", "--libpq-table")
LIBPQ_TABLE: Final = "queue"
SSL_ENVIRONMENT: Final = {
    "ssl_ca_file": "GEARMAND_CA_CERTIFICATE",
    "ssl_certificate": "GEARMAND_SERVER_PEM",
    "ssl_key": "GEARMAND_SERVER_KEY",
}
SSL_OPTIONS: Final = ("--ssl-ca-file", "--ssl-certificate", "--ssl-key")

LOOPBACK_HINT: Final = (
    "serving this machine only, where gearmand would serve every address:"
    " --listen ADDRESS with --insecure-open widens it"
)


class GearmandCommand(click.Command):
    """Reads a command line as gearmand does."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.ClickException as error:
            if isinstance(error, click.NoSuchOption) and error.option_name == "-v":
                raise Failure("no option '-v': what to log is said with --verbose LEVEL") from error
            raise Failure(line_for(error)) from error

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for arg in args:
            if arg.startswith("--") and arg.endswith("=") and arg.count("=") == 1:
                raise click.UsageError(f"a value must follow '{arg}' at once", ctx)
        values, _ = self.parsed_once(ctx, args)
        self.read_config_file(ctx, values.get("config_file"))
        return super().parse_args(ctx, args)

    def parsed_once(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """Values by parameter name, and the words that are no options; no option twice."""
        values, words, order = self.make_parser(ctx).parse_args(list(args))
        seen: set[str | None] = set()
        for param in order:
            if param.name in seen:
                raise click.UsageError(f"option '{param.opts[-1]}' was given more than once", ctx)
            seen.add(param.name)
        return {name: value for name, value in values.items() if name in seen}, words

    def read_config_file(self, ctx: click.Context, chosen: str | None) -> None:
        """Make the options written in the file the defaults of those on the command line."""
        path = CONFIG_FILE if chosen is None else chosen
        try:
            text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            if chosen is not None:
                raise Failure(f"configuration file {path}: {error.strerror}") from error
            return
        try:
            values, words = self.parsed_once(ctx, text.split())
            for param in self.params:
                if param.name in values:
                    param.type_cast_value(ctx, values[param.name])
        except click.ClickException as error:
            raise Failure(f"configuration file {path}: {line_for(error)}") from error
        ctx.default_map = values
        if words:
            # gearmand passes over them in silence, so files that work there have some.
            ctx.meta["trigear.notes"] = (
                f"{path}: not options and without effect: {' '.join(words[:8])}",
            )


def option(*names: str, **settings: Any) -> Callable[[Any], Any]:  # noqa: ANN401
    # gearmand reads one environment variable, and it is not one that click would make up.
    return click.option(*names, allow_from_autoenv=False, **settings)


def elsewhere_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, metavar in reversed(ELSEWHERE_OPTIONS.items()):
        kind: dict[str, Any] = {"is_flag": True} if metavar is None else {"metavar": metavar}
        command = option(name, help="Without effect here.", **kind)(command)
    return command


@click.command(
    cls=GearmandCommand,
    name="gearmand",
    add_help_option=False,
    context_settings={"show_default": True, "auto_envvar_prefix": None},
)
@option("-b", "--backlog", type=int, default=32, help="Connections the system may keep waiting.")
@option("-d", "--daemon", is_flag=True, help="Detach, and return once the server serves.")
@option("--exceptions", is_flag=True, help="Send WORK_EXCEPTION to clients that did not ask.")
@option(
    "-f",
    "--file-descriptors",
    type=click.IntRange(min=0),
    metavar="N",
    help="Files and connections to allow. Default: as many as the user may have.",
)
@option("-h", "--help", is_flag=True, help="Print this and exit.")
@option(
    "-j",
    "--job-retries",
    type=click.IntRange(-1, 255),
    default=-1,
    help="Give a job up when it was lost for the N-th time; 0: the first time; -1: never.",
)
@option("--job-handle-prefix", metavar="TEXT", help="What job handles begin with.")
@option(
    "--hashtable-buckets",
    type=click.IntRange(min=1),
    default=991,
    help="Without effect: tables grow by themselves.",
)
@option("--keepalive", is_flag=True, help="Heed the three options below.")
@option("--keepalive-idle", type=int, default=-1, help="Seconds before the first test.")
@option("--keepalive-interval", type=int, default=-1, help="Seconds between tests.")
@option("--keepalive-count", type=int, default=-1, help="Tests after which a peer is dead.")
@option("-l", "--log-file", default=LOG_FILE, help="A file, or stderr or none.")
@option("-L", "--listen", metavar="ADDRESS", help="Address to serve. Default: this machine only.")
@option("-p", "--port", type=PORT, default=str(DEFAULT_PORT), help="Port to serve.")
@option("-P", "--pid-file", default=PID_FILE, help="Write the process id there.")
@option("-r", "--protocol", metavar="NAME", help="Another protocol; none in this version.")
@option("-R", "--round-robin", is_flag=True, help="Without effect: always so.")
@option(
    "-q",
    "--queue-type",
    default=BUILTIN,
    help=f"Where background jobs are kept: {BUILTIN} (in memory), {SQLITE} or {POSTGRES}.",
)
@option("--libsqlite3-db", metavar="FILE", help=f"The file of {SQLITE}; of one server alone.")
@option("--libsqlite3-table", metavar="NAME", help="Without effect: tables of a file are its own.")
@option(
    "--libpq-conninfo",
    metavar="TEXT",
    default="",
    help=f"How to connect for {POSTGRES}: host=... dbname=..., or a URL.",
)
@option(
    "--libpq-table",
    metavar="NAME",
    default=LIBPQ_TABLE,
    help=f"The name with which the tables of {POSTGRES} begin.",
)
@option(
    "--config-file",
    metavar="FILE",
    help=f"Options, separated by blanks and line ends. Default: {CONFIG_FILE}",
)
@option("--syslog", is_flag=True, help="Log to the system's log, too.")
@option("--coredump", is_flag=True, help="Without effect.")
@option("-t", "--threads", type=int, default=4, help="Without effect: one thread does it.")
@option("-u", "--user", metavar="USER", help="Become this user once the ports are bound.")
@option("--verbose", type=click.Choice(list(LEVELS)), default="ERROR", help="What to log.")
@option("-V", "--version", is_flag=True, help="Print the version and exit.")
@option(
    "-w",
    "--worker-wakeup",
    type=click.IntRange(0, 255),
    default=0,
    help="Sleeping workers to wake for each job; 0: all.",
)
@option("--check-args", is_flag=True, hidden=True)
@option(
    "--insecure-open",
    is_flag=True,
    help="Serve other machines although anybody there can then submit, take and cancel jobs.",
)
@option("--ssl", is_flag=True, help="Speak TLS, and nothing else, at the port.")
@option(
    "--ssl-ca-file",
    metavar="FILE",
    help="Authorities (PEM). They are read; no client is asked for a certificate.",
)
@option(
    "--ssl-certificate",
    metavar="FILE",
    default=SSL_CERTIFICATE,
    help="The server's certificate (PEM), followed by those between it and its authority.",
)
@option("--ssl-key", metavar="FILE", default=SSL_KEY, help="Its private key (PEM).")
@elsewhere_options
@click.pass_context
def gearmand_command(ctx: click.Context, /, **params: Any) -> int:  # noqa: ANN401
    """The job server with gearmand's options."""
    refuse_unknown_names(ctx)
    problem = missing_here(ctx)
    if params["check_args"]:
        # The form of the line is what is asked about; gearmand, too, judges the rest at the start.
        if problem is not None:
            click.echo(f"gearmand: these options are well formed, but: {problem}", err=True)
        return 0
    if params["help"]:
        click.echo(ctx.get_help())
        return 0
    if params["version"]:
        click.echo(f"\ngearmand {GEARMAND_VERSION} - trigear in gearmand's place")
        return 0
    if problem is not None:
        raise Failure(problem)
    plan = plan_of(ctx, os.getcwd())
    from trigear.cli import serve

    return serve.start(plan)


def refuse_unknown_names(ctx: click.Context) -> None:
    queue, protocol = ctx.params["queue_type"], ctx.params["protocol"]
    known = {name.lower() for name in (*QUEUES, *QUEUES_ELSEWHERE)}
    if queue.lower() not in known:
        raise Failure(
            f"--queue-type {queue}: there is no such queue; there are: {', '.join(QUEUES)}"
        )
    if protocol not in {None, "http"}:
        raise Failure(f"--protocol {protocol}: there is no such protocol; leave it out")


def missing_here(ctx: click.Context) -> str | None:
    """Why a server with these options cannot be had, in one line."""
    queue: str = ctx.params["queue_type"]
    if queue.lower() not in {name.lower() for name in QUEUES}:
        return f"--queue-type {queue} is not in this version; there are: {', '.join(QUEUES)}"
    if queue.lower() == SQLITE and not ctx.params["libsqlite3_db"]:
        return f"--queue-type {queue} needs --libsqlite3-db FILE"
    if ctx.params["protocol"] is not None:
        return f"--protocol {ctx.params['protocol']} is not in this version; leave it out"
    return None


def plan_of(ctx: click.Context, folder: str) -> Plan:
    """What the parsed options ask for; relative paths begin in ``folder``.

    Raises:
        Failure: a value cannot be used.
    """
    given = ctx.params
    target: str = given["log_file"]
    prefix: str | None = given["job_handle_prefix"]
    listen: str | None = given["listen"]
    try:
        engine = EngineConfig(
            handle_prefix=handle_prefix() if prefix is None else os.fsencode(prefix),
            version=GEARMAND_VERSION,
            verbosity=given["verbose"],
            exceptions=given["exceptions"],
            attempts=attempts_for(given["job_retries"]),
            backoff=0.0,
            dead_letters=False,
            wakeup=given["worker_wakeup"],
            drain_refuses=False,
        )
    except ConfigError as error:
        raise Failure(str(error)) from error
    config = ServerConfig(
        engine=engine,
        port=port_of(given["port"]),
        backlog=given["backlog"],
        keepalive=keepalive_of(given),
        grace=None,
        compat_gearmand=True,
    )
    if listen is not None:
        config = dataclasses.replace(config, listen=(listen,))
    if given["ssl"]:
        config = with_ssl(config, given, folder)
    return Plan(
        program="gearmand",
        config=config,
        store=store_of(given, folder),
        log=LogSettings(
            target=target if target in {"stderr", "none"} else absolute(target, folder),
            style=LogStyle.GEARMAND,
            level=given["verbose"],
            syslog=given["syslog"],
            forgiving=True,
            program="gearmand",
        ),
        pid_file=PidFileSettings(
            absolute(given["pid_file"], folder), required=was_given(ctx, "pid_file")
        ),
        daemon=given["daemon"],
        run_as=given["user"],
        run_as_option="--user",
        descriptors=given["file_descriptors"] or None,
        insecure_open=given["insecure_open"],
        notes=tuple(notes_on(ctx)),
        hint=LOOPBACK_HINT if listen is None else None,
        failure=FAILURE,
    )


def with_ssl(config: ServerConfig, given: Mapping[str, Any], folder: str) -> ServerConfig:
    """The same server with TLS at its port. As in gearmand the environment wins over options.

    Raises:
        Failure: a file cannot be used.
    """

    def path(name: str) -> str | None:
        chosen: str | None = os.environ.get(SSL_ENVIRONMENT[name]) or given[name]
        return None if chosen is None else absolute(chosen, folder)

    try:
        address = parse_address(config.listen[0], default_port=config.port, setting="--listen")
        if address.path is not None:
            raise Failure("--ssl: there is no TLS on a Unix socket; leave one of them out")
        if "://" in config.listen[0] and not address.tls:
            raise Failure(f"--ssl and --listen {config.listen[0]} contradict each other")
        authorities = path("ssl_ca_file")
        if authorities is not None:
            from trigear.security.tls import ClientTLS, build_client

            build_client(ClientTLS(ca=authorities))
        tls = settings_of(str(path("ssl_certificate")), str(path("ssl_key")))
    except ConfigError as error:
        raise Failure(str(error)) from error
    secure = str(dataclasses.replace(address, tls=True))
    return dataclasses.replace(config, listen=(secure,), tls=tls)


def store_of(given: Mapping[str, Any], folder: str) -> StorePlan:
    """Where the queue is.

    Raises:
        Failure: it cannot be there.
    """
    queue = given["queue_type"].lower()
    if queue == SQLITE:
        return StorePlan(absolute(given["libsqlite3_db"], folder))
    if queue == POSTGRES.lower():
        return StorePlan(place=postgresql_of(given).seen_from(folder))
    return StorePlan()


def postgresql_of(given: Mapping[str, Any]) -> Place:
    try:
        from trigear.stores.postgresql_place import place_of_conninfo
    except ImportError as error:
        raise Failure(f"--queue-type {given['queue_type']}: {NO_PSYCOPG}") from error
    try:
        return place_of_conninfo(given["libpq_conninfo"], given["libpq_table"])
    except ValueError as error:
        raise Failure(f"--libpq-conninfo and --libpq-table: {error}") from error


def notes_on(ctx: click.Context) -> list[str]:
    notes: list[str] = list(ctx.meta.get("trigear.notes", ()))
    idle = [
        name
        for name in (*SQLITE_OPTIONS[:2], *POSTGRES_OPTIONS, *SSL_OPTIONS, *ELSEWHERE_OPTIONS)
        if was_given(ctx, name[2:].replace("-", "_"))
    ]
    if ctx.params["ssl"]:
        idle = [name for name in idle if name not in SSL_OPTIONS]
    if ctx.params["queue_type"].lower() == SQLITE:
        if "--libsqlite3-table" in idle:
            notes.append("--libsqlite3-table: without effect: the file belongs to one server")
        if "--store-queue-on-shutdown" in idle:
            notes.append("--store-queue-on-shutdown: without effect: jobs are kept as they come")
        idle = [name for name in idle if name not in SQLITE_OPTIONS]
    if ctx.params["queue_type"].lower() == POSTGRES.lower():
        shown = ctx.get_parameter_source("libpq_conninfo") is ParameterSource.COMMANDLINE
        if shown and postgresql_of(ctx.params).secret:
            notes.append(
                "--libpq-conninfo: everybody on this machine can read a password on the command"
                " line; put it into ~/.pgpass, or into a file named with passfile="
            )
        idle = [name for name in idle if name not in POSTGRES_OPTIONS]
    if idle:
        tls = "" if ctx.params["ssl"] else " and no TLS"
        notes.append(f"without effect with this queue{tls}: {' '.join(idle)}")
    return notes


def was_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) in {
        ParameterSource.COMMANDLINE,
        ParameterSource.DEFAULT_MAP,
    }


def port_of(port: int) -> int:
    """The port, from `GEARMAND_PORT` if the options leave it at the default or name the default."""
    instead = os.environ.get("GEARMAND_PORT")
    if port != DEFAULT_PORT or not instead:
        return port
    try:
        return parse_port(instead)
    except ValueError as error:
        raise Failure(f"GEARMAND_PORT: {error}") from error


def keepalive_of(given: Mapping[str, Any]) -> Keepalive:
    """gearmand keeps every connection alive, with the system's times unless told otherwise."""

    def chosen(name: str) -> int | None:
        value: int = given[f"keepalive_{name}"]
        return value if given["keepalive"] and value > 0 else None

    return Keepalive(chosen("idle"), chosen("interval"), chosen("count"), user_timeout=None)
