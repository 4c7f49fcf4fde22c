"""The supervisor of `trigear worker`: keeps worker processes at work and replaces them.

It does no jobs and loads no code of others, so that it can stay as it is while the code changes:
every worker process is a fresh interpreter. A slot is one of the N processes there shall be.

==================================  ============================================================
what happens                        what it does
==================================  ============================================================
a process ends that should not      starts another, at once if it worked for ten seconds, else
                                    after a wait that grows with every failure, with full jitter
a process retires (`--max-jobs`,    starts another at once; the old one ends when its jobs have
`--max-memory`)                     ended
SIGHUP                              starts a new process in every slot; each old one drains when
                                    the new one is at work, and stays if it does not come up
SIGTERM, SIGINT                     drains all processes; a second one stops them at once
a process cannot be started the     ends with its exit status
very first time
a process is killed outright        ends the programs that it ran for jobs
the system starts no process (out   tries again, after a wait that grows; the processes there are
of memory, a folder is gone)        go on
==================================  ============================================================
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from trigear.cli.orphans import LOOK_SECONDS, Orphans, Programs
from trigear.cli.report import Failure, Status, line_for
from trigear.cli.worker_plan import READY, WORD
from trigear.errors import TrigearError
from trigear.runtime.backoff import Backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.cli.worker_plan import WorkerPlan

log: Final = logging.getLogger("trigear.worker")

STEADY_SECONDS: Final = 10.0
"""A process that lived for so long was not hurt by its start."""

STOP_SECONDS: Final = 5.0
"""How long a process that was told to stop at once may take before it is killed."""

LONGEST_WORD: Final = 16
"""Bytes."""

HEEDED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(eq=False)
class Child:
    """A worker process. ``heir`` is the number of the one that takes over from it, until that is
    said."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    slot: Slot
    started: float
    ready: bool = False
    leaving: bool = False
    heir: int | None = None
    said: bytes = b""
    programs: Programs = field(default_factory=lambda: Programs(None))

    def ask_to_end(self, *, at_once: bool = False) -> None:
        self.leaving = True
        self.process.send_signal(signal.SIGINT if at_once else signal.SIGTERM)


@dataclass(eq=False)
class Slot:
    """A place for a worker process. ``successor`` shall take over from ``current``."""

    current: Child | None = None
    successor: Child | None = None
    due: float | None = None
    finished: bool = False
    backoff: Backoff = field(default_factory=lambda: Backoff(random.random, least=1.0))


