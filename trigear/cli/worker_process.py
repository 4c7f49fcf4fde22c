"""One process of `trigear worker`: `python -P -m trigear.cli.worker_process CHANNEL`.

Its plan comes on standard input. CHANNEL is the number of a socket to the supervisor: this process
says there when it is ready and when it retires; when the other end closes, the supervisor is gone.

Signals: SIGTERM drains, SIGINT stops at once (two of one kind could melt into one). The terminal's
do not get here, this process has a session of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Final, NamedTuple

from trigear.cli import process
from trigear.cli.access import auth_of, tls_of
from trigear.cli.logs import Log, LogSettings, LogStyle
from trigear.cli.manners import Manners
from trigear.cli.report import Failure, Status, report
from trigear.cli.worker_plan import READY, RETIRING, WorkerPlan

if TYPE_CHECKING:
    from trigear.runtime.address import Address
    from trigear.runtime.worker import Worker
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

PROGRAM: Final = "trigear worker"

MEMORY_SECONDS: Final = 1.0
"""How often the memory of a process is looked at."""


def main() -> int:
    """The program."""
    manners = Manners()
    try:
        plan = WorkerPlan.from_json(sys.stdin.buffer.read())
        manners = Manners(debug=plan.debug, color=plan.color)
        with socket.socket(fileno=int(sys.argv[1])) as channel:
            channel.set_inheritable(False)
            # Jobs' programs and careless handlers shall find an empty input.
            with open(os.devnull, "rb") as null:
                os.dup2(null.fileno(), 0)
            return work(plan, channel)
    except SystemExit:
        raise
    except BaseException as error:
        return report(PROGRAM, error, manners)


def work(plan: WorkerPlan, channel: socket.socket) -> int:
    """Prepare this process, then do jobs until told otherwise."""
    import trio

    user = None if plan.run_as is None else process.identity(plan.run_as)
    with process.rights_of(user):
        log = Log(LogSettings(plan.log_target, LogStyle(plan.log_style), plan.log_level))
    memory = None if plan.max_memory is None else Memory()
    nowhere = os.open(os.devnull, os.O_WRONLY)  # in a changed root it is not there
    try:
        worker, plan, entrance = prepare(plan, user)
        return trio.run(serve, plan, worker, entrance, channel, memory, nowhere)
    except BaseExceptionGroup as group:
        from trigear.cli.report import only_one

        raise only_one(group) from None
    finally:
        log.close()


class Entrance(NamedTuple):
    """How to come in: the servers, TLS and login."""

    servers: tuple[Address, ...]
    tls: ClientTLS | ClientContext | None
    auth: Auth | None


def entrance_of(plan: WorkerPlan, *, stays: bool) -> Entrance:
    """How this plan comes in; ``stays`` says whether its files can be read later as well as now.

    Raises:
        ConfigError: a file of TLS cannot be used.
    """
    from trigear.runtime.address import parse_address

    servers = tuple(map(parse_address, plan.servers))
    tls: ClientTLS | ClientContext | None = None
    if plan.tls or any(server.tls for server in servers):
        # Loaded now in any case: later it may not be there.
        import trigear.runtime.secure
        from trigear.security.tls import build_client

        settings = tls_of(plan.ca, plan.cert, plan.key, insecure=plan.insecure)
        context = build_client(settings)
        if plan.tls:
            tls = settings if stays else context
    auth = None
    if plan.user:
        import trigear.runtime.login  # noqa: F401

        auth = auth_of(plan.user, plan.password)
    return Entrance(servers, tls, auth)


def prepare(plan: WorkerPlan, user: process.Identity | None) -> tuple[Worker, WorkerPlan, Entrance]:
    """Become who shall work, and load what it works with.

    Code of others is loaded last, when root is gone for good: it could take back what is only put
    aside. So with a changed root it is looked for in there.
    """
    load_modules()
    entrance = entrance_of(plan, stays=plan.chroot is None and user is None)
    plan = dataclasses.replace(plan, password=None)
    # Without links: what is imported later shall not come from other code than this.
    plan = dataclasses.replace(plan, folder=os.getcwd())
    if plan.chroot is not None:
        # Neither a resolver nor its files are in there.
        with process.rights_of(user):
            entrance = entrance._replace(servers=tuple(map(resolved, entrance.servers)))
        folder = seen_from(plan.chroot, plan.folder)
        enter(plan.chroot)
        plan = dataclasses.replace(plan, folder=folder)
    if user is not None:
        process.become(user)
    return load(plan), plan, entrance


def load_modules() -> None:
    """Load what working needs as whoever started this: the user to become may have no right to
    read it, and in a changed root it is not there."""
    import trigear.runtime.program
    import trigear.runtime.worker  # noqa: F401

    "localhost".encode("idna")  # loads a module when it is first used


def seen_from(root: str, folder: str) -> str:
    """Where a folder is in a changed root; the root itself for one that is not in there."""
    root, folder = os.path.realpath(root), os.path.realpath(folder)
    if os.path.commonpath([root, folder]) != root:
        return "/"
    return os.path.normpath(os.path.join("/", os.path.relpath(folder, root)))


def resolved(address: Address) -> Address:
    """The server with its number beside its name, if it has one.

    Raises:
        Failure: it has none.
    """
    if address.path is not None:
        return address
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Failure(
            f"{address}: {error.strerror}; in another root names are resolved at the start",
            Status.NO_SERVER,
        ) from error
    return dataclasses.replace(address, number=str(found[0][4][0]))


def enter(folder: str) -> None:
    """Make a folder the root of this process."""
    try:
        os.chroot(folder)
        os.chdir("/")
        # What was known about folders outside is not true of those inside.
        sys.path_importer_cache.clear()
    except OSError as error:
        status = Status.NOT_ALLOWED if isinstance(error, PermissionError) else Status.NO
        raise Failure(f"--chroot {folder}: {error.strerror}", status) from error


# What to work with


def load(plan: WorkerPlan) -> Worker:
    """The worker of this plan."""
    if plan.target is None:
        worker = programs(plan)
    else:
        worker = imported(plan.target, plan.folder, plan.chroot)
    if plan.jobs is not None:
        worker.limit(plan.jobs)
    if plan.name is not None:
        worker.name = plan.name
    return worker


def programs(plan: WorkerPlan) -> Worker:
    """A worker whose functions are done by a program.

    Raises:
        Failure: there is no such program.
    """
    from trigear.runtime.program import echo_to_stdout, program
    from trigear.runtime.worker import Worker

    if plan.command and shutil.which(plan.command[0]) is None:
        name = plan.command[0]
        where = f"inside the root {plan.chroot}" if plan.chroot else "on the PATH"
        if "/" in name:
            where = f"{where} that can be run" if plan.chroot else "that can be run"
        hint = "; a worker in Python has no -f before it" if ":" in name else ""
        raise Failure(f"there is no program '{name}' {where}{hint}", Status.USAGE)
    worker = Worker()
    handler = program(plan.command, lines=plan.lines) if plan.command else echo_to_stdout
    for function in dict.fromkeys(plan.functions):
        worker.register(os.fsencode(function), handler, timeout=plan.timeout)
    return worker


def imported(target: str, folder: str, root: str | None = None) -> Worker:
    """The worker that `module:attribute` names; ``root`` is the changed root, for messages.

    Raises:
        Failure: there is none; the message says what there is instead.
    """
    from trigear.runtime.worker import Worker, importing

    name, _, path = target.partition(":")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with importing(name):
            found: object = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Failure(
                f"{target}: {name} needs the module '{error.name}', which is not "
                + (f"inside the root {root}" if root else f"installed for {sys.executable}"),
                Status.USAGE,
            ) from error
        raise Failure(
            f"{target}: no module '{error.name}'"
            + (
                f" inside the root {root}: with --chroot, code and all that it imports have to be"
                f" in there (looked for in {folder} of it, and on PYTHONPATH)"
                if root
                else ": start where it can be imported from, or add its folder to PYTHONPATH"
                f" (this is {folder})"
            ),
            Status.USAGE,
        ) from error
    except Exception as error:
        raise Failure(
            f"{target}: importing {name} raised {where_raised(error)}; --debug shows more",
            Status.USAGE,
        ) from error
    module = found
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            there = sorted(key for key, value in vars(module).items() if isinstance(value, Worker))
            hint = f"; its workers: {', '.join(there)}" if there else "; it has no Worker"
            raise Failure(
                f"{target}: module '{name}' has no '{path}'{hint}", Status.USAGE
            ) from error
    if not isinstance(found, Worker):
        raise Failure(
            f"{target}: this is no trigear.Worker, but of the type {type(found).__name__}",
            Status.USAGE,
        )
    if not found.functions:
        raise Failure(
            f"{target}: has no functions: give it one with @{path}.function(...)", Status.USAGE
        )
    return found


def where_raised(error: Exception) -> str:
    """What an import raised, and where in the code of others that was."""
    kind = type(error).__name__
    if isinstance(error, SyntaxError):
        return f"{kind}: {error.msg} ({error.filename}, line {error.lineno})"
    steps = list(traceback.walk_tb(error.__traceback__))
    theirs = [
        (frame.f_code.co_filename, line)
        for frame, line in steps
        if not frame.f_globals.get("__name__", "").startswith(("trigear.", "trio.", "importlib."))
    ]
    file, line = theirs[-1] if theirs else (steps[-1][0].f_code.co_filename, steps[-1][1])
    return f"{kind}: {error} ({file}, line {line})"


# Working


async def serve(
    plan: WorkerPlan,
    worker: Worker,
    entrance: Entrance,
    channel: socket.socket,
    memory: Memory | None,
    nowhere: int,
) -> int:
    """Do jobs until the worker has drained; the exit status."""
    import trio

    from trigear.runtime.program import watch_groups

    told = trio.socket.from_stdlib_socket(channel.dup())
    watch_groups(lambda group, begins: tell_of_group(channel, group, begins=begins))

    async def tell(word: bytes) -> None:
        with contextlib.suppress(OSError):  # nobody to tell: `lifeline` finds out, too
            await told.send(word)

    async def run() -> None:
        servers, tls, auth = entrance
        await worker.run(servers, total=plan.total, tls=tls, auth=auth, task_status=announced)
        nursery.cancel_scope.cancel()

    def end(*, at_once: bool = False) -> None:
        # Before that there are no jobs to wait for, and perhaps nothing yet that could drain.
        if at_once or not announced.event.is_set():
            nursery.cancel_scope.cancel()
        worker.drain(plan.grace)

    async def lifeline() -> None:
        with contextlib.suppress(OSError):
            await told.recv(1)  # nothing is ever said this way
        end()

    async def heed(task_status: trio.TaskStatus[None]) -> None:
        numbers = signal.SIGTERM, signal.SIGINT
        # Trio raises again what arrives while this ends: then it shall not kill. Blocked for the
        # moment in which a signal would be lost.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            signal.signal(number, lambda *_: None)
        with trio.open_signal_receiver(*numbers) as arriving:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            task_status.started()
            async for arrived in arriving:
                end(at_once=arrived == signal.SIGINT)

    async def retire() -> None:
        await trio.lowlevel.checkpoint_if_cancelled()  # it has ended already
        await worker.wait_draining()
        await tell(RETIRING)

    async def watch_memory(memory: Memory) -> None:
        assert plan.max_memory is not None
        while memory.used() <= plan.max_memory:  # noqa: ASYNC110
            await trio.sleep(MEMORY_SECONDS)
        worker.drain(plan.grace)

    announced = Announced()
    async with trio.open_nursery() as nursery:
        await nursery.start(heed)
        nursery.start_soon(lifeline)
        # Not `nursery.start`: that the worker ends before it has announced anything is no error.
        nursery.start_soon(run)
        await announced.event.wait()
        if plan.detached:
            # Only now: what went wrong before is read by who started it.
            for descriptor in 1, 2:
                os.dup2(nowhere, descriptor)
        await tell(READY)
        nursery.start_soon(retire)
        if memory is not None:
            nursery.start_soon(watch_memory, memory)
    return Status.DONE


def tell_of_group(channel: socket.socket, group: int, *, begins: bool) -> None:
    """Tell the supervisor of a process group, which it ends when this process is killed."""
    with contextlib.suppress(OSError):  # it is gone, or so far behind that it is as good as gone
        channel.send(b"%c%d;" % (b"+" if begins else b"-", group), socket.MSG_DONTWAIT)


class Announced:
    """Hears from the worker that its functions are announced at a server."""

    def __init__(self) -> None:
        import trio

        self.event = trio.Event()

    def started(self, value: None = None) -> None:
        self.event.set()


class Memory:
    """How much memory this process uses; opened before the root changes."""

    def __init__(self) -> None:
        try:
            self._file = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def used(self) -> int:
        """Bytes in memory; where the system does not tell, the most that ever were."""
        if self._file < 0:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return int(os.pread(self._file, 100, 0).split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(main())
