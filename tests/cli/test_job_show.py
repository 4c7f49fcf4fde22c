"""`trigear job show`: all about one job."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import Held, plain_worker, server_in_thread
from trigear import connect_blocking
from trigear.cli.job_show import KEYS, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from trigear.cli.job_show import Facts

NOTHING: Facts = dict.fromkeys(KEYS, None)


def in_rows(text: str) -> dict[str, str]:
    return dict(line.split("\t") for line in text.splitlines())


def test_running_job_is_shown_with_everything_about_it(
    server: str, trigear: Callable[..., Said]
) -> None:
    release = threading.Event()

    def hold(job: Held) -> None:
        job.status(1, 4)
        assert release.wait(PATIENCE)
        job.complete()

    with plain_worker(server, hold=hold), connect_blocking(server, timeout=PATIENCE) as client:
        job = client.job("hold", b"12345", unique="u", priority="high")
        next(job)
        handle = job.handle.decode()
        shown = json.loads(trigear("job", "show", handle, "--json").out)
        rows = in_rows(trigear("job", "show", handle).out)
        release.set()
        job.result()
        said = trigear("job", "show", handle)
    assert tuple(shown) == KEYS
    assert shown.pop("worker").startswith("127.0.0.1")
    (waiting,) = shown.pop("waiting")
    assert waiting.startswith("127.0.0.1")
    assert isinstance(shown.pop("age"), int)
    assert shown == {
        "handle": handle,
        "function": "hold",
        "unique": "u",
        "state": "running",
        "priority": "high",
        "background": False,
        "size": 5,
        "attempts": 1,
        "losses": 0,
        "numerator": 1,
        "denominator": 4,
        "due": None,
        "worker_id": None,
        "left": None,
        "clients": 1,
        "server": server,
    }
    assert tuple(rows) == KEYS
    assert (rows["function"], rows["background"], rows["unique"]) == ("hold", "no", "u")
    assert said.status == 1
    assert f"no job {handle}: it is over, was cancelled or never was" in said.line


def test_words_that_look_like_numbers_stay_words(server: str, trigear: Callable[..., Said]) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        handle = client.submit_background("007", b"", unique="42").decode()
    shown = json.loads(trigear("job", "show", handle, "--json").out)
    assert (shown["function"], shown["unique"]) == ("007", "42")


def test_a_person_sees_a_line_for_each_thing_that_is_known(
    server: str, terminal: Callable[..., Terminal]
) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"x").decode()
        shell = terminal("--no-color", "job", "show", handle)
        assert shell.wait() == 0
    lines = shell.seen.splitlines()
    assert lines[:2] == [f"job:       {handle}", "function:  mail"]
    assert "workload:  1 byte" in lines
    assert "kind:      normal priority, goes on without its client" in lines
    assert "waiting:   nobody" in lines
    assert lines[-1] == f"server:    {server}"
    assert not any(line.startswith(("unique", "worker:", "progress")) for line in lines)


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ({"attempts": 1, "losses": 0}, ("attempts", "1")),
        ({"attempts": 3, "losses": 2}, ("attempts", "3, 2 of them came to nothing")),
        ({"numerator": 3, "denominator": 4}, ("progress", "3/4 (75%)")),
        ({"numerator": "0.5", "denominator": 2}, ("progress", "0.5/2")),
        ({"age": 3723}, ("since", "1h 2m ago")),
        ({"due": 10**30}, ("waits for", f"{10**30} s after 1970")),
        ({"worker": "10.0.0.1:1"}, ("worker", "10.0.0.1:1")),
        (
            {"worker": "10.0.0.1:1", "worker_id": "w", "left": 65},
            ("worker", "10.0.0.1:1 (w), 1m 5s left until its deadline"),
        ),
        ({"clients": 3}, ("waiting", "3 submissions")),
        ({"clients": 1, "waiting": ("10.0.0.2:1",)}, ("waiting", "1 submission: 10.0.0.2:1")),
    ],
)
def test_each_thing_is_said_in_words(facts: Facts, line: tuple[str, str]) -> None:
    assert line in in_words(NOTHING | facts)


def test_time_that_a_job_waits_for_is_said_with_its_zone(
    server: str, trigear: Callable[..., Said]
) -> None:
    handle = trigear("submit", "--at", "2100-01-01T00:00:30Z", "mail", "x").out.strip()
    shown = json.loads(trigear("job", "show", handle, "--json").out)
    assert (shown["state"], shown["due"], shown["age"]) == ("delayed", 4102444830, None)
    ((_, words),) = [row for row in in_words(shown) if row[0] == "waits for"]
    assert words[16:19] == ":30"
    assert words[19] in "+-"


def test_every_server_is_asked(server: str, trigear: Callable[..., Said]) -> None:
    with server_in_thread() as (other,), connect_blocking(other, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"").decode()
        at = ["--server", server, "--server", other]
        assert in_rows(trigear("job", "show", *at, handle).out)["server"] == other