class Supervisor:
    """Runs the processes of a plan.

    Args:
        plan: what each of them does.
        processes: how many there shall be.
        ready: called once, when all of them are at work.
        user: the number of the user that the processes become, where this one does not.
        renewed: called at SIGHUP for the plan as it is now, with what was read from files read
            again; raises what a command raises.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        processes: int,
        ready: Callable[[], object],
        user: int | None = None,
        renewed: Callable[[WorkerPlan], WorkerPlan] | None = None,
    ) -> None:
        self.plan = plan
        self._renewed = renewed
        self.slots = [Slot() for _ in range(processes)]
        self.children: dict[socket.socket, Child] = {}
        self.orphans = Orphans()
        self.status: int = Status.DONE
        self._user = user
        self._on_ready = ready
        self._was_ready = False
        self._ending: float | None = None
        self._kill_at: float | None = None
        self._renew_again = False
        self._selector = selectors.DefaultSelector()

    def run(self) -> int:
        """Keep the processes until a signal ends it; the exit status."""
        mine, theirs = socket.socketpair()
        before = {}
        with mine, theirs:
            for end in mine, theirs:
                end.setblocking(False)
            self._selector.register(mine, selectors.EVENT_READ)
            old_descriptor = signal.set_wakeup_fd(theirs.fileno())
            try:
                # Python calls handlers between two instructions: they do nothing, the loop reads
                # the signals' numbers off the socket.
                for number in HEEDED:
                    before[number] = signal.signal(number, lambda *_: None)
                for slot in self.slots:
                    self._fill(slot)
                while not self._over:
                    self._round(mine)
            finally:
                self._kill_all()
                signal.set_wakeup_fd(old_descriptor)
                for number, handler in before.items():
                    signal.signal(number, handler)
                self._selector.close()
        return self.status

    @property
    def _over(self) -> bool:
        resting = self._ending is not None or all(slot.finished for slot in self.slots)
        return resting and not self.children and not self.orphans

    def _round(self, mine: socket.socket) -> None:
        for key, _ in self._selector.select(self._patience()):
            if key.fileobj is mine:
                for number in mine.recv(4096):
                    self._heed(number)
            else:
                assert isinstance(key.fileobj, socket.socket)
                self._hear(key.fileobj)
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            for child in self.children.values():
                log.warning("worker process %d does not end: killed", child.process.pid)
                child.process.kill()
        self.orphans.look(now)
        for slot in self.slots:
            if slot.due is not None and now >= slot.due:
                self._fill(slot)

    def _patience(self) -> float | None:
        """Seconds until something is to be done without being asked to."""
        times = [slot.due for slot in self.slots if slot.due is not None]
        if self._kill_at is not None:
            times.append(self._kill_at)
        if self.orphans:
            times.append(time.monotonic() + LOOK_SECONDS)
        return max(min(times) - time.monotonic(), 0.0) if times else None

    # Processes

    def _fill(self, slot: Slot) -> None:
        """Start the process that shall be at work here, or the one that shall take over."""
        slot.due = None
        try:
            child = self._start(slot)
        except OSError as error:
            if not self.children and not self._was_ready:
                raise Failure(
                    f"no worker process can be started: {line_of(error)}", Status.NO
                ) from error
            wait = slot.backoff.next()
            slot.due = time.monotonic() + wait
            log.error(
                "no worker process can be started: %s; trying again in %.1f s%s",
                line_of(error),
                wait,
                "; the old one goes on" if slot.current is not None else "",
            )
            return
        if slot.current is None:
            slot.current = child
        else:
            slot.successor = child

    def _start(self, slot: Slot) -> Child:
        """Start a process.

        Raises:
            OSError: the system does not.
        """
        mine, theirs = socket.socketpair()
        with contextlib.ExitStack() as undo, theirs:
            undo.callback(mine.close)
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "trigear.cli.worker_process", str(theirs.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                # Ctrl-C at the terminal is the supervisor's to pass on.
                start_new_session=True,
                cwd=self.plan.folder,
            )
            undo.pop_all()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin:
            process.stdin.write(self.plan.to_json())
        child = Child(process, mine, slot, time.monotonic(), programs=Programs(self._user))
        self.children[mine] = child
        self._selector.register(mine, selectors.EVENT_READ)
        log.debug("worker process %d started", process.pid)
        return child

    def _hear(self, channel: socket.socket) -> None:
        child = self.children.get(channel)
        if child is None:
            return
        try:
            words = channel.recv(4096)
        except OSError:
            words = b""
        if not words:
            # It ends, or has ended; SIGCHLD says the rest.
            self._selector.unregister(channel)
            self._look_for_ends()
            return
        self._understand(child, words)

    def _understand(self, child: Child, said: bytes, *, last: bool = False) -> None:
        """Do what a worker process' words ask for; ``last`` if it has ended."""
        said = child.said + said
        end = 0
        for word in WORD.finditer(said):
            end = word.end()
            if word[1] == b"+":
                child.programs.began(int(word[2]))
            elif word[1] == b"-":
                child.programs.ended(int(word[2]))
            elif word[0] != READY:
                self._retires(child)
            elif not last:
                self._is_ready(child)
        # Half a word; no word of ours is longer than this.
        child.said = said[end:][-LONGEST_WORD:]

    def _is_ready(self, child: Child) -> None:
        child.ready = True
        slot = child.slot
        log.info("worker process %d is at work", child.process.pid)
        if slot.successor is child:
            old, slot.current, slot.successor = slot.current, child, None
            if old is not None:
                old.heir = child.process.pid
                old.ask_to_end()
            self._see_whether_renewed()
        if not self._was_ready and all(one.current and one.current.ready for one in self.slots):
            self._was_ready = True
            self._on_ready()

    def _retires(self, child: Child) -> None:
        """A worker process takes no more jobs."""
        self._hands_over(child)
        if child.leaving:
            return
        child.leaving = True
        slot = child.slot
        if slot.current is not child or self._ending is not None:
            return
        if self.plan.once:
            slot.finished = True
            slot.due = None
            return
        log.info("worker process %d retires", child.process.pid)
        slot.current, slot.successor = slot.successor, None
        if slot.current is None:
            self._fill(slot)

    def _hands_over(self, child: Child) -> None:
        """Say who works in a process' place, now that it takes no more jobs: who reads of it may
        count on that."""
        if child.heir is not None:
            log.info("worker process %d took over from %d", child.heir, child.process.pid)
            child.heir = None

    def _look_for_ends(self) -> None:
        for child in list(self.children.values()):
            status = child.process.poll()
            if status is not None:
                self._ended(child, status)
        reap_strangers({child.process.pid for child in self.children.values()})

    def _ended(self, child: Child, status: int) -> None:
        del self.children[child.channel]
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.channel)
        # It may have said something before it went.
        with contextlib.suppress(OSError), child.channel:
            child.channel.setblocking(False)
            while words := child.channel.recv(4096):
                self._understand(child, words, last=True)
        self.orphans.adopt(child.programs.take(), time.monotonic())
        self._hands_over(child)
        slot, pid = child.slot, child.process.pid
        if child.leaving or self._ending is not None:
            level = logging.WARNING if status else logging.DEBUG
            log.log(level, "worker process %d ended: %s", pid, ending(status))
        elif slot.successor is child:
            slot.successor = None
            log.error(
                "the new worker process %d does not come up (%s); the old one goes on",
                pid,
                ending(status),
            )
            self._see_whether_renewed()
        elif not self._was_ready and not child.ready and status > 0:
            # It has said why. The same would happen again.
            self.status = status
            self._end()
        else:
            self._replace(slot, child, status)

    def _replace(self, slot: Slot, child: Child, status: int) -> None:
        now, pid = time.monotonic(), child.process.pid
        if slot.successor is not None:
            log.error("worker process %d ended: %s; its successor starts", pid, ending(status))
            slot.current, slot.successor = slot.successor, None
            return
        if now - child.started >= STEADY_SECONDS:
            slot.backoff.reset()
            wait = 0.0
        else:
            wait = slot.backoff.next()
        log.error(
            "worker process %d ended: %s; another starts in %.1f s", pid, ending(status), wait
        )
        slot.current, slot.due = None, now + wait

    # Signals

    def _heed(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._look_for_ends()
        elif number == signal.SIGHUP:
            self._renew()
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._ending is None:
                log.info("%s: draining", signal.Signals(number).name)
                self._end()
            else:
                log.info("%s: stopping at once", signal.Signals(number).name)
                self.status = Status.INTERRUPTED
                self._kill_at = time.monotonic() + STOP_SECONDS
                for child in self.children.values():
                    child.ask_to_end(at_once=True)

    def _end(self) -> None:
        """Have all processes drain, and start no more."""
        notify("STOPPING=1")
        now = self._ending = time.monotonic()
        self._kill_at = now + self.plan.grace + STOP_SECONDS
        for slot in self.slots:
            slot.due = None
        for child in self.children.values():
            child.ask_to_end()

    def _renew(self) -> None:
        if self._ending is not None:
            return
        if any(slot.successor is not None for slot in self.slots):
            self._renew_again = True
            return
        log.info("SIGHUP: starting new worker processes")
        self._renew_again = False
        if self._renewed is not None:
            try:
                self.plan = self._renewed(self.plan)
            except (click.ClickException, TrigearError) as error:
                log.error("SIGHUP: %s; the password stays what it was", line_for(error))
        for slot in self.slots:
            if not slot.finished:
                self._fill(slot)

    def _see_whether_renewed(self) -> None:
        if self._renew_again and all(slot.successor is None for slot in self.slots):
            self._renew()

    def _kill_all(self) -> None:
        for child in self.children.values():
            child.process.kill()
            child.process.wait()
            child.channel.close()
            self.orphans.adopt(child.programs.take(), time.monotonic())
        self.children.clear()
        self.orphans.kill()


def reap_strangers(known: set[int]) -> None:
    """Let go of processes that have ended and came to us as orphans: where this is the first
    process of a container, nobody else does."""
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in known:
                return  # it has a signal of its own
            os.waitpid(ended.si_pid, 0)


def line_of(error: OSError) -> str:
    """What an error of the system says, and about what."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def ending(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def notify(state: str) -> None:
    """Tell the service manager that started this, if one did and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link,
    ):
        link.connect("\0" + address[1:] if address.startswith("@") else address)
        link.send(state.encode())
