"""`trigear admin`: text commands as tables, rows and objects, at three kinds of servers."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.conftest import PATIENCE
from tests.conftest import ForeignServer, free_port, wait_until_it_answers
from tests.plain import Held, plain_worker, scripted_server
from trigear import connect_blocking
from trigear.cli import answers, connecting
from trigear.cli.admin import admin_group
from trigear.cli.job import job_group
from trigear.cli.report import Status
from trigear.cli.root import COMMANDS as ROOT
from trigear.wire import packets
from trigear.wire.codec import response
from trigear.wire.commands import COMMANDS, Command

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from tests.conftest import PeerTools
    from trigear import BlockingClient


NO_OPTIONS = response(packets.ERROR, b"UNKNOWN_OPTION", b"no") * 2


def read_until(link: socket.socket, end: bytes) -> None:
    got = b""
    while not got.endswith(end):
        got += link.recv(10_000)


def asked_for_status(link: socket.socket) -> None:
    """Read up to the question for lists of functions; another one comes before it."""
    read_until(link, b"loading\r\n")
    link.sendall(NO_OPTIONS + b"ERR UNKNOWN_COMMAND no\n")
    read_until(link, b"status\r\n")


@pytest.fixture
def client(server: str) -> Iterator[BlockingClient]:
    with connect_blocking(server, timeout=PATIENCE) as client:
        client.submit_background("mail", b"", unique="order-17")
        client.submit_background("mail", b"", priority="high")
        yield client


def objects(said: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.out.splitlines()]


OTHERWISE = {"prioritystatus": "priority-status", "session-end": "end-session"}
"""Commands whose words are others."""


def test_every_text_command_has_a_command_of_its_own() -> None:
    """In `trigear admin`, in the group of its first word, or among what is done with jobs."""

    def has_one(command: Command) -> bool:
        name = command.name.replace(" ", "-")
        name = OTHERWISE.get(name, name)
        if name in admin_group.commands or name in job_group.commands:
            return True
        group, *rest = command.words
        if group not in ROOT or not rest:
            return False
        entry = ROOT[group]
        found = getattr(importlib.import_module(entry.module), entry.name)
        return "-".join(rest) in found.commands

    missing = [command.name for command in COMMANDS if not has_one(command)]
    assert missing == ["auth", "tenant"], "these are options: --user and --tenant"


# Lists


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        ("status", ["mail\t2\t0\t0"]),
        ("priority-status", ["mail\t1\t1\t0\t0"]),
        ("functions", ["mail\t1\t1\t0\t0\t0\tno"]),
        ("show-unique-jobs", ["order-17", ""]),
    ],
)
def test_list_is_rows_with_tabs(
    command: str, rows: list[str], client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    said = trigear("admin", command)
    assert (said.status, said.out.splitlines(), said.err) == (0, rows, "")


def test_list_as_json_has_numbers_and_truth(
    client: BlockingClient, trigear: Callable[..., Said]
) -> None:
    (function,) = objects(trigear("admin", "functions", "--json"))
    assert function == {
        "function": "mail",
        "high": 1,
        "normal": 1,
        "low": 0,
        "running": 0,
        "workers": 0,
        "paused": False,
    }
    job = objects(trigear("admin", "show-jobs", "--json"))[0]
    assert (job["losses"], job["ignored"], job["background"]) == (0, False, True)


def test_connections_have_their_functions(server: str, trigear: Callable[..., Said]) -> None:
    with plain_worker(server, mail=Held.complete, resize=Held.complete):
        rows = trigear("admin", "workers").out.splitlines()
        found = [
            json.loads(line) for line in trigear("admin", "workers", "--json").out.splitlines()
        ]
    assert re.fullmatch(r"\d+\t127\.0\.0\.1\t-\tresize mail", rows[1])
    assert found[1]["functions"] == ["resize", "mail"]
    assert (found[0]["address"], found[0]["id"], found[0]["functions"]) == ("127.0.0.1", None, [])
    assert isinstance(found[0]["fd"], int)


def test_clients_stand_with_the_jobs_they_wait_for(
    server: str, trigear: Callable[..., Said]
) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        one = client.job("mail", b"").handle.decode()
        two = client.job("mail", b"", unique="u").handle.decode()
        rows = trigear("admin", "clients").out.splitlines()
    assert rows[:2] == [f"127.0.0.1\t{one}\t-\t-", f"127.0.0.1\t{two}\tu\t-"]
    assert rows[2] == "127.0.0.1\t-\t-\t-"  # the asking connection itself


def test_list_on_a_terminal_is_a_table(
    client: BlockingClient, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("admin", "status", "--no-color")
    assert shell.wait() == 0
    assert shell.seen == "FUNCTION  TOTAL  RUNNING  WORKERS\nmail          2        0        0\n"


def test_name_that_would_do_something_to_a_terminal_does_not(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    def answer(link: socket.socket) -> None:
        asked_for_status(link)
        link.sendall(b"\x1b[2Jevil\xff\t1\t2\t3\n.\n")
        link.recv(1)

    with scripted_server(answer) as address:
        shell = terminal("admin", "status", "--no-color", "--server", address)
        assert shell.wait() == 0
    assert r"\x1b[2Jevil\xff      1        2        3" in shell.seen


def test_answer_that_makes_no_sense_is_said_to(trigear: Callable[..., Said]) -> None:
    def answer(link: socket.socket) -> None:
        asked_for_status(link)
        link.sendall(b"mail\t2\n.\n")
        link.recv(1)

    with scripted_server(answer) as address:
        said = trigear("admin", "status", "--server", address)
    assert said.status == Status.NO
    assert said.line.endswith("the server said 'mail\\x092'")


@pytest.mark.parametrize("command", [["admin", "status"], ["admin", "functions"], ["job", "list"]])
def test_lists_of_a_server_that_still_loads_are_said_not_to_be_all(
    command: list[str], trigear: Callable[..., Said]
) -> None:
    def answer(link: socket.socket) -> None:
        read_until(link, b"loading\r\n")
        link.sendall(NO_OPTIONS + b"OK yes\r\n")
        while link.recv(1000):
            link.sendall(b".\n")

    with scripted_server(answer) as address:
        said = trigear(*command, "--server", address)
    assert said.status == Status.DONE
    assert said.err.endswith(": the server is still loading its jobs; not all of them are shown\n")


def test_line_with_too_few_fields_is_shown_as_far_as_it_goes() -> None:
    assert answers.SHOW_JOBS.row(["H:1", "2"]) == ["H:1", 2, None, None]
    assert answers.SHOW_JOBS.row(["H:1", "many", "0", "1"]) == ["H:1", "many", False, True]


# Values


def test_value_is_printed_alone(server: str, trigear: Callable[..., Said]) -> None:
    assert trigear("admin", "getpid").out == "0\n"
    assert json.loads(trigear("admin", "getpid", "--json").out) == {"getpid": 0}
    assert trigear("admin", "verbose").out == "INFO\n"
    assert trigear("admin", "loading").out == "no\n"
    assert trigear("admin", "version").status == 0


# What changes something


def test_function_is_made_limited_and_dropped(
    client: BlockingClient, trigear: Callable[..., Said], server: str
) -> None:
    said = trigear("admin", "create-function", "resize")
    assert (said.status, said.line) == (0, f"trigear: function 'resize' exists at {server}")
    said = trigear("admin", "maxqueue", "resize", "1")
    assert said.line == f"trigear: jobs of 'resize' that {server} takes: at most 1 of each priority"
    client.submit_background("resize", b"")
    assert trigear("submit", "-b", "resize", "").status == 1
    said = trigear("admin", "maxqueue", "resize", "5", "0", "7")
    assert said.line.endswith("takes: at most 5 of high, any number of normal, at most 7 of low")
    said = trigear("admin", "maxqueue", "resize")
    assert said.line.endswith("takes: any number of each priority")
    said = trigear("admin", "drop-function", "resize", "--dry-run")
    assert said.line == "trigear: would drop function 'resize' with its 1 queued job"
    assert "resize" in trigear("admin", "status").out
    said = trigear("admin", "drop-function", "--yes", "resize")
    assert (said.status, said.line) == (
        0,
        "trigear: dropped function 'resize' with its 1 queued job",
    )
    assert "resize" not in trigear("admin", "status").out


def test_drop_asks_and_no_is_no(
    client: BlockingClient, terminal: Callable[..., Terminal], server: str
) -> None:
    shell = terminal("--no-color", "admin", "drop-function", "mail")
    shell.read_until("]: ")
    shell.type("n\n")
    assert shell.wait() == 1
    assert shell.seen == (
        f"Drop function 'mail' with its 2 queued jobs at {server}? [y/N]: n\n"
        "trigear: error: nothing was dropped\n"
    )


def test_function_with_workers_is_not_dropped(server: str, trigear: Callable[..., Said]) -> None:
    with plain_worker(server, mail=Held.complete):
        said = trigear("admin", "drop-function", "--yes", "mail")
    assert said.status == 1
    assert said.line == (
        f"trigear: error: 'mail' has 1 worker and 0 running jobs at {server}: stop the workers"
        " first"
    )


@pytest.mark.parametrize(
    ("command", "then"),
    [
        (["drop-function", "--yes"], "`trigear admin status` lists them"),
        (["maxqueue"], "make it with `trigear admin create-function nope`"),
    ],
)
def test_function_that_is_unknown_is_said(
    command: list[str], then: str, server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("admin", *command, "nope")
    assert said.status == 1
    assert said.line == f"trigear: error: no function 'nope' at {server}: {then}"


def test_function_that_may_be_meant_is_named(server: str, trigear: Callable[..., Said]) -> None:
    assert trigear("admin", "create-function", "resize").status == 0
    said = trigear("admin", "drop-function", "--yes", "rezise")
    assert said.line.endswith("did you mean 'resize'?")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["create-function", "a b"], "'a b' cannot stand in a text command"),
        (["maxqueue", "f", "1", "2"], "one limit for all priorities, or three: high, normal, low"),
        (["maxqueue", "f", "x"], "'x' is not a whole number, at least 0"),
        (["send", "status\nversion"], "one line, without NUL and newline"),
        (["send"], "Missing argument"),
        (["statsu"], "no command 'statsu': did you mean 'status'?; see 'trigear admin --help'"),
        (["xyzzy"], "no command 'xyzzy': there are cancel-job, clients, create-function, "),
    ],
)
def test_mistake_is_one_line(
    args: list[str], says: str, server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("admin", *args)
    assert said.status == Status.USAGE
    assert says in said.line


# As it stands


def test_any_command_can_be_sent(client: BlockingClient, trigear: Callable[..., Said]) -> None:
    assert trigear("admin", "send", "status").out == "mail\t2\t0\t0\n"
    assert trigear("admin", "send", "create", "function", "x").out == "OK\n"
    said = trigear("admin", "send", "show", "nothing")
    assert said.status == 1
    assert "answers ERR UNKNOWN_SHOW_ARGUMENTS" in said.line


def test_server_refuses_in_its_own_words(server: str, trigear: Callable[..., Said]) -> None:
    """A worker came between the look and the command."""

    def come_between(link: socket.socket) -> None:
        read_until(link, b"status\r\n")
        link.sendall(NO_OPTIONS + b"f\t0\t0\t0\n.\n")
        link.recv(1)

    def refuse(link: socket.socket) -> None:
        read_until(link, b"drop function f\r\n")
        link.sendall(NO_OPTIONS + b"ERR there are still connected workers or executing clients\r\n")
        link.recv(1)

    with scripted_server(come_between, refuse) as address:
        said = trigear("admin", "drop-function", "--yes", "f", "--server", address)
    assert said.status == 1
    assert said.line.endswith(
        "refused 'drop function f': there are still connected workers or executing clients"
    )


# Servers


def test_no_server_is_said(nowhere: str, trigear: Callable[..., Said]) -> None:
    said = trigear("admin", "status")
    assert said.status == Status.NO_SERVER
    assert "start one with `trigear server`" in said.line


def test_server_that_says_nothing_is_doubted(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting.open_client, "__kwdefaults__", {"timeout": 0.5})

    def silent(link: socket.socket) -> None:
        while link.recv(10_000):
            pass

    with scripted_server(silent) as address:
        said = trigear("admin", "status", "--server", address)
    assert said.status == Status.NO_SERVER
    assert "does not answer: is it a Gearman server, and is it alive?" in said.line


def test_server_that_hangs_up_is_status_3(trigear: Callable[..., Said]) -> None:
    with scripted_server(lambda link: None) as address:
        assert trigear("admin", "status", "--server", address).status == Status.NO_SERVER


@pytest.fixture
def perl_server(peer_tools: PeerTools, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    with (tmp_path / "perl.log").open("wb") as log:
        process = subprocess.Popen(
            [str(peer_tools.perl_gearmand), "--listen=127.0.0.1", f"--port={port}"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ},
        )
    found = ForeignServer("127.0.0.1", port, process)
    assert wait_until_it_answers(found)
    yield found.address
    found.stop()


@pytest.mark.peers
def test_gearmands_answers_are_understood(
    gearmand_c: ForeignServer, trigear: Callable[..., Said]
) -> None:
    at = ["--server", gearmand_c.address]
    handle = trigear("submit", *at, "-b", "-u", "order-17", "mail", "").out.strip()
    with plain_worker(gearmand_c.address, resize=Held.complete):
        assert set(trigear("admin", "functions", *at).out.splitlines()) == {
            "mail\t0\t1\t0\t0\t0\t-",
            "resize\t0\t0\t0\t0\t1\t-",
        }
        assert "\tresize\n" in trigear("admin", "workers", *at).out
    assert trigear("job", "list", *at).out == f"{handle}\tyes\t0\t-\t-\t-\n"
    assert trigear("job", "status", *at, handle).out.split("\t")[1] == "queued"
    shown = json.loads(trigear("job", "show", *at, handle, "--json").out)
    assert shown["state"] == "queued"
    assert (shown["background"], shown["losses"], shown["attempts"]) == (True, 0, 0)
    assert (shown["function"], shown["worker"], shown["clients"]) == (None, None, None)
    assert trigear("job", "show", *at, "H:nobody:1").status == 1
    assert trigear("admin", "version", *at).out.startswith("1.1.")
    assert trigear("admin", "create-function", *at, "new").status == 0
    assert trigear("admin", "drop-function", *at, "--yes", "new").status == 0
    assert trigear("job", "cancel", *at, "--yes", handle).status == 0
    said = trigear("admin", "clients", *at)
    assert said.status == 1
    assert "UNKNOWN_COMMAND" in said.line


@pytest.mark.peers
def test_perls_answers_are_understood(perl_server: str, trigear: Callable[..., Said]) -> None:
    at = ["--server", perl_server]
    handle = trigear("submit", *at, "-b", "mail", "").out.strip()
    assert trigear("admin", "functions", *at).out == "mail\t-\t-\t-\t0\t0\t-\n"
    said = trigear("job", "list", *at)
    assert (said.status, said.line) == (
        1,
        f"trigear: error: {perl_server} refused 'show jobs': unknown_command",
    )
    shown = json.loads(trigear("job", "show", *at, handle, "--json").out)
    assert (shown["state"], shown["losses"], shown["clients"]) == ("queued", None, None)
    assert trigear("job", "status", *at, handle).out.split("\t")[1] == "queued"
    with plain_worker(perl_server, mail=lambda job: job.complete(b"sent")):
        assert trigear("submit", *at, "mail", "").out == "sent"
