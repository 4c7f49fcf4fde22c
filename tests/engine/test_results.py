"""What became of a job: who knows it, what is kept, and for how long."""

from __future__ import annotations

import logging
import math

import pytest

from tests.engine.storing import StoringWorld
from tests.engine.world import Caller, World, spoken
from trigear.engine import shelves
from trigear.engine.config import EngineConfig, FunctionSettings, OnTimeout
from trigear.engine.finding import STATE_WORDS
from trigear.engine.reads import READ_SECONDS
from trigear.errors import ConfigError, StoreUnavailable, StoreUnknown
from trigear.model import CloseReason, JobEnd, Now
from trigear.stores.base import Forget, Record, SpoiltRecord
from trigear.testing.clock import START

DAY = 86400.0


def keeping(**more: object) -> EngineConfig:
    """Function ``f`` keeps results for a day, ``g`` does not."""
    settings = FunctionSettings(**{"keep_results": DAY, **more})
    return EngineConfig(functions={b"f": settings}, attempts=3)


def asking(world: World) -> Caller:
    """A client in extended mode."""
    caller = world.caller()
    caller.ask("OPTION_REQ", b"trigear")
    return caller


def told(world: World, handle: bytes) -> tuple[str, int, float, bytes | None]:
    """What the server says of a job: state, attempts, time of its end, data."""
    ((name, *args),) = asking(world).ask("GET_RESULT", handle)
    assert name == "RESULT"
    same, state, attempts, ended, kept, data = args
    assert same == handle
    assert kept in (b"0", b"1")
    assert kept == b"1" or not data
    return state.decode(), int(attempts), int(ended) / 1000, data if kept == b"1" else None


def state(world: World, handle: bytes) -> str:
    return told(world, handle)[0]


def done(world: World, data: bytes = b"result", *, kind: str = "SUBMIT_JOB_BG") -> bytes:
    """Have a job of ``f`` done; its handle."""
    client, worker = world.caller(), world.worker()
    handle = client.submit(kind, b"f", b"", b"work")
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, data)
    return handle


@pytest.fixture
def storing() -> StoringWorld:
    return StoringWorld(keeping())


@pytest.fixture(params=["memory", "store"])
def either(request: pytest.FixtureRequest) -> World:
    """A server that keeps results in memory, or in its store."""
    return World(keeping()) if request.param == "memory" else StoringWorld(keeping())


# What is known of every job


def test_a_job_is_followed_from_its_submission_to_its_end(world):
    client, worker = world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    assert told(world, handle) == ("queued", 0, 0.0, None)
    worker.grab()
    assert told(world, handle) == ("running", 1, 0.0, None)
    world.pass_time(10)
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert told(world, handle) == ("done", 1, START.wall + 10, None)


def test_a_job_that_nobody_knows_is_unknown(world):
    assert told(world, b"H:nobody:1") == ("unknown", 0, 0.0, None)
    assert spoken(world.caller().command(b"result H:nobody:1")) == [("text", b"ERR UNKNOWN_JOB")]


def test_a_job_for_later_is_delayed(world):
    client = world.caller()
    handle = client.submit("SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % (START.wall + 60), b"work")
    assert state(world, handle) == "delayed"


def test_a_job_that_is_not_stored_yet_is_unknown(storing):
    storing.writing = False
    client = storing.caller()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"work")
    assert state(storing, b"H:memory:%020d" % 1) == "unknown"


@pytest.mark.parametrize(
    ("packet_name", "args", "word"),
    [
        ("WORK_COMPLETE", (b"x",), "done"),
        ("WORK_FAIL", (), "failed"),
        ("WORK_EXCEPTION", (b"x",), "exception"),
    ],
)
@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_how_its_worker_ended_a_job_is_told_in_a_word(world, packet_name, args, word, kind):
    client, worker = world.caller(), world.worker()
    handle = client.submit(kind, b"f", b"", b"work")
    worker.grab()
    worker.tell(packet_name, handle, *args)
    assert state(world, handle) == word


