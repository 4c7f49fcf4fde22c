"""Trouble with the database while jobs come and go: nothing that was acknowledged is lost, and the
service comes back by itself."""

from __future__ import annotations

import contextlib
import random
import select
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from tests.crash.process import PATIENCE
from tests.crash.run import Crash, Created
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    ERROR,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.crash.process import Link
    from tests.postgres import Cluster

CALM = 400
"""How many jobs are acknowledged between two troubles."""


class Probe(NamedTuple):
    """A background job that was submitted by itself."""

    link: Link
    name: bytes
    sent: float


class Trouble(Crash):
    """A series of troubles, each in a life of its own of the server, which is then killed: what it
    has in memory does not count.

    Args:
        folder: where the server's socket is.
        cluster: a database that runs.
        begin: makes the trouble.
        end: ends it.
        lasting: whether it lasts until new background jobs are refused.
        times: how often.
        url: how the database is named, if not by its own name.
    """

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        begin: Callable[[], object],
        end: Callable[[], object],
        *,
        lasting: bool = True,
        times: int = 2,
        url: str | None = None,
    ) -> None:
        super().__init__(folder, times, random.Random(), cluster=cluster, url=url)
        self._begin = begin
        self._end = end
        self._lasting = lasting
        self.refused: set[bytes] = set()
        """Jobs that were not taken."""

    def run(self) -> list[str]:
        faults = super().run()
        ran = self.refused & self.record.runs.keys()
        return [*faults, *(f"{name!r} was refused and ran" for name in ran)]

    def _wait_and_disturb(self) -> None:
        self._wait_for(CALM)
        with contextlib.ExitStack() as stack:
            client, worker = (stack.enter_context(self.server.link()) for _ in range(2))
            worker.send(CAN_DO, b"fg")
            self._begin()
            # One after the other, each there and back, while background jobs are in trouble.
            for number in range(50):
                foreground(client, worker, b"%d" % number)
            waiting = self._until_refused(stack) if self._lasting else []
            self._end()
            for probe in waiting:
                self._answered(probe)
            while not self._answered(self._submit(client)):
                threading.Event().wait(0.05)  # there is no event to wait for
        self._wait_for(CALM)

    def _wait_for(self, more: int) -> None:
        """Wait until so many more jobs were acknowledged."""
        wanted = len(self.record.created) + more
        give_up = time.monotonic() + PATIENCE
        while len(self.record.created) < wanted:
            assert time.monotonic() < give_up, "no job is acknowledged any more"
            threading.Event().wait(0.01)  # clients tell nobody

    def _until_refused(self, stack: contextlib.ExitStack) -> list[Probe]:
        """Submit jobs until one is refused. Those from before the server has noticed may have to
        wait for their answers."""
        probes: list[Probe] = []
        give_up = time.monotonic() + PATIENCE
        while True:
            probes.append(self._submit(stack.enter_context(self.server.link())))
            links = {probe.link.sock: probe for probe in probes}
            for sock in select.select(list(links), (), (), 0.2)[0]:
                probes.remove(links[sock])
                if not self._answered(links[sock]):
                    return probes
            assert time.monotonic() < give_up, "no job is refused"

    def _submit(self, link: Link) -> Probe:
        name = b"probe-%d" % self.record.submitted
        self.record.submitted += 1
        link.send(SUBMIT_JOB_BG, b"f", b"", name)
        return Probe(link, name, time.monotonic())

    def _answered(self, probe: Probe) -> bool:
        """Whether the job is taken."""
        said, payload = probe.link.receive()
        if said != JOB_CREATED:
            self._refused(probe.name, said, payload)
            return False
        self.record.created[probe.name] = Created(payload, self._life, probe.sent)
        return True

    def _refused(self, name: bytes, said: int, why: bytes) -> None:
        if said == ERROR and why.startswith(b"QUEUE_ERROR"):
            self.refused.add(name)
        else:
            super()._refused(name, said, why)


def foreground(client: Link, worker: Link, workload: bytes) -> None:
    """One foreground job, from its client to its worker and back."""
    client.send(SUBMIT_JOB, b"fg", b"", workload)
    said, handle = client.receive()
    assert said == JOB_CREATED
    worker.send(GRAB_JOB)
    said, payload = worker.receive()
    assert (said, payload) == (JOB_ASSIGN, b"\0".join((handle, b"fg", workload)))
    worker.send_all([request(WORK_COMPLETE, handle, b"done")])
    assert client.receive() == (WORK_COMPLETE, handle + b"\0done")
