"""`trigear admin` and `trigear job` where they steer: settings, pauses, queues."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import Held, PlainWorker, plain_worker
from trigear import connect_blocking
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from tests.conftest import ForeignServer
    from trigear import BlockingClient


@pytest.fixture
def client(server: str) -> Iterator[BlockingClient]:
    with connect_blocking(server, timeout=PATIENCE) as client:
        yield client


def settings(said: Said) -> dict[str, tuple[str, str]]:
    """Rows of settings: value and origin by name."""
    assert said.status == 0
    rows = [line.split("\t") for line in said.out.splitlines()]
    return {setting: (value, origin) for _, setting, value, origin in rows}


# Functions


def test_settings_are_shown_with_where_they_come_from(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    client.submit_background("mail", b"")
    found = settings(trigear("admin", "functions", "mail"))
    assert found["attempts"] == ("10", "default")
    assert found["paused"] == ("no", "default")
    trigear("admin", "set", "mail", "attempts", "3")
    lines = trigear("admin", "functions", "--settings", "--json").out.splitlines()
    by_command = [json.loads(line) for line in lines if '"command"' in line]
    assert by_command == [
        {"function": "mail", "setting": "attempts", "value": "3", "from": "command"}
    ]


def test_several_functions_are_shown_one_after_the_other(
    server: str, trigear: Callable[..., Said]
) -> None:
    lines = trigear("admin", "functions", "a", "b").out.splitlines()
    assert [line.split("\t")[0] for line in lines if "\ttimeout\t" in line] == ["a", "b"]


def test_what_is_set_holds_until_it_is_reset(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("admin", "set", "mail", "maxqueue", "1", "2", "3")
    assert (said.status, said.line) == (0, f"trigear: maxqueue of 'mail' at {server}: 1 2 3")
    trigear("admin", "set", "mail", "backoff", "10s")
    found = settings(trigear("admin", "functions", "mail"))
    assert (found["maxqueue"], found["backoff"]) == (("1 2 3", "command"), ("10s", "command"))
    said = trigear("admin", "reset", "mail", "backoff")
    assert said.line == f"trigear: backoff of 'mail' at {server}: as configured"
    found = settings(trigear("admin", "functions", "mail"))
    assert (found["maxqueue"], found["backoff"]) == (("1 2 3", "command"), ("auto", "default"))
    said = trigear("admin", "reset", "mail")
    assert said.line == f"trigear: everything of 'mail' at {server}: as configured"
    assert settings(trigear("admin", "functions", "mail"))["maxqueue"] == ("0 0 0", "default")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["set", "mail", "atempts", "3"], "no such setting: there are timeout, on-timeout,"),
        (["set", "mail", "attempts", "many"], "'many' is not a number of attempts"),
        (["reset", "mail", "atempts"], "no such setting"),
    ],
)
def test_mistake_is_told_in_the_servers_words(
    args: list[str], says: str, server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("admin", *args)
    assert said.status == Status.NO
    assert says in said.line


def test_name_with_a_blank_is_no_function(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("admin", "pause", "a b")
    assert said.status == Status.NO
    assert "cannot stand in a text command" in said.line


def test_paused_function_is_seen_to_be(
    client: BlockingClient, server: str, trigear: Callable[..., Said]
) -> None:
    client.submit_background("mail", b"")
    said = trigear("admin", "pause", "mail", "resize")
    assert said.status == 0
    assert said.err.splitlines() == [
        f"trigear: paused: 'mail' at {server}",
        f"trigear: paused: 'resize' at {server}",
    ]
    assert trigear("admin", "functions").out == "mail\t0\t1\t0\t0\t0\tyes\n"
    said = trigear("admin", "resume", "mail")
    assert said.line == f"trigear: resumed: 'mail' at {server}"
    assert trigear("admin", "functions").out == "mail\t0\t1\t0\t0\t0\tno\n"


def test_settings_on_a_terminal_are_a_table(server: str, terminal: Callable[..., Terminal]) -> None:
    shell = terminal("admin", "functions", "mail", "--no-color")
    assert shell.wait() == 0
    lines = shell.seen.splitlines()
    assert lines[0].split() == ["FUNCTION", "SETTING", "VALUE", "FROM"]
    assert lines[1].split() == ["mail", "timeout", "0s", "default"]


# Jobs


def test_running_job_is_taken_from_its_worker(
    client: BlockingClient, server: str, trigear: Callable[..., Said]
) -> None:
    job = client.job("mail", b"")
    handle = job.handle.decode()
    taken = threading.Event()
    slow = PlainWorker(server, mail=lambda held: taken.set())
    try:
        assert taken.wait(PATIENCE)
        assert trigear("job", "requeue", "--quiet", handle).status == 0
        with plain_worker(server, mail=lambda held: held.complete(b"done")):
            assert job.result() == b"done"
    finally:
        slow.stop()


def test_jobs_get_another_priority(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    handles = [client.submit_background("mail", b"").decode() for _ in range(2)]
    said = trigear("job", "priority", "high", *handles)
    assert (said.status, said.err.splitlines()) == (
        0,
        [f"trigear: priority high: {handle}" for handle in handles],
    )
    assert trigear("admin", "priority-status").out == "mail\t2\t0\t0\t0\n"


@pytest.mark.parametrize("command", [["requeue"], ["priority", "low"]])
def test_job_that_is_not_there_is_said(
    command: list[str], client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = client.submit_background("mail", b"").decode()
    said = trigear("job", *command, "H:nobody:1", handle)
    assert said.status == Status.NO
    gone, done = said.err.splitlines()
    assert gone.startswith("trigear: no job H:nobody:1: it is over")
    assert done.endswith(handle)


def test_priority_that_does_not_exist_is_a_mistake(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("job", "priority", "urgent", "H:1")
    assert said.status == Status.USAGE
    assert "'urgent' is not one of" in said.line


@pytest.mark.peers
@pytest.mark.parametrize(
    ("args", "what"),
    [(["admin", "pause", "f"], "'pause'"), (["job", "requeue", "H:1"], ""), (["dead", "list"], "")],
)
def test_server_that_cannot_is_said_to(
    args: list[str], what: str, gearmand_c: ForeignServer, trigear: Callable[..., Said]
) -> None:
    said = trigear(*args, "--server", gearmand_c.address)
    assert said.status == Status.NO
    assert f"{gearmand_c.address} refused" in said.line
    assert what in said.line


def test_job_is_queued_anew_although_it_was_for_later(
    client: BlockingClient, server: str, trigear: Callable[..., Said]
) -> None:
    handle = client.submit_background("mail", b"", unique="u", delay=10_000).decode()
    said = trigear("job", "requeue", handle)
    assert said.line == f"trigear: requeued: {handle}"
    job = client.job("mail", b"", unique="u")
    with plain_worker(server, mail=Held.complete):
        assert job.result() == b""
