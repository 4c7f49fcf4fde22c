"""Client and worker against Debian's gearmand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from trigear.errors import JobRaised, LoginFailed, Refused
from trigear.model import Priority
from trigear.runtime.blocking import connect_blocking
from trigear.runtime.client import connect
from trigear.runtime.worker import Worker, WorkerJob
from trigear.security.sasl_client import Auth

if TYPE_CHECKING:
    from tests.conftest import ForeignServer
    from trigear.runtime.crew import Crew


@pytest.mark.peers
async def test_jobs_go_round(gearmand_c: ForeignServer) -> None:
    worker = Worker(max_jobs=4, name="reverser")

    @worker.function("reverse")
    async def reverse(job: WorkerJob) -> bytes:
        await job.status(1, 2)
        await job.data(b"part ")
        return job.workload[::-1]

    @worker.function("fail", timeout=30)
    async def fail(job: WorkerJob) -> bytes:
        raise ValueError("as it should")

    large = bytes(range(256)) * 8192
    async with (
        connect(gearmand_c.address, client_id="me") as client,
        trio.open_nursery() as nursery,
    ):
        results: list[bytes] = []

        async def submit(workload: bytes) -> None:
            results.append(await client.submit("reverse", workload, unique="-"))

        async with trio.open_nursery() as jobs:
            jobs.start_soon(submit, b"early")
            jobs.start_soon(submit, b"early")
            await trio.testing.wait_all_tasks_blocked()
            await nursery.start(worker.run, gearmand_c.address)
            for number in range(50):
                jobs.start_soon(submit, b"%d" % number)
        assert sorted(results) == sorted(
            [b"part ylrae"] * 2 + [b"part " + (b"%d" % number)[::-1] for number in range(50)]
        )
        assert await client.submit("reverse", large) == b"part " + large[::-1]
        with pytest.raises(JobRaised) as caught:
            await client.submit("fail", b"", priority=Priority.HIGH)
        assert caught.value.data == b"ValueError: as it should"
        handle = await client.submit_background("nobody does this", b"", unique="u")
        assert (await client.status(handle)).known
        assert await client.admin(f"cancel job {handle.decode()}") == ["OK"]
        with pytest.raises(Refused, match="UNKNOWN_JOB"):
            await client.admin("cancel job H:none:1")
        assert any(
            line.endswith("reverser : fail reverse") for line in await client.admin("workers")
        )
        nursery.cancel_scope.cancel()


@pytest.mark.peers
async def test_a_job_over_its_deadline_is_done_by_another(gearmand_c: ForeignServer) -> None:
    """gearmand is told by the end of the connection, which takes no other job along."""
    slow, quick = Worker(max_jobs=2), Worker()
    begun, other_begun, deadline = trio.Event(), trio.Event(), trio.Event()

    @slow.function("f", timeout=3600)
    async def stop(job: WorkerJob) -> bytes:
        if job.workload == b"other":
            other_begun.set()
            await deadline.wait()
            return b"not touched"
        begun.set()
        # What the passing of the timeout does, without waiting for it.
        (held,) = [held for shift in crew().shifts for held in shift._held if held is job]
        held.deadline = held.scope.deadline = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            deadline.set()
        raise AssertionError

    @quick.function("f")
    async def answer(job: WorkerJob) -> bytes:
        return b"done by another"

    def crew() -> Crew:
        assert slow._crew is not None
        return slow._crew

    async with connect(gearmand_c.address) as client, trio.open_nursery() as nursery:
        await nursery.start(slow.run, gearmand_c.address)
        answers: dict[bytes, bytes] = {}

        async def submit(workload: bytes) -> None:
            answers[workload] = await client.submit("f", workload)

        async with trio.open_nursery() as jobs:
            jobs.start_soon(submit, b"other")
            await other_begun.wait()
            jobs.start_soon(submit, b"late")
            await begun.wait()
            await deadline.wait()
            slow.drain()
            await nursery.start(quick.run, gearmand_c.address)
        assert answers == {b"other": b"not touched", b"late": b"done by another"}
        nursery.cancel_scope.cancel()


@pytest.mark.peers
async def test_t7_gearmand_knows_no_logins_and_gets_no_job(gearmand_c: ForeignServer) -> None:
    auth = Auth("alice", "pencil")
    said = "knows no logins: it says 'Server does not recognize given option'; name another"
    with pytest.raises(LoginFailed, match=said):
        async with connect(gearmand_c.address, auth=auth):
            pytest.fail("let in")
    with pytest.raises(LoginFailed, match=said):
        connect_blocking(gearmand_c.address, timeout=30, auth=auth)
    assert gearmand_c.ask(b"status") == b".\n"
