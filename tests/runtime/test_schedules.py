"""Schedules through the library, with Trio and without, at real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from tests.plain import server_in_thread
from tests.runtime.calling import local
from trigear import (
    LocalProtocolError,
    Refused,
    connect,
    connect_admin,
    connect_admin_blocking,
    connect_blocking,
)
from trigear.protocol.choice import home_of
from trigear.runtime.server import open_server
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import ForeignServer

BERLIN = ZoneInfo("Europe/Berlin")
NIGHTLY = ("report", "0 3 * * mon-fri", b"all")


async def test_a_client_has_schedules_and_an_operator_steers_them() -> None:
    async with (
        open_server(local()) as server,
        connect(server.addresses[0]) as client,
        connect_admin(server.addresses[0]) as admin,
    ):
        handle = await client.schedule(*NIGHTLY, unique="nightly")
        assert await client.schedule(*NIGHTLY, unique="nightly", timezone=BERLIN) == handle
        other = await admin.add_schedule("poll", "@every 5m", missed="skip", priority="low")
        assert (await client.status(handle)).known
        assert [one.handle.encode() for one in await admin.schedules()] == [handle, other]
        found = await admin.schedule("nightly")
        assert found is not None
        assert (found.timezone, found.workload, found.missed) == ("Europe/Berlin", b"all", "once")
        assert [time.astimezone(BERLIN).hour for time in found.times] == [3] * 5
        await admin.pause_schedule("nightly")
        job = await admin.run_schedule("nightly")
        assert [one.handle.encode() for one in await admin.jobs()] == [job]
        assert [one.paused for one in await admin.schedules()] == [True, False]
        await admin.resume_schedule(handle)
        await admin.remove_schedule(handle)
        assert await admin.schedule(handle) is None
        with pytest.raises(Refused, match="minute '61' makes no sense"):
            await client.schedule("f", "61 * * * *")
        with pytest.raises(Refused, match="no time zone 'Mars/Base'"):
            await client.schedule("f", "@daily", timezone="Mars/Base")
        with pytest.raises(LocalProtocolError, match="does not fit into a text command"):
            await client.schedule("f", "@every 5m", b"x" * 10_000)
        with pytest.raises(ValueError, match="missed='never'"):
            await client.schedule("f", "@daily", missed="never")  # type: ignore[arg-type]


def test_without_trio_it_is_the_same() -> None:
    with (
        server_in_thread() as (address,),
        connect_blocking(address, timeout=20) as client,
        connect_admin_blocking(address, timeout=20) as admin,
    ):
        handle = client.schedule(*NIGHTLY, unique="nightly")
        assert client.schedule(*NIGHTLY, unique="nightly", timezone=BERLIN) == handle
        other = admin.add_schedule("poll", "@every 5m", missed="skip", priority="low")
        assert client.status(handle).known
        assert [one.handle.encode() for one in admin.schedules()] == [handle, other]
        found = admin.schedule("nightly")
        assert found is not None
        assert found.timezone == "Europe/Berlin"
        admin.pause_schedule("nightly")
        job = admin.run_schedule("nightly")
        assert [one.handle.encode() for one in admin.jobs()] == [job]
        admin.resume_schedule(handle)
        admin.remove_schedule(handle)
        assert admin.schedule(handle) is None
        with pytest.raises(Refused, match="minute '61' makes no sense"):
            client.schedule("f", "61 * * * *")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
async def test_of_several_servers_the_same_one_gets_the_same_schedule(zone: str) -> None:
    async with open_server(local()) as one, open_server(local()) as two:
        addresses = [one.addresses[0], two.addresses[0]]
        for _ in range(4):
            async with connect(*addresses) as client:
                await client.schedule("f", "@daily", b"by its workload", timezone=zone)
                await client.schedule("f", "@daily", b"w", unique="by its unique", timezone=zone)
        places: list[list[str]] = [[], []]
        for key in ("by its workload", "by its unique"):
            places[home_of(key.encode(), b"", 2) or 0].append(key)
        for address, expected in zip(addresses, places, strict=True):
            async with connect_admin(address) as admin:
                found = [await admin.schedule(one.handle) for one in await admin.schedules()]
            assert [
                one.unique or (one.workload or b"").decode() for one in found if one is not None
            ] == expected


async def test_schedules_survive_their_server_in_the_store(tmp_path: Path) -> None:
    for term in range(2):
        store = SqliteStore(str(tmp_path / "jobs.sqlite3"))
        async with (
            open_server(local(), store=store) as server,
            connect_admin(server.addresses[0]) as admin,
        ):
            if not term:
                handle = await admin.add_schedule(*NIGHTLY, unique="nightly", timezone=BERLIN)
            (found,) = await admin.schedules()
            assert (found.handle.encode(), found.timezone) == (handle, "Europe/Berlin")
            assert server.statistics().schedules == 1


async def test_schedules_in_memory_go_with_their_server(caplog: pytest.LogCaptureFixture) -> None:
    async with open_server(local()) as server, connect_admin(server.addresses[0]) as admin:
        await admin.add_schedule(*NIGHTLY)
    assert "1 schedule in memory is gone with this server" in caplog.messages


@pytest.mark.peers
async def test_gearmand_knows_nothing_of_them(gearmand_c: ForeignServer) -> None:
    async with connect(gearmand_c.address) as client:
        with pytest.raises(Refused, match="INVALID_COMMAND"):
            await client.schedule("f", "@daily")
        with pytest.raises(Refused, match="UNKNOWN_COMMAND"):
            await client.schedule("f", "@every 5m")
        assert await client.echo(b"still here") == b"still here"
