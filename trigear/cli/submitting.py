"""The work of `trigear submit`: keep jobs under way, and print what comes in the jobs' order."""

from __future__ import annotations

import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from trigear.cli.connecting import PATIENCE, open_client, refusal, said_for
from trigear.cli.manners import Manners, remark
from trigear.cli.progress import Progress
from trigear.cli.report import Failure, Status, complain
from trigear.cli.tables import plain, shown, write, write_aside, write_json
from trigear.errors import (
    ConnectionLost,
    JobFailed,
    JobLost,
    JobRaised,
    LocalProtocolError,
    Refused,
    TrigearError,
)
from trigear.model import SAID, counted, said
from trigear.protocol import events

if TYPE_CHECKING:
    from trigear.cli.connecting import Servers
    from trigear.cli.submit import Order, Plan
    from trigear.runtime.blocking import BlockingClient, BlockingJob

SILENCE: Final = 2.0
"""Seconds without a word about a job until we look whether anybody serves its function."""

ACCEPTANCE: Final = 30.0
"""Seconds that a server may take to say that it has a job; its disk may be slow."""

AHEAD: Final = 16
"""How many times `--parallel` jobs may be done and wait for their turn to be printed."""


def run(plan: Plan, servers: Servers, manners: Manners) -> int:
    """Submit what the plan says.

    Returns:
        The exit status.

    Raises:
        Failure: it cannot go on; says why.
    """
    with connect(plan, servers) as client:
        submitter = Submitter(client, plan, manners)
        try:
            with said_for(client):
                return submitter.background() if plan.background else submitter.foreground()
        except KeyboardInterrupt:
            if sys.stderr.isatty():
                write_aside(b"\n")  # the terminal shows ^C at the beginning of the line
            raise Failure(f"interrupted{submitter.left_behind()}", Status.INTERRUPTED) from None
        finally:
            submitter.progress.clear()


def connect(plan: Plan, servers: Servers) -> BlockingClient:
    """Connect before the deadline.

    Raises:
        Failure: no server, or no time left to find one.
    """
    left = PATIENCE if plan.until is None else plan.until - time.monotonic()
    if left > 0:
        try:
            return open_client(servers, timeout=min(PATIENCE, left))
        except Failure:
            if plan.until is None or time.monotonic() < plan.until:
                raise
    raise Failure(
        f"the deadline of {plan.deadline:g} s has passed: nothing was submitted", Status.TOO_LATE
    )


@dataclass(slots=True)
class Task:
    """A job under way and what was heard of it."""

    order: Order
    job: BlockingJob
    since: float
    look: float
    """When to look next whether anybody serves the function."""
    warnings: list[bytes] = field(default_factory=list)
    line_begun: bool = False
    """Whether the last thing printed for it was the middle of a line."""

    @property
    def name(self) -> str:
        return f"'{shown(self.order.function)}' ({plain(self.job.handle.decode(errors='replace'))})"


