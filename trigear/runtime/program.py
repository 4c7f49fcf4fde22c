"""Handlers that are programs: the workload goes in, what comes out is the result."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import JobFailed
from trigear.model import public
from trigear.runtime.link import CHUNK, hidden_nursery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.runtime.job import WorkerJob

_watch: Callable[[int, bool], object] | None = None


def watch_groups(watch: Callable[[int, bool], object]) -> None:
    """Have ``watch`` called with every process group in which a program is run, and whether it
    begins or has ended. Who outlives this process can then end what is left of it."""
    global _watch
    _watch = watch


TERM_GRACE: Final = 2.0
"""Seconds that a program may take to end after SIGTERM, before SIGKILL."""


class Program:
    """A handler that runs a program for each job; made by :func:`program`."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None, lines: str | None
    ) -> None:
        self.command = tuple(command)
        self._env = env
        self._lines = lines

    def __repr__(self) -> str:
        return f"program({list(self.command)!r})"

    async def __call__(self, job: WorkerJob) -> bytes:
        process = await trio.lowlevel.open_process(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A group of its own: what ends the job ends what the program has started, too, and
            # Ctrl-C at the worker's terminal is the worker's business alone.
            start_new_session=True,
            env={
                **(os.environ if self._env is None else self._env),
                "TRIGEAR_FUNCTION": os.fsdecode(job.function),
                "TRIGEAR_HANDLE": os.fsdecode(job.handle),
                "TRIGEAR_UNIQUE": os.fsdecode(job.unique),
            },
        )
        ended = False
        if _watch is not None:
            _watch(process.pid, True)
        try:
            async with hidden_nursery() as nursery:
                nursery.start_soon(feed, process, job.workload)
                output = await self._read(process, job)
                status = await process.wait()
                # It need not have read its input to the end.
                nursery.cancel_scope.cancel()
            ended = True
        finally:
            if not ended:
                await kill_group(process)
            for pipe in process.stdin, process.stdout:
                assert pipe is not None
                with trio.CancelScope(shield=True):
                    await pipe.aclose()
            if _watch is not None:
                _watch(process.pid, False)
        if status == 0:
            return output
        if output:
            await job.data(output)
        raise JobFailed(job.handle)

    async def _read(self, process: trio.Process, job: WorkerJob) -> bytes:
        """Everything that the program writes, as far as it does not leave line by line."""
        assert process.stdout is not None
        kept = bytearray()
        while chunk := await process.stdout.receive_some(CHUNK):
            kept += chunk
            if self._lines is None:
                continue
            *lines, rest = kept.split(b"\n")
            kept = rest
            for line in lines:
                await job.data(bytes(line) + (b"\n" if self._lines == "whole" else b""))
        if self._lines is not None and kept:
            await job.data(bytes(kept))
            return b""
        return bytes(kept)


@public
def program(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    lines: str | None = None,
) -> Program:
    """A handler that runs a program for each job.

    The workload is its standard input, its standard output the result; standard error stays the
    worker's. It learns the job's names from the variables ``TRIGEAR_FUNCTION``, ``TRIGEAR_HANDLE``
    and ``TRIGEAR_UNIQUE``. With an exit status other than 0 the job fails, after what it wrote was
    sent as data. At the job's deadline, or when the job is cancelled, the program and everything
    it started and kept in its process group get SIGTERM, and SIGKILL two seconds later.

    Args:
        command: the program and its arguments; no shell is involved.
        env: its environment instead of the worker's.
        lines: `whole` or `stripped`: every line of output leaves as data as soon as it is
            complete, with its newline or without; the result is empty then.

    Raises:
        ValueError: there is no program in the command, or ``lines`` is something else.
    """
    if isinstance(command, str | bytes) or not command:
        raise ValueError(f"command {command!r}: a list of a program and its arguments is needed")
    if lines not in {None, "whole", "stripped"}:
        raise ValueError(f"lines={lines!r}: 'whole' or 'stripped'")
    return Program(command, env, lines)


async def echo_to_stdout(job: WorkerJob) -> None:
    """The handler of a worker without a command: print the workload, answer with nothing."""
    await trio.to_thread.run_sync(write_out, job.workload)


def write_out(data: bytes) -> None:
    """Write to standard output, all of it."""
    while data:
        data = data[os.write(1, data) :]


async def feed(process: trio.Process, workload: bytes) -> None:
    """Write the workload and close. A program that does not want it is no error."""
    assert process.stdin is not None
    with suppress(trio.BrokenResourceError):
        await process.stdin.send_all(workload)
    await process.stdin.aclose()


async def kill_group(process: trio.Process) -> None:
    """End a program and its group, by SIGTERM if that helps."""
    with trio.CancelScope(shield=True):
        signal_group(process.pid, signal.SIGTERM)
        with trio.move_on_after(TERM_GRACE):
            await process.wait()
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()


def signal_group(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
