"""`trigear worker`: do jobs, with a worker written in Python or with a program for each job."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import os
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from trigear.cli import process
from trigear.cli.connecting import with_server
from trigear.cli.logs import LEVELS, Log, LogSettings, LogStyle, give_file_to
from trigear.cli.manners import Manners, with_manners
from trigear.cli.manual import examples
from trigear.cli.plan import absolute
from trigear.cli.report import Failure, Status
from trigear.cli.values import DURATION, SIZE, Whole
from trigear.cli.worker_plan import WorkerPlan
from trigear.model import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.cli.connecting import Servers

log: Final = logging.getLogger("trigear.worker")


class WorkerCommand(click.Command):
    """Reads options behind `module:worker`, but leaves those behind a program's name to it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        # What is not given is not there, or a mark of click's.
        words, functions = given.get("words"), given.get("functions")
        rest = words if isinstance(words, tuple) else ()
        if rest and not isinstance(functions, list) and not ctx.resilient_parsing:
            # The first word is the target. What follows it are options again.
            args = [*args[: len(args) - len(rest)], *rest[1:], rest[0]]
            if "--" in rest[1:]:
                raise click.UsageError(
                    f"'{rest[0]}' and a command after --: name the function that the command"
                    " does with -f",
                    ctx,
                )
        return super().parse_args(ctx, args)


