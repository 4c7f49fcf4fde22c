"""The peers: what starts each one as client and as worker, and how its output becomes events.

A peer is a program that somebody has: its library or tool unchanged, in a few lines of its own
language under `peers/`. To add one, write those two programs and append it to `PEERS`.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import queue
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol, Self

from tests.conftest import PeerTools
from tests.interop.servers import Address, Server, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PROGRAMS = pathlib.Path(__file__).with_name("peers")
ANSWER_SECONDS = 20.0
MOST_OUTPUT = 10_000_000  # bytes a worker may write into a file before it is killed

Event = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One submission, in terms that every peer understands."""

    function: str
    workload: bytes
    unique: str | None = None
    priority: str = "normal"
    background: bool = False


class ClientSession(Protocol):
    """A client of one peer at work. It submits one job at a time and tells what it hears."""

    def submit(self, request: Request) -> None:
        """Submit a job; what follows is heard through `events`, up to the event `end`."""

    def ask(self, handle: str) -> Event:
        """The state of a job this session submitted, as the client's library reports it."""

    def next_event(self, seconds: float = ANSWER_SECONDS) -> Event:
        """The next thing the client tells; `TimeoutError` if it tells nothing for so long."""

    def events(self, seconds: float = ANSWER_SECONDS) -> list[Event]:
        """Everything the client tells about the last submission, the closing `end` left out."""

    def close(self) -> None:
        """End the client's process or processes."""


class Lines:
    """A process's output, read by a thread, so that waiting for a line can have a deadline."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        with contextlib.closing(stream):
            for line in stream:
                self._queue.put(line)
        self._queue.put(None)

    def next(self, seconds: float) -> bytes | None:
        """The next line, or None at the end; `queue.Empty` if there is neither for so long."""
        return self._queue.get(timeout=seconds)

    def join(self) -> None:
        self._thread.join()


class ScriptSession:
    """A client program under `peers/` that takes requests and tells events, one JSON a line."""

    def __init__(self, command: Sequence[str], server: Address) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [*command, server.host, str(server.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        assert self._process.stdout is not None
        self._lines = Lines(self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def submit(self, request: Request) -> None:
        self._write(
            {
                "op": "submit",
                "function": request.function,
                "hex": request.workload.hex(),
                "unique": request.unique,
                "priority": request.priority,
                "background": request.background,
            }
        )

    def ask(self, handle: str) -> Event:
        self._write({"op": "ask", "handle": handle})
        event = self.next_event()
        if event["event"] != "state":
            raise ValueError(f"asked for a state, got {event}")
        return event

    def next_event(self, seconds: float = ANSWER_SECONDS) -> Event:
        try:
            line = self._lines.next(seconds)
        except queue.Empty:
            raise TimeoutError(f"{self._describe()}: nothing told within {seconds:g} s") from None
        if line is None:
            self._process.wait()
            raise EOFError(f"{self._describe()} ended with {self._process.returncode}")
        event: Event = json.loads(line)
        if "hex" in event:
            event["data"] = bytes.fromhex(event.pop("hex"))
        return event

    def events(self, seconds: float = ANSWER_SECONDS) -> list[Event]:
        heard = []
        deadline = time.monotonic() + seconds
        while (event := self.next_event(max(0.0, deadline - time.monotonic())))["event"] != "end":
            heard.append(event)
        return heard

    def close(self) -> None:
        stop(self._process)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._lines.join()
        self._errors.close()

    def _describe(self) -> str:
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()
        return f"{self._process.args!r}" + (f" (it wrote: {said})" if said else "")


class ToolSession:
    """The tool `gearman` as a client: one process for each submission.

    The workload goes in as standard input. What comes out is the result's bytes, for a job's
    progress lines of the form `25% Complete`, and with `-v -b` the handle.
    """

    def __init__(self, server: Address) -> None:
        self._server = server
        self._process: subprocess.Popen[bytes] | None = None
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, request: Request) -> None:
        priority = {"high": ["-I"], "normal": [], "low": ["-L"]}[request.priority]
        self._process = subprocess.Popen(
            [
                str(PeerTools.gearman),
                *("-h", self._server.host, "-p", str(self._server.port), "-f", request.function),
                *priority,
                *(["-u", request.unique] if request.unique is not None else []),
                *(["-b", "-v"] if request.background else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        listener = threading.Thread(target=self._listen, args=(self._process, request), daemon=True)
        self._threads.append(listener)
        listener.start()

    def _listen(self, process: subprocess.Popen[bytes], request: Request) -> None:
        output, errors = process.communicate(request.workload)
        if request.background:
            if created := re.search(rb"^Task created: (\S+)$", output, re.MULTILINE):
                self._heard.put({"event": "created", "handle": created[1].decode()})
        else:
            # Progress is buffered until the end, the result is not; whole percents of 100.
            result, progress = re.fullmatch(
                rb"(.*?)((?:\d+% Complete\n)*)", output, re.DOTALL
            ).groups()
            for percent in re.findall(rb"(\d+)% ", progress):
                self._heard.put({"event": "status", "numerator": int(percent), "denominator": 100})
            # Exceptions and warnings are written to standard error, as is the line on a failure.
            if errors.removesuffix(b"Job failed\n"):
                self._heard.put({"event": "exception", "data": errors})
            if process.returncode != 0:
                self._heard.put({"event": "data", "data": result})
                self._heard.put({"event": "fail"})
            else:
                self._heard.put({"event": "complete", "data": result})
        self._heard.put({"event": "end"})

    def ask(self, handle: str) -> Event:
        raise NotImplementedError("the tool gearman cannot ask for the state of a job")

    def next_event(self, seconds: float = ANSWER_SECONDS) -> Event:
        try:
            return self._heard.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"gearman: nothing told within {seconds:g} s") from None

    def events(self, seconds: float = ANSWER_SECONDS) -> list[Event]:
        heard = []
        deadline = time.monotonic() + seconds
        while (event := self.next_event(max(0.0, deadline - time.monotonic())))["event"] != "end":
            heard.append(event)
        return heard

    def close(self) -> None:
        if self._process is not None:
            stop(self._process)
        for thread in self._threads:
            thread.join()


def limit_output(process: subprocess.Popen[bytes]) -> None:
    """Have the system end a worker that goes wild.

    Without a server the tool `gearman` complains some 30,000 times a second.
    """
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (MOST_OUTPUT, MOST_OUTPUT))


@dataclass
class WorkerProcesses:
    """The running worker of one peer: one process, or for the tool one for each behaviour."""

    processes: list[subprocess.Popen[bytes]]
    log: pathlib.Path

    def entries(self) -> list[Event]:
        """What the behaviour `record` has written: one entry for each job that ended."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def output(self) -> str:
        """What the processes wrote, for the report of a failure."""
        return self.log.with_name("output").read_text(errors="replace")

    def alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def stop(self) -> None:
        for process in self.processes:
            stop(process)


