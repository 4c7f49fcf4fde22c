"""Client and worker against the server over real sockets."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from trigear.engine.config import ServerConfig
from trigear.errors import ConnectionLost, JobLost
from trigear.runtime.client import connect
from trigear.runtime.listeners import bind
from trigear.runtime.server import Server, open_server, serve
from trigear.runtime.worker import Worker, WorkerJob

if TYPE_CHECKING:
    from pathlib import Path


async def test_jobs_go_round_over_tcp_and_unix_sockets(tmp_path: Path) -> None:
    worker = Worker(max_jobs=8, name="reverser")

    @worker.function("reverse")
    async def reverse(job: WorkerJob) -> bytes:
        return job.workload[::-1]

    config = ServerConfig(listen=("127.0.0.1", f"unix:{tmp_path}/server.sock"), port=0)
    large = bytes(range(256)) * 4096
    async with open_server(config) as server, trio.open_nursery() as nursery:
        over_tcp, over_unix = server.addresses
        await nursery.start(worker.run, over_unix)
        async with connect(over_tcp, client_id="submitter") as client:
            assert await client.submit("reverse", large) == large[::-1]
            workers = await client.admin("workers")
            assert [line.split(" ", 1)[1] for line in workers] == [
                "127.0.0.1 submitter :",
                "- reverser : reverse",
            ]
        nursery.cancel_scope.cancel()


async def test_a_job_survives_its_worker() -> None:
    """The first worker closes its socket without an answer; the second one does the job."""
    async with open_server(ServerConfig(listen=("127.0.0.1",), port=0)) as server:
        (address,) = server.addresses
        held = trio.Event()
        patient, quick = Worker(), Worker()

        @patient.function("f")
        async def hold(job: WorkerJob) -> bytes:
            held.set()
            await trio.sleep_forever()
            raise AssertionError

        @quick.function("f")
        async def answer(job: WorkerJob) -> bytes:
            return b"done"

        async with connect(address) as client, trio.open_nursery() as nursery:
            answers: list[bytes] = []

            async def submit() -> None:
                answers.append(await client.submit("f", b""))
                nursery.cancel_scope.cancel()

            first = await nursery.start(run_until_cancelled, patient, address)
            nursery.start_soon(submit)
            await held.wait()
            first.cancel()
            await nursery.start(quick.run, address)
        assert answers == [b"done"]


async def test_clients_connect_in_every_notation_of_an_address(tmp_path: Path) -> None:
    path = f"{tmp_path}/server.sock"
    config = ServerConfig(listen=("127.0.0.1", "[::1]", f"unix:{path}"), port=0)
    async with open_server(config) as server:
        ipv4, ipv6, unix = server.addresses
        assert ipv6.startswith("[::1]:")
        for address in (ipv4, f"gearman://{ipv4}", ipv6, f"gearman://{ipv6}/", unix):
            async with connect(address) as client:
                assert await client.echo(address.encode()) == address.encode()
        with pytest.raises(ConnectionLost, match="it does not speak TLS there"):
            async with connect(f"gearmans://{ipv4}"):
                raise AssertionError


async def test_a_client_survives_the_restart_of_its_server() -> None:
    worker = Worker()

    @worker.function("reverse")
    async def reverse(job: WorkerJob) -> bytes:
        return job.workload[::-1]

    async with trio.open_nursery() as nursery:

        async def start(port: int) -> Server:
            config = ServerConfig(listen=("127.0.0.1",), port=port)
            return await nursery.start(partial(serve, config, bind(config)))

        server = await start(0)
        (address,) = server.addresses
        async with connect(address) as client:
            async with client.open_job("reverse", b"lost") as job:
                server.stop()
                with pytest.raises(JobLost):
                    await job.result()
            server = await start(int(address.rpartition(":")[2]))
            await nursery.start(worker.run, address)
            assert await client.submit("reverse", b"found") == b"dnuof"
        nursery.cancel_scope.cancel()


async def run_until_cancelled(
    worker: Worker, address: str, *, task_status: trio.TaskStatus[trio.CancelScope]
) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.run, address)
            task_status.started(scope)
