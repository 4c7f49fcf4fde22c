"""A kept success answers a new submission with the same unique."""

from __future__ import annotations

import pytest

from tests.engine.storing import StoringWorld
from tests.engine.world import Caller, World
from trigear.broker.quotas import Allowance, Quotas
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.errors import StoreUnavailable, StoreUnknown
from trigear.testing.clock import START

HOUR = 3600.0
REUSING = EngineConfig(
    functions={
        b"f": FunctionSettings(keep_results=HOUR, reuse_results=True),
        b"g": FunctionSettings(keep_results=HOUR),
    }
)


@pytest.fixture
def storing() -> StoringWorld:
    return StoringWorld(REUSING)


@pytest.fixture(params=["memory", "store"])
def either(request: pytest.FixtureRequest) -> World:
    return World(REUSING) if request.param == "memory" else StoringWorld(REUSING)


def submit(client: Caller, kind: str = "SUBMIT_JOB", unique: bytes = b"u", name: bytes = b"f"):
    return client.ask(kind, name, unique, b"work")


def done(
    world: World, data: bytes = b"result", *, kind: str = "SUBMIT_JOB_BG", name: bytes = b"f"
) -> bytes:
    client, worker = world.caller(), world.worker(name)
    ((_, handle),) = submit(client, kind, name=name)
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, data)
    worker.leave()
    return handle


def is_new(said: list, handle: bytes) -> bool:
    return [name for name, *_ in said] == ["JOB_CREATED"] and said[0][1] != handle


@pytest.mark.parametrize("first", ["SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH"])
@pytest.mark.parametrize("again", ["SUBMIT_JOB", "SUBMIT_JOB_LOW"])
def test_a_foreground_submission_gets_the_kept_result(either, first, again):
    handle = done(either, kind=first)
    assert submit(either.caller(), again) == [
        ("JOB_CREATED", handle),
        ("WORK_COMPLETE", handle, b"result"),
    ]
    assert either.engine.statistics().jobs == 0
    assert either.engine.results.reused == 1


@pytest.mark.parametrize("first", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
def test_a_background_submission_gets_the_old_handle(either, first):
    handle = done(either, kind=first)
    assert submit(either.caller(), "SUBMIT_JOB_BG") == [("JOB_CREATED", handle)]
    assert either.engine.statistics().jobs == 0


def test_after_a_restart_too(storing):
    handle = done(storing)
    after = storing.killed()
    assert submit(after.caller())[1] == ("WORK_COMPLETE", handle, b"result")
    assert submit(after.caller(), "SUBMIT_JOB_BG") == [("JOB_CREATED", handle)]


def test_of_several_successes_the_newest_answers(either):
    old = done(either, b"old")
    either.caller().command(b"drop result " + old)
    done(either, b"new")
    assert submit(either.caller())[1][2] == b"new"


def test_a_success_that_was_restored_behind_a_newer_one_does_not_take_its_place(storing):
    handle = done(storing, b"old")
    (record,) = storing.cabinet.of("result")
    newer = record._replace(
        key=b"H:a", data=b"new", about=record.about.replace(str(START.wall), str(START.wall + 1))
    )
    storing.cabinet.records[newer[:4]] = newer._replace(data=b"new!!!")
    assert handle > b"H:a"
    assert submit(storing.killed().caller())[1] == ("WORK_COMPLETE", b"H:a", b"new!!!")


def test_another_unique_another_function_and_no_unique_are_new_jobs(either):
    handle = done(either)
    done(either, name=b"g")
    client = either.caller()
    assert is_new(submit(client, unique=b"v"), handle)
    assert is_new(submit(client, unique=b""), handle)
    assert is_new(submit(client, name=b"g"), handle)


def test_the_workload_itself_is_no_unique_that_somebody_chose(either):
    client, worker = either.caller(), either.worker()
    ((_, handle),) = submit(client, unique=b"-")
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert client.heard() == [("WORK_COMPLETE", handle, b"result")]
    assert is_new(submit(client, unique=b"-"), handle)


@pytest.mark.parametrize(
    ("kind", "args"),
    [
        ("SUBMIT_JOB_EPOCH", (b"f", b"u", b"2000000000", b"work")),
        ("SUBMIT_REDUCE_JOB", (b"f", b"u", b"reducer", b"", b"work")),
    ],
)
def test_a_job_for_later_or_with_a_reducer_is_new(either, kind, args):
    handle = done(either)
    assert is_new(either.caller().ask(kind, *args), handle)


@pytest.mark.parametrize("packet", ["WORK_FAIL", "WORK_EXCEPTION"])
def test_what_did_not_succeed_is_done_again(either, packet):
    client, worker = either.caller(), either.worker()
    ((_, handle),) = submit(client, "SUBMIT_JOB_BG")
    worker.grab()
    worker.tell(packet, handle, *((b"bang",) if packet == "WORK_EXCEPTION" else ()))
    assert is_new(submit(client), handle)


def test_a_job_that_is_there_is_joined_and_not_answered_from_an_older_one(either):
    done(either, b"old")
    client, worker = either.caller(), either.worker()
    either.engine.rules.reusing = False
    ((_, handle),) = submit(client)
    either.engine.rules.reusing = True
    assert submit(client) == [("JOB_CREATED", handle)]
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"new")
    assert client.heard() == [("WORK_COMPLETE", handle, b"new")] * 2


