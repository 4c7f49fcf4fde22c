"""`trigear top`: once for programs, again and again on a terminal."""

from __future__ import annotations

import json
import re
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import Held, plain_worker, server_in_thread
from trigear import connect_blocking
from trigear.cli.report import Status
from trigear.cli.top import Counts, Look, rows_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from tests.conftest import ForeignServer

HEADS = "FUNCTION QUEUED RUNNING WORKERS ARRIVING/S COMPLETING/S FAILING/S OLDEST PAUSED"


@pytest.fixture(autouse=True)
def known_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "12")


# Rates


def test_rates_come_from_the_time_between_two_looks() -> None:
    before = Look(100.0, {"f": Counts(10, 1, 2, 100, 5, 1, 3)})
    after = Look(104.0, {"f": Counts(6, 2, 2, 120, 7, 1, 4)})
    # 18 came: 22 ended, 4 fewer are there.
    assert rows_of(before, after) == [["f", 4, 2, 2, 4.5, 5.0, 0.5, 4, None]]


def test_first_look_tells_no_rates() -> None:
    assert rows_of(None, Look(1.0, {"f": Counts(1, 0, 0, 9, 9, 9, 7)})) == [
        ["f", 1, 0, 0, None, None, None, 7, None]
    ]


def test_function_that_is_new_has_done_all_in_between() -> None:
    after = Look(2.0, {"f": Counts(1, 0, 1, 3, 0, 0)})
    assert rows_of(Look(1.0, {}), after) == [["f", 1, 0, 1, 4.0, 3.0, 0.0, None, None]]


def test_server_that_began_anew_has_no_rates_for_a_while() -> None:
    before = Look(1.0, {"f": Counts(0, 0, 1, 30, 2, 0)})
    after = Look(2.0, {"f": Counts(0, 0, 1, 3, 0, 0)})
    assert rows_of(before, after) == [["f", 0, 0, 1, None, None, None, None, None]]


def test_busiest_functions_come_first() -> None:
    looked = {"b": Counts(0, 0, 1), "a": Counts(0, 0, 1), "c": Counts(2, 1, 1)}
    assert [row[0] for row in rows_of(None, Look(1.0, looked))] == ["c", "a", "b"]


# Once


def test_without_a_terminal_it_prints_once(server: str, trigear: Callable[..., Said]) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        client.submit_background("mail", b"")
        trigear("admin", "pause", "mail")
        with plain_worker(server, resize=Held.complete):
            client.submit("resize", b"")
            said = trigear("top", "--interval", "100ms")
    assert said.status == 0
    assert said.out.splitlines() == [
        "mail\t1\t0\t0\t0.0\t0.0\t0.0\t0\tyes",
        "resize\t0\t0\t1\t0.0\t0.0\t0.0\t-\tno",
    ]


def test_json_has_numbers_as_numbers(server: str, trigear: Callable[..., Said]) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        client.submit_background("mail", b"")
        said = trigear("top", "--interval", "100ms", "--json")
    assert json.loads(said.out) == {
        "function": "mail",
        "queued": 1,
        "running": 0,
        "workers": 0,
        "arriving": 0.0,
        "completing": 0.0,
        "failing": 0.0,
        "oldest": 0,
        "paused": False,
    }


def test_server_without_functions_prints_nothing(server: str, trigear: Callable[..., Said]) -> None:
    said = trigear("top")
    assert (said.status, said.out, said.err) == (0, "", "")


@pytest.mark.peers
def test_gearmand_tells_no_rates(gearmand_c: ForeignServer, trigear: Callable[..., Said]) -> None:
    at = ["--server", gearmand_c.address]
    trigear("submit", *at, "-b", "mail", "")
    said = trigear("top", *at)  # no need to look twice
    assert said.out == "mail\t1\t0\t0\t-\t-\t-\t-\t-\n"


def test_no_server_is_said(nowhere: str, trigear: Callable[..., Said]) -> None:
    said = trigear("top")
    assert said.status == Status.NO_SERVER
    assert said.line.startswith(f"trigear: error: no server at {nowhere}")


def test_looks_too_close_together_are_refused(trigear: Callable[..., Said]) -> None:
    said = trigear("top", "--interval", "10ms")
    assert said.status == Status.USAGE
    assert "--interval: 100ms is the shortest" in said.line


# On a terminal


def test_view_is_drawn_anew_until_q(server: str, terminal: Callable[..., Terminal]) -> None:
    shell = terminal("--no-color", "top", "--interval", "100ms")
    shell.read_until("0 functions")
    with connect_blocking(server, timeout=PATIENCE) as client:
        client.submit_background("mail", b"")
        shell.read_until("mail")
    shell.read_until("1 function · 1 job queued, 0 running")
    assert HEADS in " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shell.seen).split())
    shell.type("q")
    assert shell.wait() == 0
    assert shell.seen.endswith("\x1b[?25h\x1b[?1049l")  # the terminal as it was, with its cursor


def test_space_looks_at_once_and_s_sorts(server: str, terminal: Callable[..., Terminal]) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        for function in ("zebra", "zebra", "ant"):
            client.submit_background(function, b"")
        shell = terminal("--no-color", "top", "--interval", "1h")
        shell.read_until("s sorts")
        assert shell.seen.index("zebra") < shell.seen.index("ant")
        shell.seen = ""
        shell.type("s")
        shell.read_until("s sorts")
        assert shell.seen.index("ant") < shell.seen.index("zebra")
        client.submit_background("bee", b"")
        shell.type("x ")  # a key that means nothing, and the space bar
        shell.read_until("bee")
    shell.type("q")
    assert shell.wait() == 0


def test_more_functions_than_lines_are_counted(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        for number in range(10):
            client.submit_background(f"f{number}", b"")
    shell = terminal("--no-color", "top", "--interval", "1h")
    shell.read_until("3 more below")
    shell.send(signal.SIGINT)
    assert shell.wait() == 0


def test_server_that_is_gone_is_waited_for(terminal: Callable[..., Terminal]) -> None:
    with server_in_thread() as (address,):
        shell = terminal("--no-color", "top", "--server", address, "--interval", "100ms")
        shell.read_until("0 functions")
    shell.read_until("; trying again")
    with server_in_thread(f"gearman://{address}"), connect_blocking(address) as client:
        client.submit_background("mail", b"")
        shell.read_until("mail")
    shell.send(signal.SIGTERM)
    assert shell.wait() == 128 + signal.SIGTERM
    assert "\x1b[?1049l" in shell.seen


def test_no_server_at_the_beginning_ends_it(terminal: Callable[..., Terminal]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    shell = terminal("--no-color", "top", "-p", str(port))
    assert shell.wait() == Status.NO_SERVER
    assert "no server at localhost" in shell.seen


def test_view_without_a_keyboard_ends_by_signal(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    shell = terminal("--no-color", "top", "--interval", "100ms", streams="oe")
    shell.read_until("0 functions")
    shell.send(signal.SIGINT)
    assert shell.wait() == 0