def test_so_are_all_other_ends():
    world = World(
        EngineConfig(
            attempts=1,
            functions={b"slow": FunctionSettings(timeout=1.0, on_timeout=OnTimeout.FAIL)},
        )
    )
    client, other = world.caller(), world.caller()
    cancelled = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    client.command(b"cancel job " + cancelled)
    assert state(world, cancelled) == "cancelled"
    abandoned = other.submit("SUBMIT_JOB", b"f", b"", b"work")
    other.leave()
    assert state(world, abandoned) == "abandoned"
    dropped = client.submit("SUBMIT_JOB_BG", b"g", b"", b"work")
    client.command(b"drop function g")
    assert state(world, dropped) == "dropped"
    lost = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    worker = world.worker()
    worker.grab()
    worker.leave()
    assert told(world, lost)[:2] == ("dead", 1)
    late = client.submit("SUBMIT_JOB_BG", b"slow", b"", b"work")
    world.worker(b"slow").grab()
    world.pass_time(1)
    assert told(world, late)[:2] == ("timeout", 1)


def test_every_end_has_a_word_of_its_own():
    assert STATE_WORDS.keys() == set(JobEnd)
    assert len(set(STATE_WORDS.values())) == len(JobEnd)


def test_outcomes_are_remembered_for_as_many_jobs_as_is_set():
    world = World(EngineConfig(outcomes=2))
    handles = [done(world) for _ in range(4)]
    assert [state(world, handle) for handle in handles] == ["unknown", "unknown", "done", "done"]


def test_a_nul_behind_the_handle_is_no_part_of_it(world):
    handle = done(world)
    ((_, same, state, *_),) = asking(world).ask("GET_RESULT", handle + b"\0")
    assert (same, state) == (handle, b"done")


@pytest.mark.pure
def test_tenants_know_their_own_jobs_only(either, monkeypatch):
    names = {"10.0.0.1": "red", "10.0.0.2": "blue"}
    monkeypatch.setattr(
        type(either.engine), "tenant_of", lambda self, session: names[session.address]
    )
    red, blue = either.caller("10.0.0.1"), either.caller("10.0.0.2")
    for caller in (red, blue):
        caller.ask("OPTION_REQ", b"trigear")
    handle = red.submit("SUBMIT_JOB_BG", b"f", b"u", b"work")
    for known in (b"queued", b"running", b"done"):
        assert red.ask("GET_RESULT", handle)[0][2] == known
        assert blue.ask("GET_RESULT", handle)[0][2] == b"unknown"
        assert blue.command(b"result " + handle) == b"ERR UNKNOWN_JOB\r\n"
        assert blue.command(b"drop result " + handle) == b"ERR UNKNOWN_JOB\r\n"
        if known == b"queued":
            red.tell("CAN_DO", b"f")
            red.grab()
        elif known == b"running":
            red.tell("WORK_COMPLETE", handle, b"secret")
    assert red.ask("GET_RESULT", handle)[0][-1] == b"secret"


# What is kept


@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_function_that_says_so_keeps_results_of_all_its_jobs(either, kind):
    handle = done(either, kind=kind)
    assert told(either, handle) == ("done", 1, START.wall, b"result")


def test_an_exception_is_kept_and_of_other_ends_the_outcome(either):
    client, worker = either.caller(), either.worker()
    raised, failed = (client.submit("SUBMIT_JOB_BG", b"f", b"", b"%d" % n) for n in range(2))
    worker.grab()
    worker.tell("WORK_EXCEPTION", raised, b"bang")
    worker.grab()
    worker.tell("WORK_FAIL", failed)
    cancelled = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    client.command(b"cancel job " + cancelled)
    assert told(either, raised)[::3] == ("exception", b"bang")
    assert told(either, failed)[::3] == ("failed", b"")
    assert told(either, cancelled)[::3] == ("cancelled", b"")


def test_parts_of_a_result_are_not_kept(either):
    client, worker = either.caller(), either.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    worker.grab()
    worker.tell("WORK_DATA", handle, b"part")
    worker.tell("WORK_COMPLETE", handle, b"end")
    assert told(either, handle)[3] == b"end"


def test_what_foreground_jobs_leave_behind_without_a_client_is_not_kept(either):
    client = either.caller()
    handle = client.submit("SUBMIT_JOB", b"f", b"", b"work")
    client.leave()
    assert told(either, handle) == ("abandoned", 0, START.wall, None)


