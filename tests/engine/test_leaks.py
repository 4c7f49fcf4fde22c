"""Ways in which one tenant could hear of another, each tried out: what a probe is answered while
another tenant is at work under the same names is what it is answered where that is not there.

`test_two_tenants.py` tries everything in any order; here each way has its own line and its name.
"""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from tests.engine import two_tenants
from tests.engine.test_logins import Guarded
from tests.engine.two_tenants import Street
from tests.engine.world import Caller
from tests.security.logins import PENCIL
from trigear.engine.handles import HandleMint
from trigear.security.mechs import Channel

TEXT = f"""
version = 1
[users.red]
tenant = "red"
roles = ["submit", "work", "admin"]
scram = ["{PENCIL.text()}"]
unix_uids = [1]
[users.blue]
tenant = "blue"
roles = ["submit", "work", "admin"]
scram = ["{PENCIL.text()}"]
unix_uids = [2]
"""
RED, BLUE = (Channel("-", unix=True, uid=uid) for uid in (1, 2))
HANDLE = b"H:memory:%020d" % 1
"""Of the first job: that of red, where red is there."""


class Pair(Guarded):
    """A server at which red may be at work, and blue looks around."""

    def __init__(self, red: bool) -> None:
        super().__init__(TEXT)
        if red:
            self.red_works()
        self.blue = self.caller(BLUE)

    def red_works(self) -> None:
        """Red has jobs of every kind under the names that blue tries."""
        client, worker = self.caller(RED), self.caller(RED)
        client.tell("SET_CLIENT_ID", b"secret")
        worker.tell("CAN_DO", b"f")
        client.submit("SUBMIT_JOB", b"f", b"order-42", b"secret")
        assert worker.grab() == HANDLE
        worker.tell("WORK_WARNING", HANDLE, b"secret")
        client.heard()
        client.submit("SUBMIT_JOB_BG", b"g", b"order-43", b"secret")
        client.command(b"schedule add f @hourly unique=order-44")
        client.command(b"maxqueue f 1")
        client.command(b"pause g")
        worker.tell("PRE_SLEEP")

    def ask(self, *requests: tuple) -> list:
        """What blue is answered, one after the other; its own handles have no numbers."""
        heard: list = []
        for name, *args in requests:
            if name == "text":
                heard.append(self.blue.command(args[0]))
            else:
                heard += self.blue.ask(name, *args)
        return [_nameless(answer) for answer in heard]


def _nameless(answer: object) -> object:
    if isinstance(answer, tuple):
        return tuple(_nameless(part) for part in answer)
    return re.sub(rb"H:memory:\d+", b"H", answer) if isinstance(answer, bytes) else answer


PROBES = {
    "a handle": [("GET_STATUS", HANDLE), ("OPTION_REQ", b"trigear"), ("GET_RESULT", HANDLE)],
    "a handle in text": [
        ("text", b"%s %s" % (words, HANDLE))
        for words in (b"show job", b"result", b"drop result", b"requeue", b"dead show")
    ],
    "a unique": [("GET_STATUS_UNIQUE", b"order-42"), ("GET_STATUS_UNIQUE", b"order-43")],
    "a job of the same unique": [
        ("SUBMIT_JOB", b"f", b"order-42", b"secret"),
        ("text", b"show unique jobs"),
    ],
    "forged answers": [
        (name, HANDLE, *more)
        for name, *more in (
            ("WORK_COMPLETE", b"r"),
            ("WORK_FAIL",),
            ("WORK_EXCEPTION", b"e"),
            ("WORK_DATA", b"d"),
            ("WORK_WARNING", b"w"),
            ("WORK_STATUS", b"1", b"2"),
        )
    ],
    "giving back": [
        ("OPTION_REQ", b"trigear"),
        ("JOB_RELEASE", HANDLE, b""),
        ("JOB_DETACH", HANDLE),
    ],
    "lists of functions": [
        ("text", name) for name in (b"status", b"prioritystatus", b"show functions", b"functions")
    ],
    "lists of connections": [("text", b"workers"), ("text", b"clients"), ("text", b"sessions")],
    "lists of jobs": [
        ("text", name) for name in (b"show jobs", b"show unique jobs", b"jobs", b"dead list")
    ],
    "schedules": [
        ("text", b"schedule list"),
        ("text", b"schedule show order-44"),
        ("text", b"schedule run order-44"),
        ("text", b"schedule remove order-44"),
    ],
    "commands": [
        ("text", b"cancel job " + HANDLE),
        ("text", b"drop function f"),
        ("text", b"create function f"),
        ("text", b"maxqueue f 7"),
        ("text", b"pause f"),
        ("text", b"resume f"),
        ("text", b"priority %s high" % HANDLE),
        ("text", b"tenants"),
    ],
    "facts about the server": [
        ("text", name) for name in (b"getpid", b"verbose", b"drain", b"shutdown", b"reload")
    ],
    "other tenants by name": [
        ("text", b"tenant red"),
        ("text", b"tenant nobody"),
        ("OPTION_REQ", b"tenant=red"),
        ("OPTION_REQ", b"tenant=nobody"),
    ],
    "work": [("CAN_DO", b"g"), ("CAN_DO", b"f"), ("PRE_SLEEP",), ("GRAB_JOB_ALL",)],
    "full queues": [("SUBMIT_JOB", b"f", b"", b"w"), ("SUBMIT_JOB", b"f", b"", b"w")],
    "pauses": [("SUBMIT_JOB", b"g", b"", b"w"), ("CAN_DO", b"g"), ("GRAB_JOB",)],
}