def test_what_has_expired_was_dropped_or_was_too_large_is_done_again(either):
    client = either.caller()
    handle = done(either)
    client.command(b"drop result " + handle)
    assert is_new(submit(client), handle)
    settings = FunctionSettings(keep_results=HOUR, keep_results_size=3, reuse_results=True)
    either.engine.reload(EngineConfig(functions={b"f": settings}))
    worker = either.worker()
    large = worker.grab()
    worker.tell("WORK_COMPLETE", large, b"1234")
    client.heard()
    ((_, handle),) = submit(client)
    assert handle != large
    assert worker.grab() == handle
    worker.tell("WORK_COMPLETE", handle, b"123")
    client.heard()
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"123")
    either.time.advance(HOUR)
    assert is_new(submit(client), handle)


def test_a_result_that_is_on_its_way_to_the_store_answers_already(storing):
    client, worker = storing.caller(), storing.worker()
    ((_, handle),) = submit(client, "SUBMIT_JOB_BG")
    worker.grab()
    storing.writing = False
    worker.tell("WORK_COMPLETE", handle, b"result")
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"result")
    assert submit(client, "SUBMIT_JOB_BG") == [("JOB_CREATED", handle)], "job or result is written"


def test_what_a_crash_could_take_away_answers_no_background_submission(storing):
    storing.writing = False
    handle = done(storing, kind="SUBMIT_JOB")
    client = storing.caller()
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"result")
    assert submit(client, "SUBMIT_JOB_BG") == []
    storing.writing = True
    storing.flush()
    ((said, new),) = client.heard()
    assert (said, new != handle) == ("JOB_CREATED", True)


# While it is read


def test_the_reply_waits_for_the_data_and_keeps_its_place(storing):
    handle = done(storing)
    client = storing.caller()
    storing.reading = False
    assert submit(client) == []
    client.tell("ECHO_REQ", b"behind")
    storing.reading = True
    storing.flush()
    assert client.heard() == [
        ("JOB_CREATED", handle),
        ("WORK_COMPLETE", handle, b"result"),
        ("ECHO_RES", b"behind"),
    ]


