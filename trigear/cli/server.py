"""`trigear server`: the job server with trigear's own options and defaults."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from trigear import __version__
from trigear.cli import config_file
from trigear.cli.audit_log import STDERR
from trigear.cli.logins import login_plan, with_doors, with_login_options
from trigear.cli.logs import LEVELS, LogSettings, LogStyle
from trigear.cli.manners import Manners, with_help, with_manners
from trigear.cli.plan import (
    PidFileSettings,
    Plan,
    absolute,
    at,
    attempts_for,
    handle_prefix,
)
from trigear.cli.store import parse_store, refuse_shown_secret, store_plan
from trigear.cli.tls import server_tls, with_tls_options
from trigear.cli.values import DURATION, NETWORK, PORT, SIZE, WHOLE_SECONDS, Kind, Whole
from trigear.engine.config import (
    EngineConfig,
    FunctionSettings,
    Keepalive,
    OnTimeout,
    ServerConfig,
    TenantSettings,
)
from trigear.engine.settings import BY_NAME
from trigear.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trigear.cli.listener_tables import ListenerTable
    from trigear.engine.doors import Networks

GEARMAND_FACE: Final = "gearmand-2"
STORE: Final = Kind("store", parse_store)
DEFAULTS: Final = ServerConfig()
FUNCTION_DEFAULTS: Final = (
    *("retry_failures", "backoff", "backoff_factor", "backoff_limit"),
    *("expires", "dead_letters", "dead_failures", "dead_keep"),
)
"""Options that are settings of functions as well, and mean the same there."""

KEEPALIVE: Final = Keepalive()


def setting_of(name: str) -> Kind:
    """The kind of value that a setting of functions has."""
    return Kind(name, BY_NAME[name].parse)


class ServerCommand(click.Command):
    """Hands over to gearmand's options when they are asked for: the two sets overlap in letters
    that mean different things, so one parser cannot read both."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,  # noqa: ANN401
    ) -> click.Context:
        face, rest = split_face(args)
        if face is None:
            return super().make_context(info_name, args, parent, **extra)
        if face != GEARMAND_FACE:
            raise click.UsageError(f"--compat {face}: the one face there is: {GEARMAND_FACE}")
        from trigear.cli.gearmand import gearmand_command

        return gearmand_command.make_context(f"{info_name} --compat {face}", rest, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["trigear.arguments"] = tuple(args)  # to be read again when the file changes
        return super().parse_args(ctx, args)


def split_face(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of `--compat`, if it is there, and the other arguments."""
    rest = list(args)
    for place, arg in enumerate(rest):
        if arg.startswith("--compat="):
            del rest[place]
            return arg.removeprefix("--compat="), rest
        if arg == "--compat" and place + 1 < len(rest):
            _, face = rest.pop(place), rest.pop(place)
            return face, rest
    return None, rest


def read_config(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Make the file's values the defaults of the other options."""
    path = value if value is not None else config_file.usual_place()
    if path is None or ctx.resilient_parsing:
        return None
    found = config_file.read(path, ctx)
    ctx.default_map = dict(found.server)
    ctx.meta["trigear.functions"] = found.functions
    ctx.meta["trigear.listeners"] = found.listeners
    ctx.meta["trigear.networks"] = found.networks
    ctx.meta["trigear.tenants"] = found.tenants
    return os.path.abspath(path)


@click.command(
    cls=ServerCommand,
    name="server",
    context_settings={"auto_envvar_prefix": "TRIGEAR_SERVER", "show_default": True},
    epilog="Values may also come from the environment (TRIGEAR_SERVER_PORT for --port) and from"
    " [server] in trigear.toml, with the options' names as keys; the command line wins over the"
    " environment, the environment over the file.",
)
@click.option(
    "-L",
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    default=DEFAULTS.listen,
    help="Where to serve: HOST, HOST:PORT, [IPv6]:PORT, gearman://HOST:PORT, gearmans://HOST:PORT"
    " (with TLS) or unix:PATH; repeatable.",
)
@click.option(
    "-p",
    "--port",
    type=PORT,
    default=DEFAULTS.port,
    help="Port of the addresses that name none.",
)
@click.option(
    "--allow",
    type=NETWORK,
    multiple=True,
    metavar="NETWORK",
    help="Let in these networks only; repeatable. Nothing named: all.",
)
@click.option(
    "--insecure-open",
    is_flag=True,
    help="Serve other machines although anybody there can then submit, take and cancel jobs.",
)
@with_tls_options
@with_login_options
@click.option(
    "--store",
    type=STORE,
    default="sqlite",
    metavar="STORE",
    callback=refuse_shown_secret,
    help="Where background jobs are kept: sqlite (in the state directory), sqlite:///PATH,"
    " postgresql://USER@HOST/DATABASE, or memory, where they are gone when the server stops.",
)
@click.option(
    "--results",
    metavar="URL",
    help="Where results are kept of functions that say so. Default: in the store, beside the jobs."
    " Other places come with packages that have an entry point for the URL's scheme.",
)
@click.option(
    "--state-dir",
    metavar="DIR",
    help="Where the server keeps its files. Default: $STATE_DIRECTORY, trigear in"
    " $XDG_STATE_HOME, /var/lib/trigear for root, else ~/.local/state/trigear.",
)
@click.option(
    "-j",
    "--job-retries",
    type=Whole(-1),
    default=10,
    metavar="N",
    help="Give a job up when it was lost with its worker or timed out for the N-th time;"
    " 0: the first time; -1: never.",
)
@click.option(
    "--on-timeout",
    type=click.Choice([choice.value for choice in OnTimeout]),
    default=OnTimeout.REASSIGN.value,
    help="What becomes of a job whose worker took too long.",
)
@click.option(
    "--outcomes",
    type=click.IntRange(min=0),
    default=DEFAULTS.engine.outcomes,
    metavar="N",
    help="Remember what became of so many jobs that are over, for each tenant.",
)
@click.option(
    "--retry-failures/--no-retry-failures",
    default=DEFAULTS.engine.retry_failures,
    help="Try a background job again that its worker lets fail.",
)
@click.option(
    "--backoff",
    type=setting_of("backoff"),
    default="auto",
    metavar="DURATION",
    help="How long a job waits for its second attempt; auto: not at all after its first lost"
    " attempt, then 1s.",
)
@click.option(
    "--backoff-factor",
    type=setting_of("backoff-factor"),
    default="2",
    metavar="NUMBER",
    help="How much longer it waits each further time.",
)
@click.option(
    "--backoff-limit",
    type=setting_of("backoff-limit"),
    default="5m",
    metavar="DURATION",
    help="How long it waits at most.",
)
@click.option(
    "--expires",
    type=setting_of("expires"),
    default="0s",
    metavar="DURATION",
    help="How long a background job may wait for its first attempt before it is given up; 0: any"
    " time.",
)
@click.option(
    "--dead-letters/--no-dead-letters",
    default=DEFAULTS.engine.dead_letters,
    help="Keep background jobs that are given up, as dead letters.",
)
@click.option(
    "--dead-failures/--no-dead-failures",
    default=DEFAULTS.engine.dead_failures,
    help="Keep those that their worker lets fail as well.",
)
@click.option(
    "--dead-keep",
    type=setting_of("dead-keep"),
    default="0s",
    metavar="DURATION",
    help="How long dead letters are kept; 0: for ever.",
)
@click.option(
    "--grace",
    type=DURATION,
    default="30s",
    metavar="SECONDS",
    help="How long running jobs may go on after the server was asked to stop.",
)
@click.option(
    "--max-packet",
    type=SIZE,
    default="64MiB",
    metavar="SIZE",
    help="Largest packet to accept, at most 512MiB.",
)
@click.option(
    "--keepalive/--no-keepalive", default=True, help="Test whether idle peers still live."
)
@click.option(
    "--keepalive-idle",
    type=WHOLE_SECONDS,
    default=f"{KEEPALIVE.idle}s",
    help="Silence before the first test.",
)
@click.option(
    "--keepalive-interval",
    type=WHOLE_SECONDS,
    default=f"{KEEPALIVE.interval}s",
    help="Time between tests.",
)
@click.option(
    "--keepalive-count",
    type=Whole(1),
    default=KEEPALIVE.count,
    metavar="N",
    help="Unanswered tests after which a peer is dead.",
)
@click.option(
    "--keepalive-timeout",
    type=WHOLE_SECONDS,
    default=f"{KEEPALIVE.user_timeout}s",
    help="How long sent bytes may stay unacknowledged.",
)
@click.option(
    "--log-level",
    type=click.Choice([name.lower() for name in LEVELS], case_sensitive=False),
    default="info",
    help="Least grave messages to log.",
)
@click.option(
    "-l",
    "--log-file",
    default="stderr",
    metavar="FILE",
    help="A file, or stderr, syslog or none. SIGHUP opens it anew.",
)
@click.option(
    "--log-format",
    type=click.Choice([LogStyle.HUMAN.value, LogStyle.JSON.value]),
    default=LogStyle.HUMAN.value,
    help="How a line looks.",
)
@click.option(
    "--audit-log",
    metavar="FILE",
    help="Write down who came and who was refused, and who changed what, as JSON lines; -: on"
    " standard error. SIGHUP opens it anew.",
)
@click.option("-P", "--pid-file", metavar="FILE", help="Write the process id there.")
@click.option("-d", "--daemon", is_flag=True, help="Detach, and return once the server serves.")
@click.option(
    "-u",
    "--run-as",
    metavar="USER[:GROUP]",
    help="Become this user once everything that needs root is done.",
)
@click.option(
    "--file-descriptors",
    type=Whole(64),
    metavar="N",
    help="Files and connections to allow. Default: as many as the system does.",
)
@click.option(
    "--config",
    envvar="TRIGEAR_CONFIG",
    is_eager=True,
    callback=read_config,
    metavar="FILE",
    help="Configuration file. Default: trigear/trigear.toml in $XDG_CONFIG_HOME, then in /etc.",
)
@click.option(
    "--compat",
    metavar=GEARMAND_FACE,
    allow_from_autoenv=False,
    help="Take gearmand's options and defaults instead of these; see 'gearmand --help'.",
)
@click.option(
    "--check",
    "--check-args",
    is_flag=True,
    allow_from_autoenv=False,
    help="Check options and configuration, start nothing.",
)
@with_manners
@with_help
@click.pass_context
def server_command(ctx: click.Context, /, *, check: bool, **params: Any) -> int:  # noqa: ANN401
    """Run the job server until SIGTERM or SIGINT; a second signal does not wait for jobs."""
    plan = plan_of(ctx, os.getcwd())
    from trigear.cli import serve

    return serve.check(plan) if check else serve.start(plan)


def plan_of(ctx: click.Context, folder: str) -> Plan:
    """What the parsed options ask for.

    Args:
        ctx: the context of the parsed command.
        folder: where relative paths begin.

    Raises:
        ConfigError, click.UsageError: the options contradict each other or cannot be used.
    """
    given = ctx.params
    manners = ctx.ensure_object(Manners)
    log = log_settings(ctx, manners, folder)
    if given["daemon"] and log.target == "stderr":
        raise click.UsageError(
            "--daemon leaves the terminal, where the log goes: name a --log-file, or syslog or"
            " none",
            ctx,
        )
    engine = EngineConfig(
        handle_prefix=handle_prefix(),
        version=__version__,
        verbosity=log.level,
        max_packet=given["max_packet"],
        attempts=attempts_for(given["job_retries"]),
        on_timeout=OnTimeout(given["on_timeout"]),
        outcomes=given["outcomes"],
        **{name: given[name] for name in FUNCTION_DEFAULTS},
        functions=functions_of(ctx),
        tenants=tenants_of(ctx),
    )
    tables, networks = listeners_of(ctx)
    common = listen_of(ctx, tables, folder)
    config = ServerConfig(
        engine=engine,
        listen=common + tuple(at(folder, table.address) for table in tables),
        port=given["port"],
        allow=tuple(given["allow"]),
        keepalive=keepalive_of(ctx),
        grace=given["grace"],
        tls=server_tls(given, common + bare(tables), folder),
        max_unauthenticated=given["max_unauthenticated"],
        max_unauthenticated_per_address=given["max_unauthenticated_per_address"],
        limit_exempt=tuple(given["limit_exempt"]),
    )
    config = with_doors(config, given, tables, networks, folder)
    pid_file, audit = given["pid_file"], given["audit_log"]
    arguments: tuple[str, ...] = ctx.meta["trigear.arguments"]
    return Plan(
        config=config,
        store=store_plan(given["store"], given["state_dir"], folder),
        results=given["results"],
        log=log,
        audit=audit if audit in {None, STDERR} else absolute(audit, folder),
        pid_file=PidFileSettings(absolute(pid_file, folder)) if pid_file else None,
        daemon=given["daemon"],
        run_as=given["run_as"],
        descriptors=given["file_descriptors"],
        insecure_open=given["insecure_open"],
        logins=login_plan(given, config, networks, folder),
        quiet=manners.quiet,
        reread=lambda: reread(arguments, given["config"], folder),
    )


def listeners_of(ctx: click.Context) -> tuple[Sequence[ListenerTable], Networks | None]:
    """What the file says of single addresses, and of networks for all others."""
    return ctx.meta.get("trigear.listeners", ()), ctx.meta.get("trigear.networks")


def listen_of(ctx: click.Context, tables: Sequence[ListenerTable], folder: str) -> tuple[str, ...]:
    """The addresses that `--listen` names; none where the file has some and nobody named any.

    Raises:
        ConfigError: one of them is in the file as well.
    """
    if tables and ctx.get_parameter_source("listen") is ParameterSource.DEFAULT:
        return ()
    listen = tuple(at(folder, address) for address in ctx.params["listen"])
    for table in tables:
        if at(folder, table.address) in listen:
            raise ConfigError(
                f"{table.place} address",
                f"{table.address} is named by --listen as well",
                "name it once",
            )
    return listen


def bare(tables: Sequence[ListenerTable]) -> tuple[str, ...]:
    """The addresses of the file that have no certificate of their own."""
    return tuple(table.address for table in tables if "cert" not in table.values)


def functions_of(ctx: click.Context) -> Mapping[bytes, FunctionSettings]:
    """The settings of single functions that the file has."""
    found: Mapping[bytes, FunctionSettings] = ctx.meta.get("trigear.functions", {})
    return found


def tenants_of(ctx: click.Context) -> Mapping[str, TenantSettings]:
    """The tenants that the file declares."""
    found: Mapping[str, TenantSettings] = ctx.meta.get("trigear.tenants", {})
    return found


def reread(arguments: Sequence[str], path: str | None, folder: str) -> Plan:
    """What the same command line asks for now that the file may have changed.

    Raises:
        ConfigError, click.ClickException: the file cannot be used any more.
    """
    again = [*arguments, "--config", path] if path is not None else list(arguments)
    with server_command.make_context("server", again, obj=Manners()) as ctx:
        return plan_of(ctx, folder)


def on_command_line(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def log_settings(ctx: click.Context, manners: Manners, folder: str) -> LogSettings:
    target: str = ctx.params["log_file"]
    level: str = ctx.params["log_level"].upper()
    if manners.verbose or manners.quiet:
        if on_command_line(ctx, "log_level"):
            flag = "--verbose" if manners.verbose else "--quiet"
            raise click.UsageError(f"{flag} and --log-level both say what to log: leave one out")
        level = "DEBUG" if manners.verbose else "ERROR"
    return LogSettings(
        target=target if target in {"stderr", "none", "syslog"} else absolute(target, folder),
        style=LogStyle(ctx.params["log_format"]),
        level=level,
    )


def keepalive_of(ctx: click.Context) -> Keepalive | None:
    names = ("idle", "interval", "count", "timeout")
    if not ctx.params["keepalive"]:
        idle = [name for name in names if on_command_line(ctx, f"keepalive_{name}")]
        if idle:
            raise click.UsageError(
                f"--no-keepalive and --keepalive-{idle[0]} contradict each other: leave one out",
                ctx,
            )
        return None
    values = [ctx.params[f"keepalive_{name}"] for name in names]
    return Keepalive(*values)
