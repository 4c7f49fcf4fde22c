"""Starting a server as a process, keeping it, ending it: the same for both faces.

What happens before Trio runs, and in which order, is told in :mod:`trigear.cli.process`. Signals:

=========  ======================================  ===========================================
signal     trigear                                 gearmand's face
=========  ======================================  ===========================================
SIGTERM,   drain: what runs may end within         stop at once
SIGINT     `--grace`; a second one stops at once
SIGUSR1    drain                                   accept nobody new, end when no job is left
SIGHUP     reopen the log, read the configuration  reopen the log
=========  ======================================  ===========================================
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Final

import click

from trigear import __version__
from trigear.broker.quotas import Quotas
from trigear.cli import exposure, logins, process, tls
from trigear.cli.audit_log import STDERR, AuditLog
from trigear.cli.logs import Log, LogStyle, give_file_to
from trigear.cli.manners import remark
from trigear.cli.report import Failure, Status, line_for, only_one, status_of
from trigear.engine.config import EngineConfig
from trigear.engine.settings import SETTINGS
from trigear.errors import TrigearError
from trigear.model import COMPILED, counted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from trigear.cli.plan import PidFileSettings, Plan
    from trigear.engine.config import ServerConfig
    from trigear.runtime.server import Server
    from trigear.security.tls import Listening
    from trigear.stores.results import ResultStore

log: Final = logging.getLogger("trigear.server")

NO_QUOTAS: Final = (
    "tenants have quotas in trigear.toml, and nobody has to log in: nobody is held to them; --auth"
    " says how peers log in"
)

RENEWABLE: Final = (
    "functions",
    "tenants",
    # Some that a function can have, the server has none of.
    *sorted(
        {setting.field for setting in SETTINGS}
        & {each.name for each in dataclasses.fields(EngineConfig)}
    ),
)
"""Settings of the engine that a running server takes over from a changed file."""


def check(plan: Plan) -> int:
    """Say whether ``plan`` could be started, as far as that can be known without starting."""
    wide = exposure.wide_addresses(plan.config)
    user = None if plan.run_as is None else process.identity(plan.run_as, plan.run_as_option)
    logins.judged(wide, plan.config, plan.logins, insecure_open=plan.insecure_open)
    if plan.logins is not None:
        logins.Users(plan.logins, () if user is None else (user.uid,), only_look=True)
    tls.opened(plan.config)
    plan.store.check()
    results = results_of(plan)
    elsewhere = "" if results is None else f"; results: {results.name}"
    listens = ", ".join(plan.config.listen)
    for note in idle_settings(plan):
        remark(f"warning: {note}")
    click.echo(f"good: would listen on {listens}; store: {plan.store}{elsewhere}")
    return Status.DONE


def idle_settings(plan: Plan) -> list[str]:
    """What is set and means nothing, for people."""
    quotas = any(each.quotas != Quotas() for each in plan.config.engine.tenants.values())
    return [NO_QUOTAS] if quotas and plan.logins is None else []


def start(plan: Plan) -> int:
    """Serve as ``plan`` says until a signal ends it.

    Returns:
        The exit status.

    Raises:
        Failure: it could not be started, or broke; the message is the line to print.
    """
    launch = Launch(plan)
    try:
        return launch.run()
    except Exception as error:
        cause = only_one(error)
        launch.status = status_of(cause)
        if launch.status == Status.BUG:
            raise
        if plan.failure is not None:
            launch.status = plan.failure
        raise Failure(line_for(cause), launch.status) from error
    finally:
        launch.clean_up()


def load_modules() -> None:
    """Load what serving needs, while it can be read: the user to become may have no right to look
    into the place where Python and its modules are."""
    import trigear.runtime.server
    import trigear.stores.sqlite  # noqa: F401
    from trigear.engine.handles import HandleMint

    # cryptography loads modules of its own when it is first used.
    HandleMint(b"H", bytes(16))


def results_of(plan: Plan) -> ResultStore | None:
    """The place where results are kept, not yet opened; None if that is the store.

    Raises:
        ConfigError: there is no such place.
    """
    if plan.results is None:
        return None
    from trigear.stores.results import result_store

    return result_store(plan.results)


class Launch:
    """One start of a server: holds what must be let go of at the end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.status: int = Status.BUG
        self.daemon: process.Daemon | None = None
        self.pid_file: process.PidFile | None = None
        self.log: Log | None = None
        self.audit: AuditLog | None = None
        self.notes = list(plan.notes)
        self.users: logins.Users | None = None
        self.results: ResultStore | None = None

    def run(self) -> int:
        load_modules()
        import trio

        plan = self.plan
        # Now, because it loads modules as well.
        self.results = results_of(plan)
        wide = exposure.wide_addresses(plan.config)
        self.notes += self.judged(wide)
        self.notes += idle_settings(plan)
        user = None if plan.run_as is None else process.identity(plan.run_as, plan.run_as_option)
        if plan.logins is not None:
            self.users = logins.Users(plan.logins, () if user is None else (user.uid,))
            self.notes += self.users.notes
        descriptors = process.raise_descriptor_limit(plan.descriptors)
        if plan.daemon:
            self.daemon = process.detach()
        listening = tls.opened(plan.config)
        sockets = self.bind()
        if plan.pid_file is not None:
            self.pid_file = self.write_pid_file(plan.pid_file)
        plan.store.prepare(user)
        if self.users is not None:
            # Who reads the claim sends a signal, which is to wait until it is heeded.
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            self.users.claim(", ".join(plan.config.listen))
        if user is not None:
            self.hand_over(user, sockets)
            process.become(user)
        self.log = Log(plan.log)
        if self.log.complaint:
            self.notes.append(self.log.complaint)
        if plan.audit is not None:
            # Behind all that becomes another process: it has a thread.
            self.audit = AuditLog(plan.audit)
        engine = dataclasses.replace(plan.config.engine, pid=os.getpid())
        config = dataclasses.replace(plan.config, engine=engine)
        service = Service(self, self.log, config, descriptors)
        self.status = trio.run(service.run, sockets, listening)
        return self.status

    def bind(self) -> list[socket.socket]:
        from trigear.runtime.listeners import bind

        sockets = bind(self.plan.config)
        self.judged(exposure.wide_sockets(sockets))
        return sockets

    def judged(self, wide: Mapping[str, str]) -> list[str]:
        """What is to be said of the addresses that other machines can reach.

        Raises:
            ConfigError: they may not be served like this.
        """
        plan = self.plan
        return logins.judged(wide, plan.config, plan.logins, insecure_open=plan.insecure_open)

    def hand_over(self, user: process.Identity, sockets: list[socket.socket]) -> None:
        """Give what was made as root to the user who will need it."""
        if self.plan.log.is_file:
            give_file_to(self.plan.log.target, user.uid, user.gid)
        if self.plan.audit not in {None, STDERR}:
            give_file_to(str(self.plan.audit), user.uid, user.gid, mode=0o600)
        for bound in sockets:
            if bound.family == socket.AF_UNIX:
                os.chown(bound.getsockname(), user.uid, user.gid, follow_symlinks=False)

    def write_pid_file(self, settings: PidFileSettings) -> process.PidFile | None:
        try:
            return process.PidFile(settings.path)
        except OSError as error:
            if not settings.required:
                return None
            status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
            raise Failure(
                f"pid file {settings.path}: {error.strerror}; name another with --pid-file",
                status,
            ) from error

    def clean_up(self) -> None:
        if self.users is not None:
            self.users.release()
        if self.daemon is not None:
            self.daemon.ended(self.status)
        if self.pid_file is not None:
            self.pid_file.remove()
        if self.audit is not None:
            self.audit.close()
        if self.log is not None:
            self.log.close()