@click.command(
    cls=WorkerCommand,
    name="worker",
    context_settings={
        "allow_interspersed_args": False,
        "auto_envvar_prefix": "TRIGEAR_WORKER",
        "max_content_width": 100,
    },
    epilog=examples(
        """
        trigear worker shop.jobs:worker                    # the Worker `worker` of shop/jobs.py
        trigear worker shop.jobs:worker --jobs 8 --processes 4
        trigear worker shop.jobs:worker --run-as www-data --max-memory 512MiB
        trigear worker shop.jobs:worker --user shop --password-file jobs.password --tls
        trigear worker -f upper -- tr a-z A-Z              # a program for each job
        trigear worker -f resize --jobs 4 --timeout 30s -- convert - -resize 200x200 -
        trigear worker -f log                              # prints each workload
        kill -HUP $(cat worker.pid)                        # new code, no job lost
        """
    ),
)
@click.argument("words", metavar="MODULE:WORKER | -f FUNCTION... [-- COMMAND...]", nargs=-1)
@click.option(
    "-f",
    "--function",
    "functions",
    multiple=True,
    metavar="FUNCTION",
    help="Function that COMMAND does: the workload is its input, its output the result; exit status"
    " 0 or the job has failed. Repeatable. Without a COMMAND workloads are printed.",
)
@click.option("-n", "whole_lines", is_flag=True, help="Send each line of output as data.")
@click.option("-N", "stripped_lines", is_flag=True, help="The same, without the lines' ends.")
@click.option(
    "--timeout",
    type=DURATION,
    metavar="DURATION",
    help="How long COMMAND may take for a job, before it is killed and the job goes to others.",
)
@click.option("-t", "milliseconds", type=Whole(1), metavar="MS", help="The same, in ms.")
@click.option("-j", "--jobs", type=Whole(1), metavar="N", help="Jobs at once in each process.")
@click.option(
    "--processes",
    type=Whole(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes to keep at work.",
)
@click.option(
    "--max-jobs",
    type=Whole(1),
    metavar="N",
    help="Replace a process after so many jobs.",
)
@click.option(
    "--max-memory", type=SIZE, metavar="SIZE", help="Replace a process that uses more than this."
)
@click.option("-c", "count", type=Whole(1), metavar="N", help="End after N jobs.")
@click.option(
    "--grace",
    type=DURATION,
    default="30s",
    show_default=True,
    metavar="DURATION",
    help="How long running jobs may go on after a stop or a replacement; then they go to others.",
)
@click.option("--name", metavar="NAME", help="What servers call the processes.")
@click.option(
    "-u", "--run-as", metavar="USER[:GROUP]", help="Become this user before anything is done."
)
@click.option("--chroot", metavar="DIR", help="Make DIR the root of what is done.")
@click.option("--allow-root", is_flag=True, help="Do jobs as root although nobody named a user.")
@click.option("-i", "-P", "--pid-file", metavar="FILE", help="Write the process id there.")
@click.option("-d", "--daemon", is_flag=True, help="Detach, and return once it is at work.")
@click.option(
    "--log-level",
    type=click.Choice([name.lower() for name in LEVELS], case_sensitive=False),
    default="info",
    show_default=True,
    help="Least grave messages to log.",
)
@click.option(
    "-l",
    "--log-file",
    default="stderr",
    show_default=True,
    metavar="FILE",
    help="A file, or stderr, syslog or none.",
)
@click.option(
    "--log-format",
    type=click.Choice([LogStyle.HUMAN.value, LogStyle.JSON.value]),
    default=LogStyle.HUMAN.value,
    show_default=True,
    help="How a line looks.",
)
@with_manners
@with_server
@click.help_option("-H", "--help")
@click.pass_context
def worker_command(ctx: click.Context, /, *, servers: Servers, **given: Any) -> int:  # noqa: ANN401
    """Do jobs until SIGTERM or SIGINT; a second signal does not wait for jobs.

    MODULE:WORKER names a trigear.Worker in a Python module, which is imported from here or from
    PYTHONPATH. SIGHUP starts new processes, with the code as it is now, and has the old ones finish
    what they have begun. A service manager is told when functions are announced (NOTIFY_SOCKET).
    A password is read at the start and at SIGHUP, by whoever starts this.

    Exit status: 0 stopped, 2 wrong options or no such worker, 4 not allowed or not let in by the
    server, 130 stopped at once.
    """
    plan = plan_of(ctx, servers, given)
    refuse_root(given)
    servers.access.warn()
    return run(with_password(plan, servers), given, lambda plan: with_password(plan, servers))


for option in worker_command.params:
    if option.name == "server" and isinstance(option, click.Option):
        # Others take one of the servers, a worker works for all of them.
        option.help = (option.help or "").replace("the first that answers is taken", "all of them")


def refuse_root(given: dict[str, Any]) -> None:
    """Root is for those who mean it."""
    if os.geteuid() == 0 and given["run_as"] is None and not given["allow_root"]:
        raise Failure(
            "jobs would be done as root: name another user with --run-as USER, or say that it is"
            " meant with --allow-root",
            Status.NOT_ALLOWED,
        )
    if given["chroot"] is not None and os.geteuid() != 0:
        raise Failure(
            f"--chroot {given['chroot']}: only root can change the root; start as root with"
            " --run-as USER, or leave the option out",
            Status.NOT_ALLOWED,
        )


def with_password(plan: WorkerPlan, servers: Servers) -> WorkerPlan:
    """The plan with the password as it is now, if there is a file with it.

    Raises:
        ConfigError: the file cannot be used.
        click.UsageError: there is neither a file nor a terminal.
    """
    if plan.password is not None and not servers.access.password_file:
        return plan  # it was asked for
    password = servers.access.password()
    text = None if password is None else password.decode("utf-8", "surrogateescape")
    return dataclasses.replace(plan, password=text)


def plan_of(ctx: click.Context, servers: Servers, given: dict[str, Any]) -> WorkerPlan:
    """What the options ask for.

    Raises:
        click.UsageError: they contradict each other, or something is missing.
        Failure: the user is none.
    """
    words, functions = given["words"], given["functions"]
    problems = {
        "name a worker as module:worker, or functions with -f": not words and not functions,
        "-n and -N both say how lines leave: leave one out": given["whole_lines"]
        and given["stripped_lines"],
        "--timeout and -t both say how long: leave one out": given["timeout"] is not None
        and given["milliseconds"] is not None,
        "-c and --max-jobs both count jobs: leave one out": given["count"] is not None
        and given["max_jobs"] is not None,
        "-c counts the jobs of one process: leave --processes out": given["count"] is not None
        and given["processes"] > 1,
        "--daemon leaves the terminal, where the log goes: name a --log-file, or syslog or none": (
            given["daemon"] and given["log_file"] == "stderr"
        ),
    }
    target = None
    if words and not functions:
        target = words[-1]  # `parse_args` put it there
        name, colon, attribute = target.partition(":")
        problems |= {
            f"'{target}' is a path, and Python imports modules: {as_module(name, attribute)}": (
                is_path(name)
            ),
            f"'{target}' does not say which worker: write module:worker, as in"
            f" {name or 'module'}:worker": not (colon and name and attribute),
            f"'{' '.join(words[:-1])}' after {target}: a command needs -f FUNCTION": len(words) > 1,
            "-n, -N, --timeout and -t are for commands: a worker says in its code how long its"
            " functions may take": any(
                given[key] for key in ("whole_lines", "stripped_lines", "timeout", "milliseconds")
            ),
        }
    for problem, is_so in problems.items():
        if is_so:
            raise click.UsageError(problem, ctx)
    for function in functions:
        if not function:
            raise click.UsageError("-f '': a function has a name", ctx)
    if given["name"] is not None and (
        not given["name"].isprintable() or len(given["name"].split()) != 1
    ):
        raise click.UsageError(f"--name '{given['name']}': one word is needed", ctx)
    if given["run_as"] is not None:
        process.identity(given["run_as"])
    here, folder = os.getcwd(), folder_of_start()
    if given["chroot"] is not None and not os.path.isdir(given["chroot"]):
        raise Failure(f"--chroot {given['chroot']}: is no folder", Status.USAGE)
    manners = ctx.ensure_object(Manners)
    level = given["log_level"].upper()
    if manners.verbose or manners.quiet:
        level = "DEBUG" if manners.verbose else "ERROR"
    milliseconds, log_file = given["milliseconds"], given["log_file"]
    access = servers.access
    secure = access.means_tls or any(address.tls for address in servers.addresses)
    if secure and given["chroot"] is not None and not (access.ca or access.insecure):
        raise click.UsageError(
            "TLS inside another root needs --ca FILE: the authorities of the system are not in"
            " there",
            ctx,
        )
    if access.means_tls:
        access.check()
    return WorkerPlan(
        servers=tuple(map(str, servers.addresses)),
        folder=folder,
        target=target,
        functions=tuple(functions),
        command=tuple(words) if functions else (),
        lines="whole" if given["whole_lines"] else "stripped" if given["stripped_lines"] else None,
        timeout=milliseconds / 1000 if milliseconds is not None else given["timeout"],
        jobs=given["jobs"],
        name=given["name"],
        total=given["count"] if given["count"] is not None else given["max_jobs"],
        once=given["count"] is not None,
        max_memory=given["max_memory"],
        grace=given["grace"],
        run_as=given["run_as"],
        chroot=absolute(given["chroot"], here) if given["chroot"] is not None else None,
        log_target=log_file
        if log_file in {"stderr", "none", "syslog"}
        else absolute(log_file, here),
        log_style=given["log_format"],
        log_level=level,
        detached=given["daemon"],
        tls=access.means_tls,
        ca=absolute(access.ca, here) if access.ca else "",
        cert=absolute(access.cert, here) if access.cert else "",
        key=absolute(access.key, here) if access.key else "",
        insecure=access.insecure,
        user=access.user,
        debug=manners.debug,
        color=manners.color,
    )


def is_path(name: str) -> bool:
    return "/" in name or name.endswith(".py")


def as_module(path: str, attribute: str) -> str:
    """How a worker is named that somebody named by the path of its file."""
    attribute = attribute or "worker"
    clean = os.path.normpath(path.removesuffix(".py"))
    folder, module = os.path.split(clean)
    if os.path.isabs(clean) or folder.startswith(".."):
        return f"write `cd {shlex.quote(folder)} && trigear worker {module}:{attribute}`"
    return f"write {clean.replace('/', '.')}:{attribute}"


def folder_of_start() -> str:
    """Where this was started, with the links that led there: they may lead to newer code later."""
    named = os.environ.get("PWD", "")
    with contextlib.suppress(OSError, ValueError):
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    return os.getcwd()


def run(
    plan: WorkerPlan, given: dict[str, Any], renewed: Callable[[WorkerPlan], WorkerPlan]
) -> int:
    """Keep worker processes until a signal ends it; the exit status."""
    from trigear.cli.supervisor import Supervisor, notify

    pid_path = absolute(given["pid_file"], os.getcwd()) if given["pid_file"] else None
    daemon = process.detach() if given["daemon"] else None
    status: int = Status.BUG
    with contextlib.ExitStack() as stack:
        if daemon is not None:
            stack.callback(lambda: daemon.ended(status))
        settings = LogSettings(plan.log_target, LogStyle(plan.log_style), plan.log_level)
        user = None if plan.run_as is None else process.identity(plan.run_as)
        if settings.is_file and user is not None:
            give_file_to(settings.target, user.uid, user.gid)
        # This process is root, but its log may be in a folder where the user can put a link.
        with process.rights_of(user):
            stack.callback(Log(settings).close)
        if pid_path is not None:
            stack.callback(write_pid_file(pid_path).remove)
        if user is not None:
            why = why_stay_root(plan, user)
            if why is None:
                process.become(user)
                plan = dataclasses.replace(plan, run_as=None)
                user = None
            else:
                level = logging.WARNING if plan.chroot is None else logging.DEBUG
                log.log(level, "the supervisor stays root: %s", why)

        def ready() -> None:
            processes = given["processes"]
            what = counted(processes, "process", "processes")
            log.info("at work: %s; supervised by process %d", what, os.getpid())
            notify("READY=1")
            if daemon is not None:
                daemon.ready()

        try:
            others = None if user is None else user.uid
            status = Supervisor(plan, given["processes"], ready, others, renewed).run()
        except Failure as error:
            status = error.status
            raise
    return status


def why_stay_root(plan: WorkerPlan, user: process.Identity) -> str | None:
    """Why the supervisor cannot become the user right away: it could start no more processes.

    Returns:
        None if it can.
    """
    if plan.chroot is not None:
        return "each new process has to change its root, which only root can do"
    needed = [(sys.executable, os.X_OK), (plan.folder, os.X_OK), (os.__file__, os.R_OK)]
    needed += [(path, os.R_OK) for path in (plan.ca, plan.cert, plan.key) if path]
    for name in ("trigear", "trio", "click"):
        found = importlib.util.find_spec(name)
        if found is not None and found.origin is not None:
            needed.append((found.origin, os.R_OK))
    with process.rights_of(user):
        for path, right in needed:
            if not os.access(path, right, effective_ids=os.access in os.supports_effective_ids):
                return (
                    f"user '{user.user}' has no access to {path}, which each new process needs;"
                    " give it that, or start as that user in the first place"
                )
    return None


def write_pid_file(path: str) -> process.PidFile:
    """Write this process' id into a file.

    Raises:
        Failure: it cannot be written.
    """
    try:
        return process.PidFile(path)
    except OSError as error:
        status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
        raise Failure(
            f"pid file {path}: {error.strerror}; name another with --pid-file", status
        ) from error