def test_a_result_is_written_in_the_batch_that_ends_its_job(storing):
    handle = done(storing)
    lines = next(lines for lines in storing.batches if any(isinstance(x, Forget) for x in lines))
    record, forget = lines
    assert isinstance(record, Record)
    assert record[:5] == ("result", "default", handle, 0, b"f")
    assert (record.data, record.expires) == (b"result", START.wall + DAY)
    assert isinstance(forget, Forget)
    assert storing.cabinet.jobs == {}


def test_until_it_is_written_a_result_is_told_from_memory(storing):
    client, worker = storing.caller(), storing.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    worker.grab()
    storing.writing = False
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert told(storing, handle)[3] == b"result"
    assert storing.fetches == []
    storing.writing = True
    storing.flush()
    assert told(storing, handle)[3] == b"result"
    assert [fetch.keys for fetch in storing.fetches] == [(handle,)]


def test_an_empty_result_needs_no_reading(storing):
    handle = done(storing, b"")
    assert told(storing, handle)[3] == b""
    assert storing.fetches == []


def test_after_a_crash_there_is_either_the_job_or_its_result(storing):
    client, worker = storing.caller(), storing.worker()
    first, second = (client.submit("SUBMIT_JOB_BG", b"f", b"", b"%d" % n) for n in range(2))
    assert worker.grab() == first
    worker.tell("WORK_COMPLETE", first, b"result")
    worker.grab()
    storing.writing = False
    worker.tell("WORK_COMPLETE", second, b"result")
    after = storing.killed()
    assert told(after, first) == ("done", 1, START.wall, b"result")
    assert told(after, second) == ("queued", 0, 0.0, None)
    ended = [record.key for record in storing.cabinet.of("result")]
    assert (ended, [job.handle for job in storing.cabinet.jobs.values()]) == ([first], [second])


def test_an_end_that_could_not_be_written_is_written_later_with_its_result(storing):
    client, worker = storing.caller(), storing.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    worker.grab()
    storing.failing = StoreUnavailable("the disk is full")
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert told(storing, handle)[3] == b"result"
    assert len(storing.cabinet.jobs) == 1
    storing.failing = None
    storing.flush()
    assert storing.cabinet.jobs == {}
    assert told(storing.killed(), handle)[3] == b"result"


def test_an_end_whose_result_was_dropped_before_it_could_be_written_is_written_alone(storing):
    client, worker = storing.caller(), storing.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"work")
    worker.grab()
    storing.writing = False
    worker.tell("WORK_COMPLETE", handle, b"result")
    ticket = storing.engine.take_ticket()
    client.command(b"drop result " + handle)
    storing.engine.done(ticket, StoreUnavailable("the disk is full"), storing.time())
    storing.writing = True
    storing.flush()
    assert (storing.cabinet.jobs, storing.cabinet.records) == ({}, {})
    assert told(storing, handle)[::3] == ("done", None)


def test_a_foreground_result_that_cannot_be_written_is_not_kept(storing):
    storing.failing = StoreUnavailable("the disk is full")
    handle = done(storing, kind="SUBMIT_JOB")
    storing.failing = None
    storing.flush()
    assert told(storing, handle)[::3] == ("done", None)
    assert storing.cabinet.records == {}
    assert storing.engine.results.kept._books == {"default": {}}


def test_a_dropped_foreground_result_that_was_not_written_is_no_trouble(storing):
    storing.writing = False
    handle = done(storing, kind="SUBMIT_JOB")
    ticket = storing.engine.take_ticket()
    storing.caller().command(b"drop result " + handle)
    storing.engine.done(ticket, StoreUnavailable("the disk is full"), storing.time())
    storing.writing = True
    storing.flush()
    assert storing.cabinet.records == {}


def test_while_the_store_does_not_answer_no_foreground_results_pile_up(storing):
    storing.writing = False
    storing.caller().tell("SUBMIT_JOB_BG", b"f", b"", b"work")
    ticket = storing.engine.take_ticket()
    storing.engine.done(ticket, StoreUnknown("perhaps"), storing.time())
    assert storing.engine.refuses_durable
    handle = done(storing, kind="SUBMIT_JOB")
    assert told(storing, handle)[::3] == ("done", None)


