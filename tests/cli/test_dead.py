"""`trigear dead`: dead letters listed, shown, run again and deleted."""

from __future__ import annotations

import datetime
import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import Held, plain_worker
from trigear import JobFailed, connect_blocking
from trigear.cli.report import Status
from trigear.cli.root import run_trigear
from trigear.engine.config import EngineConfig, ServerConfig
from trigear.testing import open_server_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from trigear import BlockingClient


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server whose background jobs die of their first failure, named by the environment."""
    engine = EngineConfig(dead_failures=True)
    with open_server_in_thread(ServerConfig(engine, listen=("127.0.0.1",), port=0)) as server:
        monkeypatch.setenv("TRIGEAR_SERVERS", server.addresses[0])
        yield server.addresses[0]


@pytest.fixture
def client(deadly: str) -> Iterator[BlockingClient]:
    with connect_blocking(deadly, timeout=PATIENCE) as client:
        yield client


def fail(job: Held) -> None:
    job.warning(b"out of\npaper")
    job.fail()


def die(client: BlockingClient, function: str = "mail", workload: bytes = b"Dear Sir") -> str:
    """A background job that has failed; its handle."""
    unique = f"u{len(workload)}"
    handle = client.submit_background(function, workload, unique=unique).decode()
    job = client.job(function, workload, unique=unique)
    with plain_worker(str(client.address), **{function: fail}), pytest.raises(JobFailed):
        job.result()
    return handle


# Looking


def test_dead_letters_are_listed(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    one, two = die(client), die(client, "resize")
    rows = [line.split("\t") for line in trigear("dead", "list").out.splitlines()]
    assert [row[:4] for row in rows] == [
        [one, "mail", "failed", "1"],
        [two, "resize", "failed", "1"],
    ]
    (row,) = trigear("dead", "list", "--json", "-f", "resize").out.splitlines()
    found = json.loads(row)
    assert (found["handle"], found["attempts"], found["size"], found["unique"]) == (two, 1, 8, "u8")
    died = datetime.datetime.fromisoformat(found["died"])
    assert died.tzinfo is not None


def test_empty_list_is_said_to_a_person(
    deadly: str, trigear: Callable[..., Said], terminal: Callable[..., Terminal]
) -> None:
    assert trigear("dead", "list") == trigear("dead", "list", "-f", "mail")
    shell = terminal("dead", "list")
    assert shell.wait() == 0
    assert shell.seen == "trigear: no dead letters\n"


def test_all_of_a_dead_letter_is_shown(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = die(client, workload=b"Dear\x1b[2J Sir\xff")
    rows = dict(line.split("\t") for line in trigear("dead", "show", handle).out.splitlines())
    assert rows["handle"] == handle
    assert (rows["reason"], rows["worker"], rows["reducer"]) == ("failed", "127.0.0.1", "-")
    assert rows["text"] == r"out of\x0apaper"
    assert rows["workload"] == r"Dear\x1b[2J Sir\xff"
    found = json.loads(trigear("dead", "show", handle, "--json").out)
    assert (found["attempts"], found["size"], found["reducer"]) == (1, 13, None)
    assert (found["workload"], found["workload_base64"]) == (None, "RGVhchtbMkogU2ly/w==")


def test_workload_that_is_text_is_text_in_json(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    handle = die(client, workload="für Sie".encode())
    assert json.loads(trigear("dead", "show", handle, "--json").out)["workload"] == "für Sie"


def test_dead_letter_on_a_terminal_is_read_from_top_to_bottom(
    client: BlockingClient, terminal: Callable[..., Terminal]
) -> None:
    handle = die(client, workload=b"x" * 5000)
    shell = terminal("dead", "show", handle, "--no-color")
    assert shell.wait() == 0
    lines = shell.seen.splitlines()
    assert lines[0].split() == ["handle:", handle]
    assert "reducer" not in shell.seen
    assert lines[-1].endswith("xxx … and 904 bytes more")


def test_raw_workload_is_printed_as_it_is(
    client: BlockingClient, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    workload = bytes(range(256)) * 400
    handle = die(client, workload=workload)
    assert run_trigear(("dead", "show", "--raw", handle)) == 0
    assert capfdbinary.readouterr() == (workload, b"")


def test_dead_letter_that_is_not_there_is_said(deadly: str, trigear: Callable[..., Said]) -> None:
    said = trigear("dead", "show", "H:nobody:1")
    assert (said.status, said.out) == (Status.NO, "")
    assert said.line == "trigear: error: no dead letter H:nobody:1: see 'trigear dead list'"


# Running again


def test_dead_letters_are_run_again(
    client: BlockingClient, deadly: str, trigear: Callable[..., Said]
) -> None:
    one, two = die(client), die(client)
    said = trigear("dead", "retry", one, "H:nobody:1")
    assert said.status == Status.NO
    assert said.err.splitlines() == [
        f"trigear: queued again: {one}",
        "trigear: no job H:nobody:1: no dead letter has this handle: see 'trigear dead list'",
    ]
    assert trigear("job", "list").out.startswith(one)
    assert trigear("dead", "list").out.startswith(two)


def test_all_dead_letters_are_run_again(
    client: BlockingClient, deadly: str, trigear: Callable[..., Said]
) -> None:
    die(client), die(client), die(client, "resize")
    said = trigear("dead", "retry", "--all", "-f", "mail", "--dry-run")
    assert said.line == f"trigear: would run again: 2 dead letters of 'mail' at {deadly}"
    said = trigear("dead", "retry", "--all", "-f", "mail", "--yes")
    assert (said.status, said.line) == (0, "trigear: queued again: 2 dead letters of 'mail'")
    said = trigear("dead", "retry", "--all", "--yes")
    assert said.line == "trigear: queued again: 1 dead letter"
    said = trigear("dead", "retry", "--all")
    assert (said.status, said.line) == (0, f"trigear: would run again: 0 dead letters at {deadly}")


def test_all_is_asked_about_and_no_is_no(
    client: BlockingClient, deadly: str, terminal: Callable[..., Terminal]
) -> None:
    die(client)
    shell = terminal("--no-color", "dead", "retry", "--all")
    shell.read_until("]: ")
    shell.type("n\n")
    assert shell.wait() == 1
    assert shell.seen == (
        f"Run again: 1 dead letter at {deadly}? [y/N]: n\ntrigear: error: nothing was done\n"
    )


# Deleting


def test_dead_letters_are_deleted(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    one, two = die(client), die(client)
    said = trigear("dead", "delete", "--dry-run", one)
    assert (said.status, said.line) == (0, f"trigear: would delete for good: {one}")
    said = trigear("dead", "delete", "--yes", one)
    assert (said.status, said.line) == (0, f"trigear: deleted: {one}")
    assert trigear("dead", "delete", "--yes", one).status == Status.NO
    said = trigear("dead", "delete", "--all", "--yes")
    assert said.line == "trigear: deleted: 1 dead letter"
    assert trigear("dead", "show", two).status == Status.NO


def test_deleting_is_asked_about(
    client: BlockingClient, terminal: Callable[..., Terminal], trigear: Callable[..., Said]
) -> None:
    handle = die(client)
    shell = terminal("--no-color", "dead", "delete", handle)
    shell.read_until("]: ")
    shell.type("n\n")
    assert shell.wait() == 1
    assert shell.seen.startswith("Delete for good: 1 dead letter? [y/N]: n\n")
    assert trigear("dead", "list").out.startswith(handle)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["retry"], "name dead letters by their handles, or say --all"),
        (["delete", "--all", "H:1"], "name dead letters by their handles, or say --all"),
        (["retry", "-f", "mail", "H:1"], "--function goes with --all"),
        (["show", "--raw", "--json", "H:1"], "--raw and --json contradict each other"),
        (["delete", "H:1"], "There is no terminal to ask on: say --yes"),
    ],
)
def test_mistake_is_one_line(
    args: list[str], says: str, deadly: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("dead", *args)
    assert said.status == Status.USAGE
    assert says in said.line