@dataclass(frozen=True)
class Peer:
    """Somebody else's client and worker."""

    name: str
    title: str
    client: Callable[[Address], ScriptSession | ToolSession]
    worker_commands: Callable[[Server, dict[str, str], pathlib.Path], list[list[str]]]
    client_asks: bool = True

    def start_worker(
        self, server: Server, functions: dict[str, str], directory: pathlib.Path
    ) -> WorkerProcesses:
        """Start a worker for these functions, each with its behaviour; return when it is known."""
        log = pathlib.Path(tempfile.mkdtemp(dir=directory, prefix=f"{self.name}-")) / "record"
        output = log.with_name("output")
        with output.open("wb") as sink:
            processes = [
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink)
                for command in self.worker_commands(server, functions, log)
            ]
        for process in processes:
            limit_output(process)
        worker = WorkerProcesses(processes, log)
        try:
            server.wait_for_functions(list(functions))
        except BaseException:
            worker.stop()
            raise
        return worker


def _script_client(*command: str) -> Callable[[Address], ScriptSession]:
    return lambda server: ScriptSession(command, server)


def _script_worker(
    *command: str,
) -> Callable[[Server, dict[str, str], pathlib.Path], list[list[str]]]:
    def commands(server: Server, functions: dict[str, str], log: pathlib.Path) -> list[list[str]]:
        specification = json.dumps({"functions": functions, "log": str(log)})
        return [[*command, server.host, str(server.port), "interop", specification]]

    return commands


def _tool_worker(server: Server, functions: dict[str, str], log: pathlib.Path) -> list[list[str]]:
    commands = []
    for behaviour in sorted(set(functions.values())):
        names = [name for name, its in functions.items() if its == behaviour]
        commands.append(
            [
                *(str(PeerTools.gearman), "-w", "-h", server.host, "-p", str(server.port)),
                *(word for name in names for word in ("-f", name)),
                *("/bin/sh", str(PROGRAMS / "gearman_worker.sh"), behaviour, str(log)),
            ]
        )
    return commands


PEERS = (
    Peer(
        "gearman",
        "`gearman` tool",
        ToolSession,
        _tool_worker,
        client_asks=False,
    ),
    Peer(
        "php",
        "PHP extension",
        _script_client(str(PeerTools.php), str(PROGRAMS / "client.php")),
        _script_worker(str(PeerTools.php), str(PROGRAMS / "worker.php")),
    ),
    Peer(
        "perl",
        "Perl `Gearman::*`",
        _script_client(str(PeerTools.perl), str(PROGRAMS / "client.pl")),
        _script_worker(str(PeerTools.perl), str(PROGRAMS / "worker.pl")),
    ),
    Peer(
        "gear",
        "python `gear`",
        _script_client(sys.executable, str(PROGRAMS / "gear_client.py")),
        _script_worker(sys.executable, str(PROGRAMS / "gear_worker.py")),
    ),
    Peer(
        "trigear",
        "trigear",
        _script_client(sys.executable, str(PROGRAMS / "trigear_client.py")),
        _script_worker(sys.executable, str(PROGRAMS / "trigear_worker.py")),
    ),
)