def test_a_job_that_became_a_background_job_is_forgotten_with_its_result(storing):
    client, worker = storing.caller(), storing.worker()
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"work")
    assert client.submit("SUBMIT_JOB_BG", b"f", b"u", b"work") == handle
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert storing.cabinet.jobs == {}
    assert [record.key for record in storing.cabinet.of("result")] == [handle]


# Reading


def test_replies_keep_their_order_while_a_result_is_read(storing):
    handle = done(storing)
    client = asking(storing)
    storing.reading = False
    assert client.ask("GET_RESULT", handle) == []
    assert client.ask("ECHO_REQ", b"behind") == []
    storing.reading = True
    storing.flush()
    assert [said[0] for said in client.heard()] == ["RESULT", "ECHO_RES"]


def test_others_are_served_while_a_result_is_read(storing):
    handle = done(storing)
    client = asking(storing)
    storing.reading = False
    client.tell("GET_RESULT", handle)
    assert storing.caller().ask("ECHO_REQ", b"x") == [("ECHO_RES", b"x")]


def test_a_store_that_does_not_answer_is_told_of_after_a_while_and_then_at_once(storing):
    handle = done(storing)
    client = asking(storing)
    storing.reading = False
    client.tell("GET_RESULT", handle)
    client.tell("ECHO_REQ", b"behind")
    fetch = storing.engine.reads.next_fetch()
    storing.pass_time(READ_SECONDS - 0.1)
    assert client.heard() == []
    storing.pass_time(0.1)
    silent = ("ERROR", b"RESULT_UNAVAILABLE", b"The store does not answer")
    assert client.heard() == [silent, ("ECHO_RES", b"behind")]
    assert client.ask("GET_RESULT", handle) == [silent]
    storing.engine.fetched(fetch, storing.cabinet.read(fetch), "", storing.time())
    storing.flush()
    assert client.heard() == [], "too late"
    storing.reading = True
    assert client.ask("GET_RESULT", handle)[0][-1] == b"result"


def test_a_result_that_cannot_be_read_is_an_error(storing):
    handle = done(storing)
    storing.trouble = "The store cannot be read now"
    assert asking(storing).ask("GET_RESULT", handle) == [
        ("ERROR", b"RESULT_UNAVAILABLE", b"The store cannot be read now")
    ]


def test_a_result_that_is_gone_from_the_store_is_told_without_data(storing):
    handle = done(storing)
    storing.cabinet.records.clear()
    assert told(storing, handle) == ("done", 1, START.wall, None)


def test_who_leaves_while_a_result_is_read_is_not_looked_for(storing):
    handle = done(storing)
    client = asking(storing)
    storing.reading = False
    client.tell("GET_RESULT", handle)
    session = client.peer.session
    client.leave()
    storing.reading = True
    storing.flush()
    assert session.out == []


def test_what_is_asked_for_counts_as_held_for_who_asks(storing):
    handle = done(storing, b"x" * 5000)
    client = asking(storing)
    storing.reading = False
    client.tell("GET_RESULT", handle)
    assert client.peer.session.held_size > 5000


# How long, and how much


def test_results_are_dropped_when_their_time_has_come(either):
    handle = done(either)
    either.pass_time(DAY - 1)
    assert told(either, handle)[3] == b"result"
    either.pass_time(1)
    assert told(either, handle) == ("done", 1, START.wall, None), "the outcome is remembered"
    if isinstance(either, StoringWorld):
        assert either.cabinet.records == {}


def test_a_result_whose_time_has_come_is_not_told_of_even_if_it_is_there_still(either):
    either.time.advance(0.5)
    handle = done(either)
    either.time.advance(DAY)
    assert told(either, handle)[3] is None


def test_few_results_are_dropped_at_a_time(storing, monkeypatch):
    for _ in range(600):
        done(storing, b"")
    storing.time.advance(DAY)
    sizes = []
    while storing.cabinet.records:
        before = len(storing.cabinet.records)
        storing.tick()
        sizes.append(before - len(storing.cabinet.records))
    assert sizes == [256, 256, 88]
    assert storing.engine.next_deadline() > storing.time().monotonic