class Service:
    """The server and the signals that steer it, under Trio."""

    def __init__(self, launch: Launch, opened: Log, config: ServerConfig, descriptors: int) -> None:
        self.plan = launch.plan
        self.daemon = launch.daemon
        self.notes = launch.notes
        self.users = launch.users
        self.results = launch.results
        self.log = opened
        self.audit = launch.audit
        self.config = config
        self.descriptors = descriptors
        self.status = Status.DONE

    async def run(self, sockets: list[socket.socket], listening: Mapping[str, Listening]) -> int:
        """Serve on ``sockets`` until a signal ends it; returns the exit status."""
        import trio

        from trigear.runtime.server import serve

        async def until_it_ends(task_status: trio.TaskStatus[Server]) -> None:
            await serve(
                self.config,
                sockets,
                store=self.plan.store.build(),
                tls=listening,
                logins=None if self.users is None else self.users.logins,
                results=self.results,
                audit=self.audit,
                own_process=True,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
        with trio.open_signal_receiver(*numbers) as arriving:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
            async with trio.open_nursery() as nursery:
                server: Server = await nursery.start(until_it_ends)
                # By way of the signal, so that it is one thing after another.
                server.on_reload = lambda: os.kill(os.getpid(), signal.SIGHUP)
                self.announce(server)
                if self.daemon is not None:
                    self.daemon.ready()
                await self.heed(arriving, server)
        self.say(f"stopped; pid {os.getpid()}", shown=False)
        return self.status

    def announce(self, server: Server) -> None:
        """Say that it serves now, where, and what to know about it."""
        for note in self.notes:
            self.warn(note)
        if self.plan.hint is not None:
            self.say(self.plan.hint)
        addresses = ", ".join(str(address) for address in server.addresses)
        loaded = ""
        if server.loading:
            loaded = f", {counted(server.restored, 'job')} loaded and more to come"
        elif server.restored:
            loaded = f", {counted(server.restored, 'job')} in it"
        elsewhere = "" if self.results is None else f"; results: {self.results.name}"
        compiled = " (compiled)" if COMPILED else ""
        face = " with gearmand's options" if self.config.compat_gearmand else ""
        self.say(
            f"trigear {__version__}{compiled}{face} listening on {addresses};"
            f" store: {self.plan.store}{loaded}{elsewhere}; pid {os.getpid()}"
        )
        log.info("up to %d open files and connections", self.descriptors)

    def say(self, text: str, *, shown: bool = True) -> None:
        """Log ``text``; let the person who starts the server see it, too, wherever the log goes."""
        log.info(text)
        machine_reads_stderr = self.log.on_stderr and self.plan.log.style is LogStyle.JSON
        seen = self.log.on_stderr and log.isEnabledFor(logging.INFO)
        if shown and not (seen or machine_reads_stderr or self.plan.quiet):
            self.tell(text)

    def warn(self, text: str) -> None:
        log.warning(text)
        if not self.log.on_stderr or not log.isEnabledFor(logging.WARNING):
            self.tell(f"warning: {text}")

    def tell(self, text: str) -> None:
        """Print beside the log. A terminal or pipe that is gone is no reason to stop serving."""
        with contextlib.suppress(OSError):
            click.echo(f"{self.plan.program}: {text}", err=True)

    async def heed(self, arriving: AsyncIterator[int], server: Server) -> None:
        """Do what signals ask for, until the server has ended."""
        draining = False
        async for number in arriving:
            name = signal.Signals(number).name
            if number == signal.SIGHUP:
                self.renew(server)
            elif number == signal.SIGUSR1 or not (draining or self.config.compat_gearmand):
                log.info("%s: draining", name)
                draining = True
                server.drain()
            else:
                log.info("%s: stopping at once", name)
                if draining and not self.config.compat_gearmand:
                    self.status = Status.INTERRUPTED
                server.stop()

    def renew(self, server: Server) -> None:
        """Open the log anew, then take the settings of a changed file; what fails stays as it is,
        because a running server is worth more than a new setting."""
        done = []
        try:
            self.log.reopen()
        except OSError as error:
            log.error("SIGHUP: log file %s: %s; the old one stays", error.filename, error.strerror)
        else:
            done.append("log reopened")
        if self.audit is not None:
            try:
                self.audit.reopen()
            except OSError as error:
                log.error(
                    "SIGHUP: audit log %s: %s; the old one stays", error.filename, error.strerror
                )
            else:
                done.append("audit log reopened")
        if self.plan.reread is not None:
            try:
                taken = self.take(self.plan.reread(), server)
            except (click.ClickException, Failure, TrigearError, OSError) as error:
                log.error("SIGHUP: %s; the old configuration stays", line_for(error))
                server.note("config.reload", reason=line_for(error))
            else:
                done.append(taken)
        if self.users is not None:
            try:
                done.append(self.users.reload(server))
            except (Failure, TrigearError) as error:
                log.error("SIGHUP: %s; the users stay who they were", line_for(error))
                server.note("auth.reload", reason=line_for(error))
        log.info("SIGHUP: %s", ", ".join(done) or "nothing done")

    def take(self, wanted_plan: Plan, server: Server) -> str:
        """Hand over the settings that may change while the server runs, TLS with its files read
        anew.

        Raises:
            ConfigError: a file of TLS cannot be used; nothing has changed then.
        """
        fresh = wanted_plan.config
        changes = {name: getattr(fresh.engine, name) for name in RENEWABLE}
        engine = dataclasses.replace(self.config.engine, **changes)
        server.reload(
            dataclasses.replace(
                self.config, engine=engine, tls=fresh.tls, listeners=fresh.listeners
            )
        )
        fixed, wanted = fixed_settings(self.plan.config), fixed_settings(fresh)
        later = sorted(name for name in fixed if fixed[name] != wanted[name])
        if wanted_plan.store != self.plan.store:
            later.append("store")
        if wanted_plan.logins != self.plan.logins:
            later.append("auth")
        later += [
            name
            for name in ("store", "results", "audit")
            if getattr(wanted_plan, name) != getattr(self.plan, name)
        ]
        if (self.plan.config.tls is None) != (fresh.tls is None):
            later.append("tls")
        read = "configuration read"
        if self.plan.config.tls is not None:
            read = "configuration and certificates read"
        return f"{read}; takes a restart: {', '.join(later)}" if later else read


def fixed_settings(config: ServerConfig) -> dict[str, object]:
    """What stays as it was at the start, by name."""
    values = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
    engine = values.pop("engine")
    values["listeners"] = {
        text: dataclasses.replace(own, tls=None) for text, own in config.listeners.items()
    }
    values |= {each.name: getattr(engine, each.name) for each in dataclasses.fields(engine)}
    # Not told by the file: -v may have stood before the command, the process id comes later.
    return {name: values[name] for name in values.keys() - {*RENEWABLE, "verbosity", "pid", "tls"}}
