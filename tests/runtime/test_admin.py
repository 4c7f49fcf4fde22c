"""The operator's side of the library, with Trio and without, at a real server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plain import Held, plain_worker, server_in_thread
from tests.runtime.calling import local
from trigear import (
    Admin,
    BlockingAdmin,
    ConnectionLost,
    FunctionSetting,
    FunctionStatus,
    JobFailed,
    Priority,
    PriorityStatus,
    Refused,
    TenantQuota,
    connect,
    connect_admin,
    connect_admin_blocking,
    connect_blocking,
)
from trigear.engine.config import EngineConfig
from trigear.runtime.server import open_server

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 20.0


@pytest.fixture
def server() -> Iterator[str]:
    with server_in_thread() as (address,):
        yield address


@pytest.fixture
def admin(server: str) -> Iterator[BlockingAdmin]:
    with connect_admin_blocking(server, timeout=PATIENCE) as admin:
        yield admin


def test_both_kinds_have_the_same_methods() -> None:
    def methods(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert methods(BlockingAdmin) - methods(Admin) == {"close"}
    assert methods(Admin) - methods(BlockingAdmin) == set()


async def test_operator_looks_into_a_server_and_steers_it() -> None:
    async with (
        open_server(local()) as server,
        connect(server.addresses[0]) as client,
        connect_admin(server.addresses[0]) as admin,
    ):
        handle = await client.submit_background("mail", b"", unique="order-17")
        assert await admin.status() == [FunctionStatus("mail", 1, 0, 0)]
        assert await admin.priority_status() == [PriorityStatus("mail", 0, 1, 0, 0)]
        assert not await admin.loading()
        (job,) = await admin.jobs()
        assert (job.handle, job.unique, job.background) == (handle.decode(), "order-17", True)
        assert await admin.cancel(handle)
        assert not await admin.cancel(handle)
        await admin.create_function("resize")
        await admin.max_queue("resize", 1)
        await client.submit_background("resize", b"")
        with pytest.raises(Refused):
            await client.submit_background("resize", b"")
        await admin.drop_function("resize")
        with pytest.raises(Refused, match="function not found"):
            await admin.drop_function("resize")
        assert {worker.functions for worker in await admin.workers()} == {()}
        assert TenantQuota("default", "max-connections", 2, 0, 0) in await admin.tenants()


async def test_operator_steers_jobs_functions_and_dead_letters() -> None:
    async with (
        open_server(local(EngineConfig(attempts=1))) as server,
        connect(server.addresses[0]) as client,
        connect_admin(server.addresses[0]) as admin,
    ):
        handle = await client.submit_background("mail", b"", unique="order-17")
        assert await admin.requeue(handle)
        assert await admin.set_priority(handle, "high")
        assert not await admin.requeue(b"H:nobody:1")
        assert await admin.priority_status() == [PriorityStatus("mail", 1, 0, 0, 0)]
        await admin.pause("mail")
        assert FunctionSetting("mail", "paused", "yes", "command") in await admin.functions("mail")
        await admin.resume("mail")
        late = await client.submit_background("mail", b"load", unique="order-18")
        async with client.open_job("mail", b"", unique="order-18") as job:
            await admin.set("mail", "expires", "1ms")
            with pytest.raises(JobFailed):
                await job.result()
        assert FunctionSetting("mail", "expires", "1ms", "command") in await admin.functions()
        dead = await admin.dead_list("mail")
        assert {letter.handle.encode() for letter in dead} == {handle, late}
        await admin.reset("mail")
        letter = await admin.dead_show(late)
        assert letter is not None
        assert (letter.reason, letter.workload) == ("expired", b"load")
        assert await admin.dead_show(b"H:nobody:1") is None
        assert await admin.dead_retry(late)
        assert not await admin.dead_retry(late)
        assert await admin.dead_retry_all() == 1
        assert await admin.dead_delete_all("mail") == 0
        assert not await admin.dead_delete(late)


async def test_nobody_at_the_address_is_said_on_entering() -> None:
    async with open_server(local()) as server:
        gone = server.addresses[0]
    with pytest.raises(ConnectionLost):
        async with connect_admin(gone):
            raise AssertionError


def test_operator_without_trio_does_the_same(server: str, admin: BlockingAdmin) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"", unique="order-17")
        assert admin.status() == [FunctionStatus("mail", 1, 0, 0)]
        assert admin.priority_status() == [PriorityStatus("mail", 0, 1, 0, 0)]
        assert TenantQuota("default", "max-connections", 2, 0, 0) in admin.tenants()
        assert not admin.loading()
        (job,) = admin.jobs()
        assert (job.handle, job.unique, job.background) == (handle.decode(), "order-17", True)
        assert admin.cancel(handle)
        assert not admin.cancel(handle)
        admin.create_function("resize")
        admin.max_queue("resize", 1)
        client.submit_background("resize", b"")
        with pytest.raises(Refused):
            client.submit_background("resize", b"")
        admin.drop_function("resize")
        with pytest.raises(Refused, match="function not found"):
            admin.drop_function("resize")


def test_operator_without_trio_steers_jobs_functions_and_dead_letters(
    server: str, admin: BlockingAdmin
) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"", unique="order-17")
        assert admin.requeue(handle)
        assert admin.set_priority(handle, Priority.HIGH)
        assert admin.priority_status() == [PriorityStatus("mail", 1, 0, 0, 0)]
        admin.pause("mail")
        assert FunctionSetting("mail", "paused", "yes", "command") in admin.functions("mail")
        admin.resume("mail")
        job = client.job("mail", b"", unique="order-17")
        admin.set("mail", "expires", "1ms")
        with pytest.raises(JobFailed):
            job.result()
        assert [letter.handle for letter in admin.dead_list()] == [handle.decode()]
        admin.reset("mail")
        letter = admin.dead_show(handle)
        assert letter is not None
        assert (letter.reason, letter.unique) == ("expired", "order-17")
        assert admin.dead_retry(handle)
        assert admin.dead_retry_all() == admin.dead_delete_all() == 0
        assert not admin.dead_delete(handle)


def test_workers_are_listed_with_their_functions(server: str, admin: BlockingAdmin) -> None:
    with plain_worker(server, mail=Held.complete):
        assert [found.functions for found in admin.workers()] == [("mail",), ()]