def test_the_wall_clock_is_looked_at_every_now_and_then(either):
    handle = done(either)
    either.time.set_wall(START.wall + 2 * DAY)
    either.pass_time(shelves.LOOK_SECONDS)
    assert told(either, handle)[3] is None
    assert not either.engine.results.kept._expiry


def test_the_oldest_go_when_there_are_too_many(caplog):
    world = StoringWorld(keeping(keep_results_count=3))
    handles = []
    for number in range(5):
        world.pass_time(1)
        handles.append(done(world, b"%d" % number))
    kept = [told(world, handle)[3] for handle in handles]
    assert kept == [None, None, b"2", b"3", b"4"]
    assert {record.key for record in world.cabinet.of("result")} == set(handles[2:])
    assert caplog.messages == [
        "function f: results are dropped before their time for their number;"
        " there is room for 3 results with 67108864 bytes"
    ], "said once"


def test_the_oldest_go_when_they_are_too_large_together(either, caplog):
    either.engine.reload(keeping(keep_results_size=100))
    handles = [done(either, b"x" * 40) for _ in range(4)]
    assert [told(either, handle)[3] is not None for handle in handles] == [
        *(False, False),
        *(True, True),
    ]
    assert len(caplog.messages) == 1
    assert "for their size" in caplog.messages[0]


def test_of_a_result_that_is_too_large_alone_the_outcome_is_kept(caplog):
    world = StoringWorld(keeping(keep_results_size=10))
    small = done(world, b"x" * 10)
    large = done(world, b"x" * 11)
    after = world.killed()
    assert told(after, small)[::3] == ("done", b"x" * 10)
    assert told(after, large)[::3] == ("done", None)
    (line,) = caplog.messages
    assert line.startswith("function f: a result is larger than all of them may be together;")


@pytest.mark.pure
def test_a_bound_that_became_tighter_counts_from_the_next_start_some_at_a_time(
    storing, monkeypatch
):
    monkeypatch.setattr(shelves, "TRIM_TURN", 2)
    handles = []
    for _ in range(9):
        storing.pass_time(1)
        handles.append(done(storing))
    after = storing.killed(keeping(keep_results_count=4))
    after.tick()
    assert len(after.cabinet.records) == 7
    after.pass_time(0)
    assert {record.key for record in after.cabinet.of("result")} == set(handles[5:])
    assert after.engine.results.kept._unsettled == {}


def test_a_result_that_ends_before_the_start_was_over_waits_its_turn(storing):
    done(storing)
    after = storing.killed(keeping(keep_results_count=1))
    second = done(after)
    assert len(after.cabinet.records) == 2
    after.tick()
    assert [record.key for record in after.cabinet.of("result")] == [second]


def test_results_whose_function_keeps_none_any_more_stay_for_their_time(storing):
    handle = done(storing)
    after = storing.killed(EngineConfig())
    assert told(after, handle)[3] == b"result"
    other = done(after)
    assert told(after, other)[3] is None
    after.pass_time(DAY)
    assert told(after, handle)[0] == "unknown"
    assert after.cabinet.records == {}


def test_what_is_out_of_order_does_not_fill_memory(either):
    first = done(either, b"")
    either.engine.reload(keeping(keep_results=1.0))
    for _ in range(1000):
        done(either, b"")
        either.pass_time(1)
    (shelf,) = either.engine.results.kept._shelves.values()
    assert told(either, first)[3] == b""
    assert len(shelf.row) < 200
    assert len(either.engine.results.kept) < 5


def test_a_handle_that_ends_twice_has_its_last_result(storing):
    handle = done(storing, b"first")
    record = storing.cabinet.of("result")[0]
    storing.cabinet.records[("result", "default", handle, 7)] = record._replace(partition=7)
    after = storing.killed()
    assert told(after, handle)[3] == b"first"
    assert len(after.engine.results.kept) == 1