@pytest.mark.parametrize("gone", [True, False])
def test_what_cannot_be_read_is_submitted_as_new(storing, gone):
    handle = done(storing)
    client = storing.caller()
    storing.reading = False
    submit(client)
    client.tell("ECHO_REQ", b"behind")
    if gone:
        storing.cabinet.records.clear()
    else:
        storing.trouble = "The store cannot be read now"
    storing.reading = True
    storing.flush()
    created, echoed = client.heard()
    assert (created[0], echoed) == ("JOB_CREATED", ("ECHO_RES", b"behind"))
    assert created[1] != handle
    worker = storing.worker()
    assert worker.grab() == created[1]
    worker.tell("WORK_COMPLETE", created[1], b"anew")
    assert client.heard() == [("WORK_COMPLETE", created[1], b"anew")]


def unreadable(storing: StoringWorld) -> Caller:
    """A client whose submission waits for a result that will turn out to be unreadable."""
    done(storing)
    client = storing.caller()
    storing.reading = False
    assert submit(client) == []
    storing.trouble = "The store cannot be read now"
    return client


def read(storing: StoringWorld) -> None:
    storing.reading = True
    storing.flush()


def test_two_who_could_not_be_answered_share_the_new_job(storing):
    client, other = unreadable(storing), storing.caller()
    submit(other)
    read(storing)
    assert client.heard() == other.heard()
    assert storing.engine.statistics().jobs == 1


def test_who_left_meanwhile_gets_no_new_job(storing):
    unreadable(storing).leave()
    read(storing)
    assert storing.engine.statistics().jobs == 0


def test_a_new_job_is_refused_as_any_other(storing):
    client = unreadable(storing)
    storing.caller().command(b"maxqueue f 1")
    submit(storing.caller(), unique=b"other")
    read(storing)
    assert client.heard() == [("ERROR", b"QUEUE_ERROR", b"Job queue is full")]


def test_a_new_job_over_the_quota_is_refused_as_any_other(storing):
    client = unreadable(storing)
    allowance = Allowance(Quotas(max_queued_jobs=1))
    allowance.charge(1)
    storing.engine.broker.tenant("default").allowance = allowance
    read(storing)
    over = b"Quota exceeded: max-queued-jobs"
    assert client.heard() == [("ERROR", b"QUOTA_EXCEEDED", over)]


def test_a_server_that_stops_meanwhile_refuses(storing):
    client = unreadable(storing)
    storing.engine.drain(storing.time())
    read(storing)
    assert client.heard() == [
        ("ERROR", b"SHUTDOWN_GRACEFUL", b"The server is about to stop"),
    ]


def test_a_new_job_may_have_to_wait_for_the_store_once_more(storing):
    client = unreadable(storing)
    other = storing.caller()
    storing.writing = False
    storing.engine.rules.reusing = False
    assert submit(other, "SUBMIT_JOB_BG") == []
    read(storing)
    assert client.heard() == [], "it joined a job that is not written yet"
    storing.writing = True
    storing.flush()
    assert client.heard() == other.heard()


def test_a_store_that_does_not_answer_refuses_background_submissions(storing):
    handle = done(storing)
    client = storing.caller()
    storing.writing = False
    submit(client, "SUBMIT_JOB_BG", unique=b"other")
    storing.engine.done(storing.engine.take_ticket(), StoreUnknown("perhaps"), storing.time())
    client = storing.caller()
    assert submit(client, "SUBMIT_JOB_BG") == [
        ("ERROR", b"QUEUE_ERROR", b"The store does not answer")
    ]
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"result")


def test_a_foreground_result_that_was_not_written_answers_nobody(storing):
    storing.failing = StoreUnavailable("the disk is full")
    handle = done(storing, kind="SUBMIT_JOB")
    storing.failing = None
    assert is_new(submit(storing.caller()), handle)


def test_a_function_may_be_made_to_reuse_results_while_the_server_runs(either):
    either.engine.reload(EngineConfig())
    handle = done(either)
    assert is_new(submit(either.caller()), handle)
    either.engine.reload(REUSING)
    either.caller().command(b"cancel job H:memory:%020d" % 2)
    handle = done(either)
    assert submit(either.caller())[1] == ("WORK_COMPLETE", handle, b"result")
