"""`trigear job`: status, list and cancel."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import Held, plain_worker, server_in_thread
from trigear import JobFailed, connect_blocking
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from trigear import BlockingClient

GONE = "it is over, was cancelled or never was: try 'trigear job result'"


@pytest.fixture
def client(server: str) -> Iterator[BlockingClient]:
    with connect_blocking(server, timeout=PATIENCE) as client:
        yield client


# Status


def test_queued_job_is_found_by_handle_and_by_unique(
    server: str, client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = client.submit_background("mail", b"", unique="order-17").decode()
    said = trigear("job", "status", handle)
    assert (said.status, said.out) == (0, f"{handle}\tqueued\t-\t-\t{server}\n")
    said = trigear("job", "status", "--unique", "order-17")
    assert (said.status, said.out) == (0, f"order-17\tqueued\t-\t0\t{server}\n")


def test_running_job_tells_how_far_it_is(
    server: str, client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    release = threading.Event()

    def hold(job: Held) -> None:
        job.status(1, 4)
        assert release.wait(PATIENCE)
        job.complete()

    with plain_worker(server, hold=hold):
        job = client.job("hold", b"", unique="u")
        next(job)
        handle = job.handle.decode()
        said = trigear("job", "status", "-u", "u")
        assert said.out == f"u\trunning\t1/4\t1\t{server}\n"
        said = trigear("job", "status", handle, "--json")
        assert json.loads(said.out) == {
            "job": handle,
            "state": "running",
            "numerator": 1,
            "denominator": 4,
            "clients": None,
            "server": server,
        }
        release.set()
        job.result()
    assert trigear("job", "status", handle).status == 1


def test_job_that_nobody_knows_is_status_1(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("job", "status", "H:nobody:1")
    assert (said.status, said.out) == (1, "")
    assert said.line == f"trigear: error: no job H:nobody:1: {GONE}"
    said = trigear("job", "status", "--json", "H:nobody:1")
    assert said.status == 1
    assert json.loads(said.out)["state"] == "unknown"


def test_every_server_is_asked_for_the_job(server: str, trigear: Callable[..., Said]) -> None:
    with server_in_thread() as (other,), connect_blocking(other, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"").decode()
        servers = ["--server", "127.0.0.1:1", "--server", server, "--server", other]
        assert trigear("job", "status", *servers, handle).out.endswith(f"\t{other}\n")
        said = trigear("job", "status", *servers, "H:nobody:1")
    assert said.status == 1
    assert said.err.splitlines()[0] == "trigear: not asked: 127.0.0.1:1 (Connection refused)"


@pytest.mark.parametrize("args", [[], ["H:1", "--unique", "u"]])
def test_one_job_is_asked_about(args: list[str], trigear: Callable[..., Said]) -> None:
    said = trigear("job", "status", *args)
    assert said.status == Status.USAGE
    assert "name one job: its handle, or --unique and its unique" in said.line


# List


def test_list_has_what_the_servers_lists_have(
    server: str, client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    waiting = client.job("mail", b"").handle.decode()
    handle = client.submit_background("mail", b"", unique="order-17").decode()
    said = trigear("job", "list")
    assert sorted(said.out.splitlines()) == sorted(
        [f"{waiting}\tno\t0\t-\t-\t1", f"{handle}\tyes\t0\torder-17\t-\t0"]
    )
    found = {
        one["handle"]: one
        for one in map(json.loads, trigear("job", "list", "--json").out.splitlines())
    }
    assert found[handle] == {
        "handle": handle,
        "background": True,
        "losses": 0,
        "unique": "order-17",
        "worker": None,
        "clients": 0,
    }
    assert trigear("admin", "jobs").out == said.out


def test_list_on_a_terminal_is_a_table(
    server: str, client: BlockingClient, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("job", "list")
    shell.wait()
    assert shell.seen == "trigear: no jobs\n"
    handle = client.submit_background("mail", b"").decode()
    shell = terminal("--no-color", "job", "list")
    shell.wait()
    gap = " " * (len(handle) - len("HANDLE"))
    assert shell.seen.splitlines() == [
        f"HANDLE{gap}  BACKGROUND  LOSSES  UNIQUE  WORKER  CLIENTS",
        f"{handle}  yes              0  -       -             0",
    ]


# Cancel


def test_cancel_asks_and_tells_what_it_would_touch(
    server: str, client: BlockingClient, terminal: Callable[..., Terminal]
) -> None:
    handle = client.submit_background("mail", b"").decode()
    for answer, status in (("n", 1), ("y", 0)):
        assert client.status(handle).known
        shell = terminal("--no-color", "job", "cancel", handle)
        shell.read_until("Cancel 1 job? [y/N]")
        assert f"to be cancelled: {handle} (queued)\n" in shell.seen
        shell.type(f"{answer}\n")
        assert shell.wait() == status
    assert shell.seen.endswith(f"trigear: cancelled: {handle}\n")
    assert not client.status(handle).known


def test_cancel_without_a_terminal_needs_a_yes(
    client: BlockingClient, trigear: Callable[..., Said], type_in: Callable[[bytes], None]
) -> None:
    type_in(b"")
    handle = client.submit_background("mail", b"").decode()
    said = trigear("job", "cancel", handle)
    assert said.status == Status.USAGE
    assert "Cancel 1 job? There is no terminal to ask on: say --yes" in said.err
    assert client.status(handle).known


def test_dry_run_cancels_nothing(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    handle = client.submit_background("mail", b"").decode()
    said = trigear("job", "cancel", "--dry-run", "--yes", handle)
    assert (said.status, said.line) == (0, f"trigear: would cancel: {handle} (queued)")
    assert client.status(handle).known


def test_who_waits_for_a_cancelled_job_hears_that_it_failed(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    job = client.job("mail", b"")
    assert trigear("job", "cancel", "--yes", job.handle.decode()).status == 0
    with pytest.raises(JobFailed):
        job.result()


def test_job_that_is_gone_does_not_stop_the_others(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = client.submit_background("mail", b"").decode()
    said = trigear("admin", "cancel-job", "--yes", "H:nobody:1", handle)
    assert said.status == 1
    assert said.err.splitlines() == [
        f"trigear: no job H:nobody:1: {GONE}",
        f"trigear: cancelled: {handle}",
    ]


def test_handle_that_is_none_is_a_mistake(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("job", "cancel", "--yes", "two words")
    assert said.status == Status.USAGE
    assert said.line.startswith("trigear: error: handle: 'two words' cannot stand in a text comm")


@pytest.mark.parametrize("command", ["list", "status", "cancel"])
def test_no_server_is_said(command: str, nowhere: str, trigear: Callable[..., Said]) -> None:
    said = trigear("job", command, *([] if command == "list" else ["H:1"]))
    assert said.status == Status.NO_SERVER
    assert said.line.startswith(f"trigear: error: no server at {nowhere} (Connection refused), nam")
