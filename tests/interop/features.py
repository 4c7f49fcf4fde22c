"""The six features of the matrix, each as a scene that a client and a worker of any peers play.

A scene returns the *points* it saw fulfilled. What a peer's interface cannot do is a point it
misses, declared with its reason in `limits.py`; everything else is asserted on the spot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import random
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.interop import raw
from tests.interop.peers import (
    ANSWER_SECONDS,
    Event,
    Peer,
    Request,
    ScriptSession,
    ToolSession,
    WorkerProcesses,
)
from tests.interop.servers import Server, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# How long a client that is still silent after its job has left the server is given.
DEAF_SECONDS = 3.0

# What a worker has to do with the jobs of each feature's functions.
BEHAVIOURS = {
    "result": "reverse",
    "exception": "raise",
    "status": "steps",
    "background": "record",
    "priority": "record",
    "unique": "record",
}


@dataclass
class Cell:
    """One client, one worker and one server, and the functions made for just these three."""

    server: Server
    client: Peer
    worker: Peer
    directory: pathlib.Path
    workers: WorkerProcesses
    points: set[str] = field(default_factory=set)

    def function(self, feature: str) -> str:
        return function_name(feature, self.client, self.worker)

    def mark(self, text: str) -> str:
        """A workload no other cell uses, so that the worker's record can be told apart."""
        return f"{self.client.name}-{self.worker.name}-{self.server.name}-{text}"

    def open_client(self) -> contextlib.closing[ScriptSession | ToolSession]:
        return contextlib.closing(self.client.client(self.server))

    def recorded(self) -> list[Event]:
        """This cell's entries in the worker's record, the gate's path cut off their workloads."""
        entries = []
        for entry in self.workers.entries():
            workload = entry["workload"].split(";")[-1]
            if workload.startswith(self.mark("")):
                entries.append({**entry, "workload": workload.removeprefix(self.mark(""))})
        return entries

    def running_jobs(self, feature: str) -> int:
        return self.server.functions()[self.function(feature)][1]

    def all_jobs(self, feature: str) -> int:
        return self.server.functions()[self.function(feature)][0]


def function_name(feature: str, client: Peer, worker: Peer) -> str:
    return f"{feature}_for_{client.name}_by_{worker.name}"


class Gate:
    """A FIFO on which a worker holds its job until the gate is opened.

    That somebody has the FIFO open for reading shows that a worker holds the job.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = pathlib.Path(tempfile.mkdtemp(dir=directory)) / "gate"
        os.mkfifo(self.path)
        self._writer: int | None = None

    def workload(self, text: str) -> bytes:
        return f"wait={self.path};{text}".encode()

    def wait_for_a_worker(self) -> None:
        """Return once a worker stands at the gate."""
        self._writer = wait_until("a worker that holds the job", self._reader_is_there)

    def _reader_is_there(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def open(self) -> None:
        """Let the worker go on."""
        assert self._writer is not None, "nobody waits at this gate"
        os.close(self._writer)
        self._writer = None

    def abandon(self) -> None:
        """Let whoever waits go on, and whoever comes later pass, in case the test has failed."""
        passable = self.path.with_name("open")
        passable.touch()
        with contextlib.suppress(OSError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        os.replace(passable, self.path)
        if self._writer is not None:
            self.open()


@contextlib.contextmanager
def gate(directory: pathlib.Path) -> Iterator[Gate]:
    """A gate that is open at the end in any case, so that a failing test leaves a free worker."""
    made = Gate(directory)
    try:
        yield made
    finally:
        made.abandon()


def whole(events: list[Event]) -> bytes:
    """All result bytes of a job: its data and what came with its completion."""
    return b"".join(event["data"] for event in events if event["event"] in ("data", "complete"))


def names(events: list[Event]) -> list[str]:
    return [event["event"] for event in events]


def created(events: list[Event]) -> list[str]:
    """The handles in these events."""
    return [event["handle"] for event in events if event["event"] == "created"]


def result(cell: Cell) -> None:
    """A foreground job's result comes back byte for byte: text, all byte values, 300 kB."""
    noise = random.Random(f"{cell.client.name} {cell.worker.name}").randbytes(300_000)
    with cell.open_client() as session:
        for workload in (b"reverse me", bytes(range(256)), noise):
            session.submit(Request(cell.function("result"), workload))
            events = session.events()
            assert "complete" in names(events), events
            assert whole(events) == workload[::-1]
    cell.points.add("result")


def exception(cell: Cell) -> None:
    """A worker's exception reaches the client as such, and the worker goes on with the next job."""
    function = cell.function("exception")
    text = cell.mark("trouble")
    with cell.open_client() as session:
        session.submit(Request(function, text.encode()))
        events = heard_of_a_job_that_ends(cell, session)
    assert "complete" not in names(events), events
    if "fail" in names(events) or "exception" in names(events):
        cell.points.add("failure")
    if any(event["event"] == "exception" and text.encode() in event["data"] for event in events):
        cell.points.add("exception")
    with cell.server.connect() as connection:
        connection.send(raw.SUBMIT_JOB, function.encode(), b"", text.encode())
        connection.expect(raw.JOB_CREATED)
        wait_until(
            "the next job done, or the worker dead",
            lambda: not cell.workers.alive() or cell.all_jobs("exception") == 0,
        )
    if cell.workers.alive():
        cell.points.add("worker goes on")


