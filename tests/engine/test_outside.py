"""Results that are kept elsewhere: first there, then the job is forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.storing import StoringWorld
from trigear.broker.peers import Peer
from trigear.engine import outside
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.outside import DROP, Put
from trigear.engine.reads import READ_SECONDS
from trigear.model import JobEnd
from trigear.stores.results import Result
from trigear.testing.clock import START

if TYPE_CHECKING:
    from tests.engine.world import Caller

HOUR = 3600.0


def config(**more: object) -> EngineConfig:
    settings = {"keep_results": HOUR, "reuse_results": True, **more}
    return EngineConfig(functions={b"f": FunctionSettings(**settings)})


class Elsewhere(StoringWorld):
    """A server whose results are kept in ``place``. While ``putting`` is false what is put does
    not arrive; while ``asking`` is false nobody is answered; ``down`` lets everything fail."""

    elsewhere = True

    def __init__(self, *args: object) -> None:
        self.place: dict[tuple[str, bytes], Result] = {}
        self.putting = self.asking = True
        self.down = False
        self.puts: list[Put] = []
        super().__init__(*args)

    @property
    def outside(self):
        return self.engine.results.outside

    def flush(self) -> None:
        super().flush()
        while self.putting and (ticket := self.outside.next_ticket()) is not None:
            self.puts.append(ticket)
            if not self.down:
                self.place |= {(result.tenant, result.handle): result for result in ticket.results}
            self.engine.put(self.time(), kept=not self.down)
            super().flush()
            if self.down:
                break
        while self.asking and (fetch := self.outside.reads.next_fetch()) is not None:
            why = "It cannot be read now" if self.down else ""
            self.engine.fetched(fetch, self.answer(fetch), why, self.time())
            super().flush()

    def answer(self, fetch) -> dict:
        match fetch.what[0]:
            case outside.GET:
                return {key: self.place[key] for key in fetch.keys if key in self.place}
            case outside.FIND:
                found = {}
                for result in self.place.values():
                    key = result.tenant, result.function, result.unique
                    if key in fetch.keys and result.state == "done":
                        found[key] = result
                return found
        assert fetch.what[0] == DROP
        if not self.down:
            for key in fetch.keys:
                self.place.pop(key, None)
        return {}


@pytest.fixture
def world() -> Elsewhere:
    return Elsewhere(config())


def asking(world: Elsewhere) -> Caller:
    client = world.caller()
    client.ask("OPTION_REQ", b"trigear")
    return client


def ended(
    world: Elsewhere,
    data: bytes = b"result",
    *,
    kind: str = "SUBMIT_JOB_BG",
    unique: bytes = b"",
    end: str = "WORK_COMPLETE",
) -> bytes:
    client, worker = world.caller(), world.worker()
    handle = client.submit(kind, b"f", unique, b"work")
    assert worker.grab() == handle
    worker.tell(end, handle, *((data,) if end == "WORK_COMPLETE" else ()))
    worker.leave()
    return handle


def told(world: Elsewhere, handle: bytes) -> tuple[bytes, bytes, bytes]:
    """State, whether it is kept, data."""
    ((name, _, state, _, _, kept, data),) = asking(world).ask("GET_RESULT", handle)
    assert name == "RESULT"
    return state, kept, data


DONE = (b"done", b"1", b"result")
REMEMBERED = (b"done", b"0", b"")


# On the way there


def test_a_result_goes_there_and_then_its_job_is_forgotten(world):
    world.putting = False
    handle = ended(world, unique=b"u")
    assert len(world.cabinet.jobs) == 1
    assert told(world, handle) == DONE, "until then it is told from memory"
    world.putting = True
    world.flush()
    assert world.cabinet.jobs == {}
    (put,) = world.puts
    assert put.results == (
        Result(
            tenant="default",
            handle=handle,
            function=b"f",
            unique=b"u",
            state="done",
            attempts=1,
            ended=START.wall,
            expires=START.wall + HOUR,
            data=b"result",
        ),
    )
    assert told(world, handle) == DONE


def test_after_a_crash_there_is_either_the_job_or_its_result(world):
    first = ended(world)
    world.putting = False
    second = ended(world)
    after = Elsewhere(world.engine.config, world.cabinet, world.time)
    after.place = world.place
    assert told(after, first) == DONE
    assert told(after, second) == (b"queued", b"0", b"")
    assert not world.cabinet.records


def test_what_could_not_be_put_is_put_again(world):
    world.down = True
    handle = ended(world)
    assert len(world.cabinet.jobs) == 1
    assert told(world, handle) == DONE
    assert not world.engine.drained
    world.down = False
    world.flush()
    assert (world.cabinet.jobs, list(world.place)) == ({}, [("default", handle)])
    assert world.engine.drained


def test_foreground_results_go_there_as_well(world):
    handle = ended(world, kind="SUBMIT_JOB")
    assert told(world, handle) == DONE
    assert list(world.place) == [("default", handle)]


def test_of_a_result_that_is_too_large_the_outcome_goes_there():
    world = Elsewhere(config(keep_results_size=3))
    handle = ended(world, b"1234", unique=b"u")
    assert world.place["default", handle].data is None
    assert told(world, handle) == REMEMBERED
    assert world.caller().submit("SUBMIT_JOB_BG", b"f", b"u", b"work") != handle


def test_what_gathers_goes_there_together_within_bounds(world, monkeypatch):
    monkeypatch.setattr(outside, "PUT_RESULTS", 3)
    monkeypatch.setattr(outside, "PUT_BYTES", 10_000)
    world.putting = False
    for size in (1, 1, 1, 1, 9000, 20_000, 1):
        ended(world, b"x" * size)
    world.putting = True
    world.flush()
    assert [[len(r.data) for r in put.results] for put in world.puts] == [
        [1, 1, 1],
        [1],
        [9000],
        [20_000],
        [1],
    ]


def test_a_store_that_takes_nothing_does_not_fill_the_memory(world, monkeypatch, caplog):
    monkeypatch.setattr(outside, "WAITING_BYTES", 3000)
    world.putting = False
    handles = [ended(world, b"x" * 488) for _ in range(3)]
    flying = world.outside.next_ticket()
    assert len(flying.results) == 3
    handles += [ended(world, b"x" * 488, kind=k) for k in ("SUBMIT_JOB_BG", "SUBMIT_JOB")]
    assert len(world.outside) == 3
    assert [told(world, handle)[1] for handle in handles[:3]] == [b"1"] * 3
    assert told(world, handles[3]) == REMEMBERED
    world.engine.put(world.time(), kept=False)
    handles += [ended(world, b"x" * 488) for _ in range(3)]
    assert len(world.outside) == 3
    (line,) = caplog.messages
    assert line.startswith("the store of results takes nothing, and what waits for it is more than")
    world.putting = True
    world.flush()
    assert caplog.messages[1:] == ["the store of results works again; 5 results are not there"]
    assert [key for _, key in world.place] == handles[-3:]
    again = [job.handle for job in world.cabinet.jobs.values()]
    assert again == handles[:4], "they run again after the next start"
    world.putting = False
    for _ in range(4):
        ended(world, b"x" * 488)
    assert len(caplog.messages) == 3, "it is said anew"


def test_t33_nobody_s_results_go_because_another_tenant_has_too_many(world, monkeypatch):
    monkeypatch.setattr(outside, "WAITING_BYTES", 3000)
    world.putting = False
    broker, keeper = world.engine.broker, world.outside

    def keep(tenant):
        peer = Peer(broker.tenant(tenant), world.caller().peer.session)
        job = broker.submit(peer, b"f", b"", b"", 1, False, world.engine.now)
        keeper.keep(job, JobEnd.COMPLETED, 1, b"x" * 488, world.engine.now)
        return tenant, job.handle

    quiet = keep("quiet")
    loud = [keep("loud") for _ in range(5)]
    assert keeper.at_hand(*quiet, world.time()) is not None
    kept = [keeper.at_hand(*each, world.time()) is not None for each in loud]
    assert kept == [False] * (5 - sum(kept)) + [True] * sum(kept)
    assert 0 < sum(kept) < 5


def test_a_handle_that_ends_twice_has_its_last_result(world):
    world.putting = False
    handle = ended(world)
    first = world.outside._waiting["default", handle]
    job = world.engine.broker.restore(
        world.engine.broker.tenant("default"),
        *(b"f", b"", handle, b"work", 1),
        world.time(),
        sequence=999,
    )
    world.cabinet.jobs[0, 999] = None
    worker = world.worker()
    assert worker.grab() == job.handle
    worker.tell("WORK_COMPLETE", handle, b"again")
    assert first.gone
    world.putting = True
    world.flush()
    assert world.cabinet.jobs == {}
    assert told(world, handle) == (b"done", b"1", b"again")


# Asking for it


def test_who_asks_waits_until_the_place_has_answered(world):
    handle = ended(world)
    world.asking = False
    client = asking(world)
    assert client.ask("GET_RESULT", handle) == []
    assert client.ask("ECHO_REQ", b"x") == []
    assert world.caller().ask("ECHO_REQ", b"x") == [("ECHO_RES", b"x")]
    world.asking = True
    world.flush()
    assert [name for name, *_ in client.heard()] == ["RESULT", "ECHO_RES"]


def test_jobs_that_are_there_are_told_of_at_once(world):
    world.asking = False
    handle = world.job()
    assert told(world, handle) == (b"queued", b"0", b"")


def test_what_is_not_there_is_remembered_or_unknown(world):
    handle = ended(world)
    world.place.clear()
    assert told(world, handle) == REMEMBERED
    assert told(world, b"H:nobody:1") == (b"unknown", b"0", b"")


def test_what_has_expired_is_not_told_even_if_it_is_there(world):
    handle = ended(world)
    world.pass_time(HOUR)
    assert told(world, handle) == REMEMBERED


def test_a_place_that_cannot_be_asked_is_an_error(world):
    handle = ended(world)
    world.down = True
    error = ("ERROR", b"RESULT_UNAVAILABLE", b"It cannot be read now")
    assert asking(world).ask("GET_RESULT", handle) == [error]
    line = b"ERR RESULT_UNAVAILABLE It+cannot+be+read+now\r\n"
    assert world.caller().command(b"result " + handle) == line
    assert world.caller().command(b"drop result " + handle) == line


def test_a_place_that_does_not_answer_is_told_of_after_a_while(world):
    handle = ended(world)
    world.asking = False
    client = asking(world)
    client.tell("GET_RESULT", handle)
    assert world.engine.next_deadline() <= world.time().monotonic + READ_SECONDS
    world.pass_time(READ_SECONDS)
    assert client.heard() == [("ERROR", b"RESULT_UNAVAILABLE", b"The store does not answer")]


def test_the_text_command_tells_all_but_the_data(world):
    handle = ended(world, unique=b"u")
    lines = world.caller().command(b"result " + handle).decode().split("\n")
    assert lines[1:5] == ["function\tf", "unique\tu", "state\tdone", "attempts\t1"]
    assert lines[6] == "size\t6"


@pytest.mark.pure
def test_tenants_are_asked_for_apart(world, monkeypatch):
    names = {"10.0.0.1": "red", "10.0.0.2": "blue"}
    handle = ended(world)
    monkeypatch.setattr(
        type(world.engine), "tenant_of", lambda self, session: names[session.address]
    )
    red, blue = world.caller("10.0.0.1"), world.caller("10.0.0.2")
    result = world.place.pop(("default", handle))
    world.place["red", handle] = result._replace(tenant="red")
    for caller in (red, blue):
        caller.ask("OPTION_REQ", b"trigear")
    assert red.ask("GET_RESULT", handle)[0][-1] == b"result"
    assert blue.ask("GET_RESULT", handle)[0][2] == b"unknown"


def test_while_jobs_are_loaded_an_unknown_handle_waits_for_them(world):
    handle = ended(world)
    after = Elsewhere(world.engine.config, world.cabinet, world.time)
    after.place = world.place
    after.engine.expect_jobs()
    client = asking(after)
    assert client.ask("GET_RESULT", handle) == []
    after.engine.have_arrived(after.time())
    after.flush()
    assert client.heard()[0][-1] == b"result"


# Dropping it


def test_a_result_that_is_there_is_dropped_there(world):
    handle = ended(world)
    client = world.caller()
    world.asking = False
    assert client.command(b"drop result " + handle) == b""
    world.asking = True
    world.flush()
    assert client.peer.take() == b"OK\r\n"
    assert world.place == {}
    assert told(world, handle) == REMEMBERED


def test_one_that_waits_never_goes_there(world):
    world.putting = False
    handle = ended(world)
    assert world.caller().command(b"drop result " + handle) == b"OK\r\n"
    assert world.cabinet.jobs == {}, "the job has ended all the same"
    world.putting = True
    world.flush()
    assert world.place == {}


@pytest.mark.parametrize("kept", [True, False])
def test_one_that_is_on_its_way_is_dropped_behind_that(world, kept):
    world.putting = world.asking = False
    handle = ended(world)
    ticket = world.outside.next_ticket()
    client = world.caller()
    assert client.command(b"drop result " + handle) == b""
    assert len(world.cabinet.jobs) == 1
    if kept:
        world.place["default", handle] = ticket.results[0]
    world.engine.put(world.time(), kept=kept)
    world.putting = world.asking = True
    world.flush()
    assert client.peer.take() == b"OK\r\n"
    assert (world.place, world.cabinet.jobs) == ({}, {})


# Reusing it


def submit(client: Caller, kind: str = "SUBMIT_JOB") -> list:
    return client.ask(kind, b"f", b"u", b"work")


def test_a_kept_success_answers_a_new_submission(world):
    handle = ended(world, unique=b"u")
    client = world.caller()
    assert submit(client) == [("JOB_CREATED", handle), ("WORK_COMPLETE", handle, b"result")]
    assert submit(client, "SUBMIT_JOB_BG") == [("JOB_CREATED", handle)]
    assert world.engine.results.reused == 2


def test_one_that_is_on_its_way_does_so_too(world):
    world.putting = False
    handle = ended(world, unique=b"u")
    client = world.caller()
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"result")
    assert submit(client, "SUBMIT_JOB_BG") == [("JOB_CREATED", handle)]


def test_one_that_a_crash_could_take_away_answers_no_background_submission(world):
    world.putting = False
    handle = ended(world, kind="SUBMIT_JOB", unique=b"u")
    client = world.caller()
    assert submit(client)[1] == ("WORK_COMPLETE", handle, b"result")
    ((said, new),) = submit(client, "SUBMIT_JOB_BG")
    assert (said, new != handle) == ("JOB_CREATED", True)


def test_only_the_newest_is_found_by_its_unique(world):
    world.putting = False
    old = ended(world, b"old", unique=b"u")
    world.engine.rules.reusing = False
    new = ended(world, b"new", unique=b"u")
    world.engine.rules.reusing = True
    client = world.caller()
    assert submit(client)[1] == ("WORK_COMPLETE", new, b"new")
    client.command(b"drop result " + old)
    assert submit(client)[1] == ("WORK_COMPLETE", new, b"new")


@pytest.mark.parametrize("kind", ["SUBMIT_JOB", "SUBMIT_JOB_BG"])
@pytest.mark.parametrize("why", ["nothing there", "expired", "down"])
def test_otherwise_it_is_a_new_job_whose_reply_keeps_its_place(world, kind, why):
    handle = ended(world, unique=b"u")
    if why == "nothing there":
        world.place.clear()
    elif why == "expired":
        world.pass_time(HOUR)
    else:
        world.down = True
    client = world.caller()
    world.asking = False
    assert submit(client, kind) == []
    assert client.ask("ECHO_REQ", b"x") == []
    world.asking = True
    world.flush()
    created, echoed = client.heard()
    assert (created[0], echoed) == ("JOB_CREATED", ("ECHO_RES", b"x"))
    assert created[1] != handle
    assert world.engine.statistics().jobs == 1


def test_a_failure_answers_nothing(world):
    handle = ended(world, unique=b"u", end="WORK_FAIL")
    assert told(world, handle)[0] == b"failed"
    ((said, new),) = submit(world.caller())
    assert (said, new != handle) == ("JOB_CREATED", True)