# Taking back what the store held


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ('{"state": "odd", "size": 1, "ended": 1, "attempts": 1, "unique": ""}', "state: 'odd'"),
        ('{"state": "done", "size": "1", "ended": 1, "attempts": 1, "unique": ""}', "size: '1'"),
        ('{"state": "done", "size": -2, "ended": 1, "attempts": 1, "unique": ""}', "size: -2"),
        ('{"state": "done", "size": 1, "ended": 1, "attempts": 1, "unique": 5}', "unique: 5"),
        ('{"state": "done", "size": 1, "ended": NaN, "attempts": 1, "unique": ""}', "ended at nan"),
        ('{"state": "done", "size": 1, "attempts": 1, "unique": ""}', "'ended' is missing"),
        ('{"state": "done", "size": 1, "ended": 1, "attempts": 1, "unique": "€"}', "latin-1"),
    ],
)
def test_a_record_that_is_no_result_stays_in_the_store(storing, about, why, caplog):
    handle = done(storing)
    (key, record) = next(iter(storing.cabinet.records.items()))
    storing.cabinet.records[key] = record._replace(about=about)
    with caplog.at_level(logging.ERROR):
        after = storing.killed()
    assert state(after, handle) == "unknown"
    assert len(storing.cabinet.records) == 1
    assert why in caplog.text


def test_a_record_that_cannot_be_read_stays_in_the_store(storing):
    storing.engine.restore_records(
        [SpoiltRecord("result", "default", b"h", 0, "layout 99")], storing.time()
    )
    assert storing.engine.spoilt == 1


def test_a_time_that_is_none_spoils_a_record(storing, caplog):
    done(storing)
    (key, record) = next(iter(storing.cabinet.records.items()))
    storing.cabinet.records[key] = record._replace(expires=math.inf)
    assert storing.killed().engine.spoilt == 1


# Text commands


def test_a_text_command_tells_what_became_of_a_job(storing):
    client, worker = storing.caller(), storing.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"my key", b"work")
    assert client.command(b"result " + handle).decode().split("\n") == [
        f"handle\t{handle.decode()}",
        "function\tf",
        "unique\tmy key",
        "state\tqueued",
        "attempts\t0",
        ".",
        "",
    ]
    worker.grab()
    storing.time.advance(0.25)
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert client.command(b"result " + handle).decode().split("\n")[3:] == [
        "state\tdone",
        "attempts\t1",
        f"ended\t{START.wall + 0.25:.3f}",
        "size\t6",
        ".",
        "",
    ]
    assert storing.fetches == [], "nothing has to be read for that"


def test_a_result_can_be_dropped_and_its_outcome_is_remembered(either):
    handle = done(either)
    client = either.caller()
    assert client.command(b"drop result " + handle) == b"OK\r\n"
    assert told(either, handle) == ("done", 1, START.wall, None)
    assert client.command(b"drop result " + handle) == b"ERR UNKNOWN_JOB\r\n"
    if isinstance(either, StoringWorld):
        assert either.cabinet.records == {}


# Settings


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"keep_results": -1.0}, "keep-results: -1.0 is negative"),
        ({"keep_results_count": 0}, "keep-results-count: 0 is below 1"),
        ({"keep_results_size": -1}, "keep-results-size: -1 is negative"),
        ({"reuse_results": True}, "reuse-results: no results are kept; set keep-results as well"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, why):
    with pytest.raises(ConfigError, match=why.replace(".", r"\.")):
        FunctionSettings(**settings)


def test_a_number_of_outcomes_below_none_is_refused():
    with pytest.raises(ConfigError, match="outcomes: -1 is negative; use 0 for none"):
        EngineConfig(outcomes=-1)


def test_a_dropped_function_leaves_its_results(storing):
    handle = done(storing)
    for session in list(storing.engine._sessions.values()):
        storing.engine.connection_lost(session, CloseReason.PEER_CLOSED, storing.time())
    assert storing.caller().command(b"drop function f") == b"OK\r\n"
    assert told(storing, handle)[3] == b"result"


# While jobs are still being loaded