def heard_of_a_job_that_ends(cell: Cell, session: ScriptSession | ToolSession) -> list[Event]:
    """What a client hears until it says `end`, or until its job has been gone for a while."""
    events: list[Event] = []
    last_seen = time.monotonic()
    give_up = last_seen + ANSWER_SECONDS
    while "end" not in names(events) and time.monotonic() < min(last_seen + DEAF_SECONDS, give_up):
        with contextlib.suppress(TimeoutError):
            events.append(session.next_event(0.02))
        if cell.all_jobs("exception"):
            last_seen = time.monotonic()
    return events


def status(cell: Cell) -> None:
    """Progress reaches the waiting client, and the server tells it of a background job."""
    function = cell.function("status")
    with cell.open_client() as session, gate(cell.directory) as held:
        session.submit(Request(function, held.workload("foreground")))
        held.wait_for_a_worker()
        held.open()
        events = session.events()
        assert whole(events) == b"done", events
        steps = [
            event["numerator"] / event["denominator"]
            for event in events
            if event["event"] == "status"
        ]
        assert steps in ([], [0.25, 0.75])
        if steps:
            cell.points.add("progress")
    if not cell.client.client_asks:
        return
    with cell.open_client() as session, gate(cell.directory) as held:
        session.submit(Request(function, held.workload("background"), background=True))
        (handle,) = created(session.events())
        held.wait_for_a_worker()
        state = session.ask(handle)
        assert state["known"]
        assert state["running"]
        # The worker's report and this question travel on two connections.
        with contextlib.suppress(TimeoutError):
            wait_until(
                "the reported progress",
                lambda: (
                    (state := session.ask(handle))["numerator"] == 1 and state["denominator"] == 4
                ),
                seconds=3.0 if "progress" in cell.points else 0.0,
            )
            cell.points.add("progress asked for")
        held.open()
        wait_until("the end of the job", lambda: not session.ask(handle)["known"])


def background(cell: Cell) -> None:
    """A background job is created at once, runs without its client, and is known until it ends."""
    function = cell.function("background")
    with gate(cell.directory) as held:
        with cell.open_client() as session:
            workload = held.workload(cell.mark("alone"))
            session.submit(Request(function, workload, background=True))
            (handle,) = created(session.events())
            held.wait_for_a_worker()
            if cell.client.client_asks:
                state = session.ask(handle)
                assert state["known"]
                assert state["running"]
                cell.points.add("state asked for")
        assert cell.running_jobs("background") == 1
        assert cell.recorded() == []
        held.open()
        wait_until("the end of the job", lambda: cell.all_jobs("background") == 0)
    assert [entry["workload"] for entry in cell.recorded()] == ["alone"]
    cell.points.add("runs without its client")


def priority(cell: Cell) -> None:
    """Jobs that wait for the same worker are taken by priority, whatever their order of arrival."""
    function = cell.function("priority")
    before = len(cell.recorded())
    with cell.open_client() as session, gate(cell.directory) as held:
        workload = held.workload(cell.mark("first"))
        session.submit(Request(function, workload, background=True))
        session.events()
        held.wait_for_a_worker()
        for level in ("low", "normal", "high"):
            workload = cell.mark(level).encode()
            session.submit(Request(function, workload, priority=level, background=True))
            session.events()
        waiting = lambda: cell.server.queued_by_priority(function)  # noqa: E731
        wait_until("one waiting job of each priority", lambda: waiting() == (1, 1, 1))
        held.open()
        wait_until("the end of the jobs", lambda: cell.all_jobs("priority") == 0)
    order = [entry["workload"] for entry in cell.recorded()[before:]]
    assert order == ["first", "high", "normal", "low"]
    cell.points.add("order")


def unique(cell: Cell) -> None:
    """Two clients submit with one unique: one job, one run, both get its result."""
    function = cell.function("unique")
    key = cell.mark("key")
    before = len(cell.recorded())
    with (
        cell.open_client() as one,
        cell.open_client() as other,
        gate(cell.directory) as held,
    ):
        workload = held.workload(cell.mark("once"))
        one.submit(Request(function, workload, unique=key))
        held.wait_for_a_worker()
        other.submit(Request(function, workload, unique=key))
        wait_until("both clients at one job", lambda: cell.server.waiting_clients(key) == 2)
        assert cell.all_jobs("unique") == 1
        held.open()
        heard = [session.events() for session in (one, other)]
    assert [whole(events) for events in heard] == [workload, workload]
    handles = {handle for events in heard for handle in created(events)}
    assert len(handles) <= 1, handles
    entries = cell.recorded()[before:]
    assert [entry["workload"] for entry in entries] == ["once"]
    cell.points.add("one run for two")
    if entries[0]["unique"] is not None:
        assert entries[0]["unique"] == key
        cell.points.add("worker sees the unique")


SCENES: dict[str, Callable[[Cell], None]] = {
    "result": result,
    "exception": exception,
    "status": status,
    "background": background,
    "priority": priority,
    "unique": unique,
}