@pytest.mark.parametrize("way", PROBES)
def test_t33_a_probe_is_answered_as_if_nobody_else_were_there(way: str) -> None:
    together, alone = Pair(red=True), Pair(red=False)
    assert together.ask(*PROBES[way]) == alone.ask(*PROBES[way])


@pytest.mark.parametrize("way", PROBES)
def test_t33_a_probe_changes_nothing_for_who_is_probed(way: str) -> None:
    touched, left = Pair(red=True), Pair(red=True)
    touched.ask(*PROBES[way])
    looks = (b"status", b"show jobs", b"show unique jobs", b"schedule list", b"functions", b"jobs")
    for look in looks:
        assert touched.caller(RED).command(look) == left.caller(RED).command(look)


def test_t33_nobody_is_woken_or_told_of_what_another_tenant_does() -> None:
    world = Guarded(TEXT)
    blue, waiting = world.caller(BLUE), world.caller(BLUE)
    blue.tell("CAN_DO", b"f")
    blue.tell("PRE_SLEEP")
    waiting.submit("SUBMIT_JOB", b"g", b"order-42", b"")
    red, worker = world.caller(RED), world.caller(RED)
    worker.tell("CAN_DO", b"g")
    red.submit("SUBMIT_JOB", b"f", b"", b"")
    handle = red.submit("SUBMIT_JOB", b"g", b"order-42", b"")
    assert worker.grab() == handle
    worker.tell("WORK_WARNING", handle, b"secret")
    worker.tell("WORK_EXCEPTION", handle, b"secret")
    world.pass_time(100)
    assert blue.heard() == waiting.heard() == []
    assert [said for said, *_ in red.heard()] == ["WORK_WARNING", "WORK_FAIL"]


def test_t33_handles_tell_nobody_how_many_jobs_there_are() -> None:
    mint = HandleMint(b"H:x", bytes(16))
    numbers = [int(mint("red", b"f", b"")[4:]) for _ in range(100)]
    assert all(abs(one - other) > 1 << 32 for one, other in pairwise(numbers))


def test_t33_a_restart_gives_every_job_back_to_its_tenant() -> None:
    street = Street(two_tenants.OPEN)
    for tenant in (two_tenants.RED, two_tenants.BLUE):
        Caller(street, street.enter(tenant, 0)).submit(
            "SUBMIT_JOB_BG", b"f", b"order-42", tenant.encode()
        )
    street.kill()
    for tenant in (two_tenants.BLUE, two_tenants.RED):
        worker = Caller(street, street.enter(tenant, 0))
        worker.tell("CAN_DO", b"f")
        ((said, *_, workload),) = worker.ask("GRAB_JOB_UNIQ")
        assert (said, workload) == ("JOB_ASSIGN_UNIQ", tenant.encode())
        assert worker.ask("GRAB_JOB_UNIQ") == [("NO_JOB",)]
