"""`trigear schedule`: add, list, show, pause, resume, run and remove."""

from __future__ import annotations

import datetime
import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.plain import server_in_thread
from trigear import connect_admin_blocking
from trigear.cli import schedule
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal
    from tests.conftest import ForeignServer
    from trigear import BlockingAdmin, ScheduleDetails

PATIENCE = 30.0


@pytest.fixture
def admin(server: str) -> Iterator[BlockingAdmin]:
    with connect_admin_blocking(server, timeout=PATIENCE) as admin:
        yield admin


@pytest.fixture(autouse=True)
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's clocks are those of Tokyo."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def details(admin: BlockingAdmin, said: Said) -> ScheduleDetails:
    """What was added."""
    assert said.status == 0, said.err
    found = admin.schedule(said.out.strip())
    assert found is not None
    return found


# Adding


def test_a_schedule_is_added_and_its_next_run_is_said(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    said = trigear("schedule", "add", "30 2 * * mon-fri", "backup", "all of it", "-u", "nightly")
    found = details(admin, said)
    assert (found.function, found.unique, found.workload) == ("backup", "nightly", b"all of it")
    assert (found.when, found.timezone, found.missed) == ("30 2 * * mon-fri", "UTC", "once")
    # 02:30 UTC is half past eleven there.
    assert re.fullmatch(r"trigear: next run: \d{4}-\d\d-\d\d 11:30:00 JST", said.line)
    again = trigear("schedule", "add", "@hourly", "backup", "-u", "nightly", "--quiet")
    assert (again.out, again.err) == (said.out, "")


def test_whose_clocks_what_policy_and_which_priority_can_be_said(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    options = ("--timezone", "Europe/Berlin", "--missed", "skip", "--priority", "high")
    found = details(admin, trigear("schedule", "add", "@daily", "f", *options))
    assert (found.timezone, found.missed) == ("Europe/Berlin", "skip")
    assert found.priority.name == "HIGH"
    found = details(admin, trigear("schedule", "add", "@daily", "f", "w", "--timezone", "local"))
    assert found.timezone == "Asia/Tokyo"


def test_intervals_have_an_option(admin: BlockingAdmin, trigear: Callable[..., Said]) -> None:
    found = details(admin, trigear("schedule", "add", "--every", "5m", "poll", "here"))
    assert (found.when, found.function, found.workload) == ("@every 5m", "poll", b"here")
    found = details(admin, trigear("schedule", "add", "@every 90s", "poll"))
    assert found.when == "@every 1m30s"


def test_the_workload_may_be_in_a_file_or_come_from_standard_input(
    admin: BlockingAdmin,
    trigear: Callable[..., Said],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "rules"
    path.write_bytes(b"\0rules\xff")
    found = details(admin, trigear("schedule", "add", "@daily", "f", "--file", str(path)))
    assert found.workload == b"\0rules\xff"
    with path.open() as file:
        monkeypatch.setattr("sys.stdin", file)
        found = details(admin, trigear("schedule", "add", "@weekly", "f", "--file", "-"))
    assert found.workload == b"\0rules\xff"
    said = trigear("schedule", "add", "@daily", "f", "--file", str(tmp_path / "none"))
    assert said.status == Status.NO
    assert "No such file or directory" in said.line


def test_with_a_time_it_is_one_job(
    admin: BlockingAdmin, server: str, trigear: Callable[..., Said]
) -> None:
    at = "2100-01-01T00:00:00+01:00"
    said = trigear("schedule", "add", "--at", at, "mail", "hello", "-u", "new-century")
    assert said.line == "trigear: one job, 2100-01-01 08:00:00 JST; see 'trigear job'"
    (job,) = admin.jobs()
    assert (job.handle, job.unique) == (said.out.strip(), "new-century")
    assert admin.schedules() == []
    said = trigear("schedule", "add", "--at", at, "mail", "--json")
    assert json.loads(said.out)["next"] == at


def test_json_has_the_handle_and_the_next_run(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    said = trigear("schedule", "add", "0 3 * * *", "f", "--json")
    document = json.loads(said.out)
    assert document.keys() == {"handle", "next"}
    assert document["next"].endswith("T12:00:00+09:00")
    assert said.err == ""
    assert admin.schedule(document["handle"]) is not None


@pytest.mark.usefixtures("server")
def test_one_that_is_paused_stays_so_and_that_is_said(trigear: Callable[..., Said]) -> None:
    trigear("schedule", "add", "@daily", "f", "-u", "u")
    trigear("schedule", "pause", "u")
    said = trigear("schedule", "add", "@hourly", "f", "-u", "u")
    assert said.line == "trigear: it is paused: 'trigear schedule resume' lets it run"
    assert (
        json.loads(trigear("schedule", "add", "@hourly", "f", "-u", "u", "--json").out)["next"]
        is None
    )


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ([], "say when first: '0 3 * * *' in quotes, @daily, --every 5m or --at TIME"),
        (["backup"], "say when first"),
        (["0", "3", "*", "*", "*", "backup"], "say when first"),
        (["@daily"], "name a function, and a workload if any"),
        (["@daily", ""], "function '' is no name"),
        (["@daily", "f", "two", "words"], "there is one workload"),
        (["@daily", "f", "w", "--file", "-"], "--file and WORKLOAD both give a workload"),
        (["--every", "5m", "--at", "2100-01-01T00:00:00Z", "f"], "--every and --at both say when"),
        (["--every", "500ms", "f"], "--every takes whole seconds, at least one"),
        (["--every", "1.5s", "f"], "--every takes whole seconds, at least one"),
        (["--at", "2100-01-01T00:00:00Z", "f", "--missed", "skip"], "--missed does not go with"),
        (["--at", "2100-01-01T00:00:00Z", "f", "--timezone", "UTC"], "--timezone does not go"),
        (["--at", "2100-01-01T00:00:00Z", "f", "--priority", "high"], "--priority does not go"),
        (["@daily", "f", "--missed", "twice"], "'twice' is not one of 'once', 'skip'"),
    ],
)
def test_what_contradicts_itself_is_named(
    args: list[str], why: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("schedule", "add", *args)
    assert said.status == Status.USAGE
    assert why in said.line


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["61 * * * *", "f"], "minute '61' makes no sense: 0 to 59"),
        (["* * * * 9", "f"], "day of week '9' makes no sense: 0 to 7, 0 for Sunday"),
        (["0 0 30 2 *", "f"], "'0 0 30 2 *' never comes: there is no such day"),
        (["* * * *", "f"], "cron has five fields"),
        (["@reboot", "f"], "@reboot means nothing: write @yearly"),
        (["@daily", "f", "--timezone", "Mars/Base"], "there is no time zone 'Mars/Base'"),
        (["@every 5m", "f", "x" * 9000], "workload of 9000 bytes: it does not fit into a text"),
        (["@daily", "f", "-u", "u" * 65], "unique of 65 bytes"),
    ],
)
def test_what_makes_no_sense_is_a_matter_of_usage(
    args: list[str], why: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("schedule", "add", *args)
    assert said.status == Status.USAGE
    assert said.line.startswith(f"trigear: error: {why}")


def test_the_zone_of_a_machine_is_what_its_clock_is_linked_to(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TZ")
    link = tmp_path / "localtime"
    monkeypatch.setattr(schedule, "LOCAL_ZONE", str(link))
    for _ in range(2):
        said = trigear("schedule", "add", "@daily", "f", "--timezone", "local")
        assert said.status == Status.USAGE
        assert "this machine does not name its time zone: name one" in said.line
        link.write_bytes(b"TZif")
    link.unlink()
    link.symlink_to("/usr/share/zoneinfo/Pacific/Chatham")
    assert schedule.local_zone() == "Pacific/Chatham"


@pytest.mark.peers
def test_a_server_without_schedules_is_told_apart(
    gearmand_c: ForeignServer, trigear: Callable[..., Said]
) -> None:
    server = ("--server", gearmand_c.address)
    for when in ("@daily", "@every 5m"):
        said = trigear("schedule", "add", when, "f", *server)
        assert said.status == Status.NO
        assert said.line == f"trigear: error: {gearmand_c.address} knows nothing of schedules"
    assert trigear("schedule", "list", *server).status == Status.NO


# Looking


def test_schedules_are_listed_with_their_next_and_last_runs(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    first = admin.add_schedule("f", "0 3 * * *", unique="a").decode()
    second = admin.add_schedule("g", "@every 5m").decode()
    admin.run_schedule(first)
    admin.pause_schedule(second)
    lines = trigear("schedule", "list").out.splitlines()
    one, two = (line.split("\t") for line in lines)
    assert one[:6] == [first, "f", "a", "0 3 * * *", "UTC", "active"]
    assert one[6].endswith("T12:00:00+09:00")
    ran = datetime.datetime.fromisoformat(one[7])
    assert abs((datetime.datetime.now(datetime.UTC) - ran).total_seconds()) < PATIENCE
    assert one[8] == "1"
    assert two == [second, "g", "-", "@every 5m", "UTC", "paused", "-", "-", "0"]
    documents = [
        json.loads(line) for line in trigear("schedule", "list", "--json").out.splitlines()
    ]
    assert documents[0]["next"] == one[6]
    assert documents[1] == {
        "handle": second,
        "function": "g",
        "unique": None,
        "when": "@every 5m",
        "timezone": "UTC",
        "state": "paused",
        "next": None,
        "ran": None,
        "runs": 0,
    }


@pytest.mark.usefixtures("server")
def test_no_schedules_are_no_lines(trigear: Callable[..., Said]) -> None:
    said = trigear("schedule", "list")
    assert (said.status, said.out, said.err) == (0, "", "")


def test_one_schedule_is_shown_with_its_next_five_runs(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    handle = admin.add_schedule("f", "0 3 * * *", b"w\0rk", unique="u").decode()
    lines = [line.split("\t") for line in trigear("schedule", "show", "u").out.splitlines()]
    assert [name for name, _ in lines].count("next") == 5
    assert ["handle", handle] in lines
    assert ["workload", "w\0rk"] in lines
    assert "ran" not in dict(lines)
    document = json.loads(trigear("schedule", "show", handle, "--json").out)
    assert [time[11:] for time in document["next"]] == ["12:00:00+09:00"] * 5
    assert (document["workload"], document["encoding"], document["size"]) == ("w\0rk", "utf-8", 4)
    assert (document["ran"], document["job"], document["runs"]) == (None, None, 0)


def test_a_large_workload_is_left_out(admin: BlockingAdmin, trigear: Callable[..., Said]) -> None:
    admin.add_schedule("f", "0 3 * * *", b"x" * 5000, unique="u")
    document = json.loads(trigear("schedule", "show", "u", "--json").out)
    assert (document["workload"], document["encoding"], document["size"]) == (None, None, 5000)


def test_people_get_a_table_and_a_view(
    admin: BlockingAdmin, server: str, terminal: Callable[..., Terminal]
) -> None:
    handle = admin.add_schedule("f", "0 3 * * *", b"w", unique="u").decode()
    seen = terminal("schedule", "list", "--no-color")
    assert seen.wait() == 0
    head, row = seen.seen.splitlines()
    assert head.split() == [
        *("HANDLE", "FUNCTION", "UNIQUE", "WHEN", "TIMEZONE", "STATE", "NEXT", "RAN", "RUNS")
    ]
    assert handle in row
    assert " 12:00:00 JST " in row
    seen = terminal("schedule", "show", "u", "--no-color")
    assert seen.wait() == 0
    assert re.search(r"^when: +0 3 \* \* \*$", seen.seen, re.MULTILINE)
    assert len(re.findall(r"^next: +\S+ 12:00:00 JST$", seen.seen, re.MULTILINE)) == 5
    admin.remove_schedule(handle)
    seen = terminal("schedule", "list", "--no-color")
    assert seen.wait() == 0
    assert seen.seen == "trigear: no schedules\n"


# Steering


def test_schedules_are_paused_resumed_and_run(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    admin.add_schedule("f", "@daily", unique="a")
    admin.add_schedule("g", "@daily", unique="b")
    said = trigear("schedule", "pause", "a", "b")
    assert (said.status, said.err) == (0, "trigear: paused: a\ntrigear: paused: b\n")
    assert [one.paused for one in admin.schedules()] == [True, True]
    said = trigear("schedule", "run", "a", "b")
    assert said.out.split() == [job.handle for job in admin.jobs()]
    said = trigear("schedule", "resume", "b")
    assert said.line == "trigear: resumed: b"
    assert [one.paused for one in admin.schedules()] == [True, False]


def test_schedules_are_removed_when_that_is_meant(
    admin: BlockingAdmin, trigear: Callable[..., Said]
) -> None:
    first = admin.add_schedule("f", "@daily", unique="a").decode()
    second = admin.add_schedule("g", "@daily").decode()
    said = trigear("schedule", "remove", "--dry-run", "a", second)
    assert said.err.splitlines() == [
        f"trigear: would remove: {first} (f a, 0 0 * * *)",
        f"trigear: would remove: {second} (g, 0 0 * * *)",
    ]
    said = trigear("schedule", "remove", "a")
    assert said.status == Status.USAGE
    assert "There is no terminal to ask on: say --yes" in said.err
    assert len(admin.schedules()) == 2
    said = trigear("schedule", "remove", "--yes", "a", second)
    assert said.err.splitlines() == [f"trigear: removed: {first}", f"trigear: removed: {second}"]
    assert admin.schedules() == []


def test_who_asks_may_be_told_no(
    admin: BlockingAdmin, server: str, terminal: Callable[..., Terminal]
) -> None:
    admin.add_schedule("f", "@daily", unique="a")
    asked = terminal("schedule", "remove", "a")
    asked.read_until("Remove 1 schedule?")
    asked.type("n\n")
    assert asked.wait() == Status.NO
    assert "nothing was removed" in asked.seen
    assert len(admin.schedules()) == 1


@pytest.mark.parametrize("command", ["show", "pause", "resume", "run", "remove"])
def test_a_schedule_that_is_not_there_is_said(
    command: str, server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("schedule", command, "nobody")
    assert said.status == Status.NO
    assert said.line == "trigear: error: no schedule nobody: see 'trigear schedule list'"


def test_a_unique_of_several_schedules_names_none(
    admin: BlockingAdmin, server: str, trigear: Callable[..., Said]
) -> None:
    admin.add_schedule("f", "@daily", unique="u")
    admin.add_schedule("g", "@daily", unique="u")
    said = trigear("schedule", "pause", "u")
    assert said.status == Status.NO
    assert said.line == (
        f"trigear: error: {server} refused 'schedule show': Several functions have one: name its"
        " handle (AMBIGUOUS_SCHEDULE)"
    )


def test_every_server_is_asked_for_the_schedule(server: str, trigear: Callable[..., Said]) -> None:
    with (
        server_in_thread() as (other,),
        connect_admin_blocking(other, timeout=PATIENCE) as admin,
    ):
        admin.add_schedule("f", "@daily", unique="there")
        said = trigear("schedule", "pause", "--server", server, "--server", other, "there")
        assert said.line == "trigear: paused: there"
        assert [one.paused for one in admin.schedules()] == [True]