def test_who_asks_for_a_job_that_may_still_be_loaded_waits_for_that(storing):
    kept = done(storing)
    storing.writing = True
    waiting = storing.job()
    jobs = list(storing.cabinet.jobs.values())
    storing.cabinet.jobs.clear()
    after = storing.killed()
    after.engine.expect_jobs()
    client = asking(after)
    assert client.ask("GET_RESULT", kept)[0][2] == b"done", "that is known already"
    running = after.caller().submit("SUBMIT_JOB", b"f", b"", b"work")
    assert client.ask("GET_RESULT", running)[0][2] == b"queued"
    gone = after.caller()
    abandoned = gone.submit("SUBMIT_JOB", b"f", b"", b"work")
    gone.leave()
    assert client.ask("GET_RESULT", abandoned)[0][2] == b"abandoned"
    assert client.ask("GET_RESULT", waiting) == []
    assert client.peer.session.holding
    after.engine.restore(jobs, after.time())
    after.engine.have_arrived(after.time())
    after.flush()
    assert client.heard()[0][2] == b"queued"


def test_the_handle_of_a_schedule_is_known_as_that(either):
    client = either.caller()
    ((said, handle),) = client.ask(
        "SUBMIT_JOB_SCHED", *(b"f", b"u", b"0", b"3", b"*", b"*", b"*"), b"work"
    )
    assert said == "JOB_CREATED"
    assert told(either, handle) == ("scheduled", 0, 0.0, None)
    assert b"state\tscheduled\n" in client.command(b"result " + handle)
    either.engine.expect_jobs()
    assert told(either, handle)[0] == "scheduled", "nobody waits for jobs because of it"


# Jobs that are tried again, and dead letters


def failing(**more: object) -> EngineConfig:
    settings = FunctionSettings(
        dead_letters=True, dead_failures=True, retry_failures=True, backoff=5.0, **more
    )
    return EngineConfig(functions={b"f": settings}, attempts=2)


def fail(world: World, handle: bytes, text: bytes = b"bang") -> None:
    worker = world.worker()
    assert worker.grab() == handle
    worker.tell("WORK_EXCEPTION", handle, text)
    worker.leave()


def test_a_job_that_is_tried_again_is_not_over():
    world = StoringWorld(failing(keep_results=DAY))
    handle = world.job()
    fail(world, handle)
    assert told(world, handle) == ("delayed", 1, 0.0, None)
    world.pass_time(5)
    assert told(world, handle)[:2] == ("queued", 1)
    fail(world, handle)
    assert told(world, handle)[:2] == ("dead", 2)


def test_a_dead_letter_is_known_after_a_restart():
    world = StoringWorld(failing())
    handle = world.job("SUBMIT_JOB_BG", b"f", b"my key", b"work")
    fail(world, handle)
    world.pass_time(5)
    fail(world, handle)
    died = world.time().wall
    after = world.killed()
    assert told(after, handle) == ("dead", 2, died, None)
    assert b"unique\tmy key\n" in after.caller().command(b"result " + handle)
    after.engine.expect_jobs()
    assert told(after, handle)[0] == "dead", "nobody waits for jobs because of it"


def test_of_a_dead_letter_the_exception_is_kept_where_results_are():
    world = StoringWorld(failing(keep_results=DAY))
    handle = world.job()
    fail(world, handle)
    world.pass_time(5)
    fail(world, handle, b"bang" * 1000)
    assert told(world, handle)[::3] == ("dead", b"bang" * 1000)
    assert told(world.killed(), handle)[::3] == ("dead", b"bang" * 1000)


class Nobody:
    """Is told, and does not care."""

    def stored(self, now: Now) -> None:
        pass

    def not_stored(self, now: Now) -> None:
        raise AssertionError


def test_a_dead_letter_that_is_retried_has_its_last_result():
    world = StoringWorld(failing(keep_results=DAY))
    handle = world.job()
    fail(world, handle)
    world.pass_time(5)
    fail(world, handle)
    dead = world.engine.broker.dead
    letter = dead.get(world.engine.broker.tenant("default"), handle)
    assert letter is not None
    dead.revive(letter, Nobody(), world.time())
    world.flush()
    assert told(world, handle)[:2] == ("queued", 0)
    worker = world.worker()
    assert worker.grab() == handle
    worker.tell("WORK_COMPLETE", handle, b"at last")
    assert told(world, handle) == ("done", 1, world.time().wall, b"at last")
    assert told(world.killed(), handle)[::3] == ("done", b"at last")