class Submitter:
    """Jobs on their way through one connection."""

    def __init__(self, client: BlockingClient, plan: Plan, manners: Manners) -> None:
        self.client = client
        self.plan = plan
        self.manners = manners
        self.status: int = Status.DONE
        self.tasks: deque[Task] = deque()
        self.orders = plan.orders()
        self.more = True
        self.remarked: set[str] = set()
        self.done = 0
        self.progress = Progress(wanted=not (manners.quiet or plan.as_json))
        self.on_terminal = sys.stdout.isatty()

    # In the background

    def background(self) -> int:
        """Submit all, print their handles."""
        for order in self.orders:
            self.client.timeout = self.patience(ACCEPTANCE)
            try:
                handle = self.client.submit_background(
                    order.function,
                    order.workload,
                    unique=order.unique,
                    priority=self.plan.priority,
                    at=self.plan.at,
                    delay=self.plan.delay,
                )
            except Refused as error:
                self.refused(order, error)
                continue
            except LocalProtocolError as error:
                raise Failure(str(error), Status.USAGE) from error
            except TimeoutError:
                self.check_deadline()
                raise
            if self.plan.as_json:
                self.report(order, handle, "queued", b"", [])
            else:
                write(handle + b"\n")
        return self.status

    # In the foreground

    def foreground(self) -> int:
        """Submit all, print what they return."""
        while True:
            self.fill()
            if not self.tasks:
                return self.status
            first = self.tasks[0]
            self.show(first)
            if first.job.done:
                self.tasks.popleft()
                self.finish(first)
            else:
                self.wait()

    def fill(self) -> None:
        """Submit until enough is under way, or waits to be printed."""
        limit = self.plan.parallel
        while self.more and len(self.tasks) < limit * AHEAD:
            if sum(not task.job.done for task in self.tasks) >= limit:
                return
            order = next(self.orders, None)
            if order is None:
                self.more = False
                return
            self.submit(order)

    def submit(self, order: Order) -> None:
        self.client.timeout = self.patience(ACCEPTANCE)
        try:
            job = self.client.job(
                order.function,
                order.workload,
                unique=order.unique,
                priority=self.plan.priority,
                keep=self.plan.as_json,
            )
        except Refused as error:
            self.refused(order, error)
            return
        except LocalProtocolError as error:
            raise Failure(str(error), Status.USAGE) from error
        except TimeoutError:
            self.check_deadline()
            raise
        now = time.monotonic()
        task = Task(order, job, now, now + SILENCE)
        self.tasks.append(task)
        if self.manners.verbose:
            self.say(f"job created: {task.name}")

    def wait(self) -> None:
        """Wait until anything is heard, the deadline passes, or it is time to look around."""
        now = time.monotonic()
        look = min(task.look for task in self.tasks)
        self.client.timeout = self.patience(max(0.0, look - now))
        try:
            self.client.wait()
        except TimeoutError:
            self.check_deadline()
            self.look_around()
        except ConnectionLost:
            pass  # shows in the jobs
        else:
            self.check_deadline()

    def show(self, task: Task) -> None:
        """Print what came of the job whose turn it is."""
        for update in task.job.arrived():
            task.look = float("inf")  # somebody works on it
            match update:
                case events.Status():
                    # The line would be drawn over a result that stops in the middle of one.
                    if not (task.line_begun and self.on_terminal):
                        self.progress.show(self.label(task), update.numerator, update.denominator)
                case events.Warning():
                    task.warnings.append(update.data)
                    if not self.plan.as_json:
                        self.progress.clear()
                        write_aside(update.data.removesuffix(b"\n") + b"\n")
                case events.Data() if not self.plan.as_json:
                    self.print(task, update.data)

    def label(self, task: Task) -> str:
        name = shown(task.order.function)
        return name if self.plan.single else f"{self.done} done · {name}"

    def print(self, task: Task, data: bytes) -> None:
        """Print a part of a result as it is, or behind the function's name."""
        if not data:
            return
        self.progress.clear()
        if self.plan.prefix:
            label = task.order.function.encode("utf-8", "surrogateescape") + b": "
            lines = data.splitlines(keepends=True)
            out = b"".join(
                line if place == 0 and task.line_begun else label + line
                for place, line in enumerate(lines)
            )
        else:
            out = data
        task.line_begun = not data.endswith(b"\n")
        write(out)

    def finish(self, task: Task) -> None:
        """Print how a job ended."""
        self.progress.clear()
        self.done += 1
        outcome, data = "completed", b""
        try:
            data = task.job.result()
        except JobFailed:
            outcome = "failed"
        except JobRaised as error:
            outcome, data = "raised", error.data
        except JobLost as error:
            raise Failure(
                f"{error.__cause__} while {task.name} was under way: whether it ran is unknown; if"
                " it may run twice, submit it again",
                Status.NO_SERVER,
            ) from error
        if self.plan.as_json:
            self.report(task.order, task.job.handle, outcome, data, task.warnings)
        elif outcome == "completed":
            self.print(task, data)
        # What is printed for people or by lines shall not run together.
        if task.line_begun and (self.on_terminal or self.plan.prefix):
            write(b"\n")
        if outcome != "completed":
            self.status = Status.NO
            if outcome == "failed":
                self.complain(f"{task.name} failed")
            else:
                self.complain(f"{task.name} raised an exception: {self.told_by(data)}")

    def told_by(self, data: bytes) -> str:
        """What an exception says, as one line."""
        text = said(data, None if self.manners.verbose else SAID)
        if text.endswith(" …"):
            text = f"{text} (--verbose shows all)"
        return text or "without a word"

    def refused(self, order: Order, error: Refused) -> None:
        """One job was not taken; others may be."""
        problem = refusal(self.client, error, f"'{shown(order.function)}'")
        if problem.status == Status.NOT_ALLOWED:
            raise problem from error
        self.status = Status.NO
        self.complain(str(problem))

    def report(
        self, order: Order, handle: bytes, outcome: str, data: bytes, warnings: list[bytes]
    ) -> None:
        """Print one job as JSON."""
        text, encoding = as_text(data)
        unique = order.unique.decode("utf-8", "backslashreplace") or None
        document: dict[str, Any] = {
            "function": order.function,
            "handle": handle.decode("utf-8", "backslashreplace"),
            "unique": unique,
            "outcome": outcome,
            "data": text,
            "encoding": encoding,
            "warnings": [warning.decode("utf-8", "backslashreplace") for warning in warnings],
        }
        write_json(document)

    # Patience

    def patience(self, seconds: float) -> float:
        """So many seconds, or as many as are left until the deadline."""
        if self.plan.until is None:
            return seconds
        return max(0.0, min(seconds, self.plan.until - time.monotonic()))

    def check_deadline(self) -> None:
        """Raise if the deadline has passed."""
        if self.plan.until is not None and time.monotonic() >= self.plan.until:
            raise Failure(
                f"the deadline of {self.plan.deadline:g} s has passed{self.left_behind()}",
                Status.TOO_LATE,
            )

    def left_behind(self) -> str:
        """What becomes of the job that nobody waits for any more."""
        self.progress.clear()
        waiting = [task for task in self.tasks if not task.job.done]
        if not waiting:
            return ""
        task = waiting[0]
        others = (
            f"; {counted(len(waiting) - 1, 'more was', 'more were')} under way"
            if len(waiting) > 1
            else ""
        )
        self.client.timeout = 1.0
        with suppress(TrigearError, TimeoutError):
            if not self.client.status(task.job.handle).running:
                return f": {task.name} had not begun, and is dropped unless others wait{others}"
        return f": {task.name} may go on, but its result is lost{others}"

    def look_around(self) -> None:
        """After a silence: say so if a job waits for a function that nobody serves."""
        now = time.monotonic()
        for task in self.tasks:
            if task.look > now or task.job.done:
                continue
            # Less and less often: a worker may go away as well as come.
            task.look = now + (now - task.since)
            if task.order.function not in self.remarked:
                self.look_for(task)

    def look_for(self, task: Task) -> None:
        from trigear.cli.answers import workers_of

        self.client.timeout = self.patience(PATIENCE)
        try:
            if self.client.status(task.job.handle).running:
                return
            workers = workers_of(self.client)
        except Refused:
            return  # a server that does not tell
        except TimeoutError:
            self.check_deadline()
            raise
        function = task.order.function
        if workers.get(function) == 0:
            self.remarked.add(function)
            served = [name for name, count in workers.items() if count]
            self.say(
                f"no worker serves '{shown(function)}' at {self.client.address}: waiting for one"
                f" (Ctrl-C gives up; -b would leave the job there){near(function, served)}"
            )

    def say(self, text: str) -> None:
        self.progress.clear()
        remark(text)

    def complain(self, text: str) -> None:
        self.progress.clear()
        complain("trigear", text, self.manners)


def near(function: str, served: list[str]) -> str:
    """Which function may have been meant, if any."""
    import difflib

    found = difflib.get_close_matches(function, served, n=1)
    return f"; did you mean '{shown(found[0])}'?" if found else ""


def as_text(data: bytes) -> tuple[str, str]:
    """Bytes as JSON can hold them, and how: `utf-8` or `base64`."""
    try:
        return data.decode(), "utf-8"
    except UnicodeDecodeError:
        import base64

        return base64.b64encode(data).decode(), "base64"
