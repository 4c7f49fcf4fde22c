"""Quotas as peers meet them: what is refused, in which words, and what goes on."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.storing import StoringWorld
from tests.engine.test_logins import HERE, TLS, UNIX, USERS, Guarded, scram
from tests.engine.world import Caller, World, packet
from trigear.broker.check import charges_wrong
from trigear.broker.quotas import Quotas
from trigear.engine.config import EngineConfig, FunctionSettings, TenantSettings
from trigear.engine.doors import Door, Networks, Way
from trigear.model import CloseReason, JobEnd
from trigear.security.policy import Role, network_identity
from trigear.stores.base import Record


def config_for(**quotas: float) -> EngineConfig:
    """Acme may have so much, and any number of what is not named."""
    every = dict.fromkeys(Quotas.__dataclass_fields__, 0) | quotas
    return EngineConfig(backoff=0.0, attempts=1, tenants={"acme": TenantSettings(Quotas(**every))})


class Quoted(Guarded):
    """A server with users where acme has quotas."""

    def __init__(self, **quotas: float) -> None:
        super().__init__()
        self.engine.reload(config_for(**quotas))

    def allowance(self):
        allowance = self.engine.broker.tenant("acme").allowance
        assert allowance is not None
        return allowance

    def check_charges(self) -> None:
        tenant = self.engine.broker.tenant("acme")
        assert list(charges_wrong(tenant)) == []
        assert self.allowance().connections == len(list(self.engine.sessions_of(tenant)))


def exceeded(quota: str) -> list[tuple[str, bytes, bytes]]:
    return [("ERROR", b"QUOTA_EXCEEDED", b"Quota exceeded: " + quota.encode())]


def err(quota: str) -> bytes:
    return b"ERR QUOTA_EXCEEDED Quota+exceeded:+" + quota.encode() + b"\r\n"


# Submissions


def test_a_submission_over_the_quota_is_refused_and_the_connection_lives() -> None:
    world = Quoted(max_queued_jobs=1)
    alice = world.user()
    handle = alice.submit()
    assert alice.ask("SUBMIT_JOB", b"f", b"", b"w") == exceeded("max-queued-jobs")
    assert alice.ask("SUBMIT_JOB_BG", b"f", b"", b"w") == exceeded("max-queued-jobs")
    assert alice.command(b"cancel job " + handle).endswith(b"OK\r\n")
    alice.submit()
    world.check_charges()


def test_another_tenant_is_not_refused() -> None:
    world = Quoted(max_queued_jobs=1)
    world.engine.renew_users(
        type(world.logins.authenticator.users).parse(
            """
            version = 1
            [users.eve]
            tenant = "other"
            roles = ["submit"]
            unix_uids = [1]
            """
        ),
        world.time(),
    )
    eve = Caller(world, world.connect("-", replace(UNIX, uid=1)))
    for _ in range(5):
        eve.submit()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SUBMIT_JOB", (b"f", b"")),
        ("SUBMIT_JOB_LOW_BG", (b"f", b"u")),
        ("SUBMIT_JOB_EPOCH", (b"f", b"u", b"1")),
        ("SUBMIT_REDUCE_JOB", (b"f", b"u", b"f", b"")),
        ("SUBMIT_JOB_SCHED", (b"f", b"u", *b"* * * * *".split())),
    ],
)
def test_a_large_submission_is_refused_by_its_length_before_it_is_there(name, args) -> None:
    world = Quoted(max_job_bytes=100_000)
    alice = world.user()
    data = packet(name, *args, b"x" * 200_000)
    decoder = alice.peer.session.decoder
    alice.peer.send(data[:13])
    assert alice.heard() == exceeded("max-job-bytes")
    for start in range(13, len(data), 4096):
        alice.peer.send(data[start : start + 4096])
        assert not decoder._buf
    assert alice.ask("ECHO_REQ", b"still here") == [("ECHO_RES", b"still here")]
    assert alice.end() is None


@pytest.mark.parametrize("size", [101, 70_000])
def test_one_that_is_too_large_by_little_is_measured(size: int) -> None:
    world = Quoted(max_job_bytes=size - 1)
    alice = world.user()
    work = b"x" * (size - 1)
    assert alice.ask("SUBMIT_JOB", b"f", b"", work) == exceeded("max-job-bytes")
    sched = (b"f", b"", *b"* * * * *".split(), work)
    assert alice.ask("SUBMIT_JOB_SCHED", *sched) == exceeded("max-job-bytes")
    alice.submit("SUBMIT_JOB", b"f", b"", work[1:])


def test_who_may_not_submit_is_told_that_and_not_how_much() -> None:
    world = Quoted(max_job_bytes=100_000)
    users = type(world.logins.authenticator.users).parse(
        'version = 1\n[users.ann]\ntenant = "acme"\nroles = ["work"]\nunix_uids = [1]\n'
    )
    world.engine.renew_users(users, world.time())
    ann = Caller(world, world.connect("-", replace(UNIX, uid=1)))
    ann.peer.send(packet("SUBMIT_JOB", b"f", b"", b"x" * 200_000)[:50])
    assert ann.heard() == [("ERROR", b"PERMISSION_DENIED", b"Permission denied")]


def test_schedules_make_no_runs_over_the_quota() -> None:
    world = Quoted(max_queued_jobs=1)
    alice = world.user()
    alice.submit()
    handle = alice.command(b"schedule add f @every 1h").split()[1]
    assert alice.command(b"schedule run " + handle) == err("max-queued-jobs")
    world.pass_time(3700)
    world.check_charges()
    assert world.allowance().queued_jobs == 1


def test_there_are_as_many_schedules_as_there_may_be_jobs() -> None:
    world = Quoted(max_queued_jobs=2, max_queued_bytes=30)
    alice = world.user()
    assert alice.command(b"schedule add f @every 1h unique=a workload=12345").startswith(b"OK")
    again = b"schedule add f @every 2h unique=a workload=123456789"
    assert alice.command(again).startswith(b"OK")
    handle = alice.command(b"schedule add f @every 1h unique=b workload=1").split()[1]
    assert alice.command(b"schedule add f @every 1h unique=c") == err("max-queued-jobs")
    sched = (b"f", b"c", *b"* * * * *".split(), b"")
    assert alice.ask("SUBMIT_JOB_SCHED", *sched) == exceeded("max-queued-jobs")
    assert alice.command(again) == b"OK " + alice.command(again).split()[1] + b"\n"
    assert alice.command(b"schedule remove " + handle) == b"OK\r\n"
    big = b"schedule add f @every 1h unique=b workload=" + b"x" * 20
    assert alice.command(big) == err("max-queued-bytes")
    assert alice.command(big[:-3]).startswith(b"OK")
    assert world.allowance().queued_jobs == 0


def test_a_dead_letter_is_no_job_again_over_the_quota() -> None:
    world = Quoted(max_queued_jobs=3)
    alice = world.user()
    for _ in range(3):
        worker = world.user()
        alice.submit("SUBMIT_JOB_BG")
        worker.tell("CAN_DO", b"f")
        worker.grab()
        worker.leave()
    letters = [line.split(b"\t")[0] for line in alice.command(b"dead list").splitlines()[:-1]]
    assert len(letters) == 3
    alice.submit()
    assert alice.command(b"dead retry all") == b"OK 2 1\n"
    assert alice.command(b"dead retry all") == err("max-queued-jobs")
    assert alice.command(b"dead retry " + letters[2]) == err("max-queued-jobs")
    assert alice.command(b"dead delete all") == b"OK 1 0\n"
    world.check_charges()


def test_a_submission_that_waited_for_a_kept_result_may_be_over_the_quota_then() -> None:
    world = Quoted(max_functions=1)
    config = config_for(max_functions=1)
    reuse = FunctionSettings(keep_results=60.0, reuse_results=True)
    tenants = {"acme": TenantSettings(config.tenants["acme"].quotas, {b"g": reuse})}
    world.engine.reload(EngineConfig(tenants=MappingProxyType(tenants)))
    alice = world.user()
    alice.submit()
    assert alice.ask("SUBMIT_JOB", b"g", b"u", b"") == exceeded("max-functions")


# Workers


def test_abilities_over_the_quota_are_ignored_said_once_and_counted(caplog) -> None:
    caplog.set_level("WARNING", "trigear")
    world = Quoted(max_abilities_per_connection=2)
    worker = world.user("bob")
    alice = world.user(extended=False)
    for number in range(5):
        assert alice.ask("CAN_DO", b"f%d" % number) == []
    assert worker.ask("CAN_DO", b"f") == []
    lines = [each.getMessage() for each in caplog.records if "quota" in each.getMessage()]
    assert len(lines) == 1
    assert "max-abilities-per-connection" in lines[0]
    assert world.allowance().exceeded == {"max-abilities-per-connection": 3}
    assert alice.ask("GRAB_JOB") == [("NO_JOB",)]
    world.check_charges()


def test_workers_and_functions_over_the_quota_are_ignored() -> None:
    world = Quoted(max_workers=1, max_functions=1)
    alice, more = world.user(), world.user()
    alice.tell("CAN_DO", b"f")
    more.tell("CAN_DO", b"f")
    alice.tell("CAN_DO", b"g")
    assert world.allowance().exceeded == {"max-workers": 1, "max-functions": 1}
    alice.leave()
    more.tell("CAN_DO", b"f")
    assert world.allowance().exceeded.total() == 2
    world.check_charges()


# Commands


def test_commands_make_no_functions_over_the_quota() -> None:
    world = Quoted(max_functions=2)
    alice = world.user()
    assert alice.command(b"create function a") == b"OK\r\n"
    assert alice.command(b"pause b") == b"OK\r\n"
    assert alice.command(b"set c timeout 3") == b"OK\r\n"  # in place of a, which is idle
    assert alice.command(b"create function d") == err("max-functions")
    assert alice.command(b"set d timeout 3") == err("max-functions")
    assert alice.command(b"set c timeout 4") == b"OK\r\n"
    assert alice.command(b"resume b") == b"OK\r\n"
    assert alice.command(b"create function d") == err("max-functions")
    assert alice.command(b"reset b") == b"OK\r\n"
    assert alice.command(b"create function d") == b"OK\r\n"
    world.check_charges()


def test_what_was_set_before_a_restart_counts_after_it() -> None:
    world = Quoted(max_functions=2)
    records = [
        Record("setting", tenant, b"f", 0, b"f", '{"timeout":"3s"}', b"", 0.0)
        for tenant in ("acme", "other")
    ]
    world.engine.restore_records(records, world.time())
    alice = world.user()
    assert alice.command(b"pause g") == b"OK\r\n"
    assert alice.command(b"pause h") == err("max-functions")
    assert b"f" not in world.engine.broker.tenant("other").functions
    world.check_charges()


def quotas_told(caller: Caller) -> dict[tuple[str, str], tuple[str, ...]]:
    lines = caller.command(b"tenants").decode().splitlines()
    assert lines.pop() == "."
    rows = [line.split("\t") for line in lines]
    return {(tenant, quota): tuple(rest) for tenant, quota, *rest in rows}


def test_a_tenant_is_told_what_it_may_have_and_what_it_has() -> None:
    world = Quoted(max_queued_jobs=1, max_job_bytes=1000, max_background_age=60.0)
    bob = world.user("bob")
    bob.submit("SUBMIT_JOB", b"f", b"", b"work")
    bob.ask("SUBMIT_JOB", b"f", b"", b"work")
    bob.tell("CAN_DO", b"f")
    assert quotas_told(bob) == {
        ("acme", "max-connections"): ("1", "0", "0"),
        ("acme", "max-workers"): ("1", "0", "0"),
        ("acme", "max-functions"): ("1", "0", "0"),
        ("acme", "max-queued-jobs"): ("1", "1", "1"),
        ("acme", "max-queued-bytes"): ("5", "0", "0"),
        ("acme", "max-job-bytes"): ("-", "1000", "0"),
        ("acme", "max-abilities-per-connection"): ("-", "0", "0"),
        ("acme", "max-background-age"): ("-", "60", "0"),
    }


def test_an_operator_is_told_of_every_tenant() -> None:
    world = Quoted(max_workers=3)
    tenants = {"later": TenantSettings(), **config_for(max_workers=3).tenants}
    world.engine.reload(EngineConfig(tenants=tenants))
    scram(world.caller(), "eve")
    told = quotas_told(world.user())
    assert {tenant for tenant, _ in told} == {"acme", "default", "later", "other"}
    assert told["later", "max-queued-bytes"] == ("0", "268435456", "0")
    assert told["other", "max-connections"] == ("1", "0", "0")
    assert told["other", "max-queued-bytes"] == ("-", "0", "0")
    assert told["acme", "max-workers"] == ("0", "3", "0")


def test_without_logins_everybody_is_told_everything() -> None:
    world = World()
    client = world.caller()
    client.submit()
    told = quotas_told(client)
    assert told["default", "max-queued-jobs"] == ("1", "0", "0")


# Connections


def test_a_login_over_the_quota_is_refused_and_the_connection_closed() -> None:
    world = Quoted(max_connections=2)
    first, _ = world.user(), world.user("bob")
    late = world.caller()
    assert scram(late, "bob") == ("ERROR", b"QUOTA_EXCEEDED", b"Quota exceeded: max-connections")
    assert late.end() is None
    world.pass_time(2)
    assert late.end() is CloseReason.NOT_LOGGED_IN
    world.check_charges()
    assert world.allowance().exceeded == {"max-connections": 1}
    first.leave()
    world.check_charges()
    world.user("bob")
    scram(world.caller(), "eve")  # another tenant
    world.user()  # an operator
    world.check_charges()
    assert world.allowance().connections == 3


def test_who_is_known_without_a_login_is_refused_too() -> None:
    world = Quoted(max_connections=1)
    world.user()
    users = type(world.logins.authenticator.users).parse(
        f"{USERS}[users.carl]\ntenant = 'acme'\nunix_uids = [7]\n"
    )
    world.engine.renew_users(users, world.time())
    late = world.caller(replace(UNIX, uid=7))
    world.flush()
    assert late.heard() == exceeded("max-connections")
    late.peer.send(packet("SUBMIT_JOB", b"f", b"", b"w"))
    world.pass_time(2)
    assert late.end() is CloseReason.NOT_LOGGED_IN
    assert late.heard() == []
    world.check_charges()


def test_who_logs_in_again_is_charged_once() -> None:
    world = Quoted(max_connections=1)
    alice = world.user()
    assert scram(alice)[0] == "SASL_OK"
    world.check_charges()
    alice.leave()
    world.check_charges()


@pytest.mark.parametrize("channel", [HERE, TLS])
def test_who_is_nobody_is_charged_to_nobody(channel) -> None:
    world = Quoted(max_connections=1)
    nobody = world.caller(channel)
    nobody.leave()
    assert scram(world.caller(), password="wrong") == ()
    world.check_charges()
    assert world.allowance().connections == 0


@pytest.mark.parametrize("most", [1, 2])
def test_who_came_from_a_network_is_charged_to_one_tenant_at_a_time(most: int) -> None:
    networks = Networks({"192.0.2.0/24": network_identity("192.0.2.0/24", "lan", [Role.SUBMIT])})
    door = Door(frozenset({Way.SASL, Way.NETWORK}), networks)
    world = Quoted()
    config = config_for(max_connections=most)
    tenants = {"lan": config.tenants["acme"], **config.tenants}
    world.engine.reload(EngineConfig(tenants=tenants))
    world.user()
    channel = replace(HERE, address="192.0.2.7")
    world.logins.door = door
    caller = Caller(world, world.connect("192.0.2.7", channel))
    lan = world.engine.broker.tenant("lan").allowance
    assert lan is not None
    assert lan.connections == 1
    heard = scram(caller, "bob")
    if most == 1:
        assert [heard] == exceeded("max-connections")
        assert lan.connections == 1
        world.pass_time(2)
    else:
        assert heard[0] == "SASL_OK"
    assert lan.connections == 0
    world.check_charges()


def test_who_comes_in_by_an_open_door_counts_and_is_not_refused() -> None:
    world = Guarded()
    tenants = {"default": TenantSettings(Quotas(max_connections=1, max_job_bytes=70_000))}
    world.engine.reload(EngineConfig(tenants=tenants))
    world.logins.door = Door(open=True)
    callers = [world.caller(), world.caller()]
    allowance = world.engine.broker.tenant("default").allowance
    assert allowance is not None
    assert allowance.connections == 2
    callers[0].peer.send(packet("SUBMIT_JOB", b"f", b"", b"x" * 80_000)[:50])
    assert callers[0].heard() == exceeded("max-job-bytes")
    callers[1].leave()
    assert allowance.connections == 1


PEOPLE = """
version = 1
[users.ann]
tenant = "acme"
roles = ["submit", "work", "operator"]
unix_uids = [1]
[users.ben]
tenant = "other"
roles = ["submit"]
unix_uids = [2]
"""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["come", "come", "leave", "work", "rest", "act", "end", "reload"]),
            st.integers(0, 5),
        ),
        max_size=30,
    )
)
def test_connections_and_workers_are_charged_exactly(steps: list[tuple[str, int]]) -> None:
    world = Guarded(PEOPLE)
    quotas = config_for(max_connections=3, max_workers=2)
    world.engine.reload(EngineConfig(tenants={"other": TenantSettings(), **quotas.tenants}))
    callers: list[Caller] = []
    for what, number in steps:
        callers = [each for each in callers if each.end() is None]
        who = callers[number % len(callers)] if callers else None
        if what == "come":
            callers.append(world.caller(replace(UNIX, uid=number % 3)))
            world.flush()
        elif what == "reload":
            # Now and then there are no quotas, and then again.
            tenants = {} if number == 0 else {"other": TenantSettings(), **quotas.tenants}
            world.engine.reload(EngineConfig(tenants=tenants))
        elif who is not None:
            if what == "leave":
                who.leave()
            elif what in ("work", "rest"):
                who.tell(
                    "CAN_DO" if what == "work" else "RESET_ABILITIES", *[b"f"][: what == "work"]
                )
            elif what == "act":
                who.command(b"tenant " + (b"", b"acme", b"other")[number % 3])
            else:
                who.command(b"session end %d" % number)
                world.flush()
        for name in ("acme", "other"):
            tenant = world.engine.broker.tenant(name)
            if tenant.allowance is not None:
                assert list(charges_wrong(tenant)) == []
                assert tenant.allowance.connections == len(list(world.engine.sessions_of(tenant)))


# Other quotas


def test_a_reload_brings_other_quotas_to_connections_that_are_there() -> None:
    world = Guarded()
    alice, bob = world.user(), world.user("bob")
    alice.tell("CAN_DO", b"f")
    alice.submit("SUBMIT_JOB_BG")
    world.engine.reload(config_for(max_queued_jobs=1, max_job_bytes=70_000))
    allowance = world.engine.broker.tenant("acme").allowance
    assert allowance is not None
    assert (allowance.connections, allowance.workers, allowance.queued_jobs) == (2, 1, 1)
    assert bob.ask("SUBMIT_JOB", b"f", b"", b"") == exceeded("max-queued-jobs")
    bob.peer.send(packet("SUBMIT_JOB", b"f", b"", b"x" * 80_000)[:50])
    assert bob.heard() == exceeded("max-job-bytes")
    world.engine.reload(config_for())
    assert bob.peer.session.decoder.max_submission is None
    alice.submit("SUBMIT_JOB", b"f", b"", b"x" * 80_000)
    world.engine.reload(EngineConfig())
    assert world.engine.broker.tenant("acme").allowance is None
    alice.leave()


def test_background_jobs_that_are_too_old_are_given_up() -> None:
    world = Quoted(max_background_age=60.0)
    alice = world.user()
    alice.submit("SUBMIT_JOB_BG")
    due = b"%d" % (world.time().wall + 100)
    epoch = alice.ask("SUBMIT_JOB_EPOCH", b"f", b"", due, b"")
    assert epoch == exceeded("max-background-age")
    world.pass_time(61)
    assert world.engine.statistics().ended[JobEnd.EXPIRED] == 1
    world.check_charges()


def test_without_logins_nobody_has_quotas() -> None:
    quotas = TenantSettings(Quotas(max_queued_jobs=1, max_job_bytes=70_000))
    world = World(EngineConfig(tenants={"default": quotas}))
    client = world.caller()
    for _ in range(3):
        client.submit("SUBMIT_JOB", b"f", b"", b"x" * 80_000)
    world.engine.reload(EngineConfig(tenants={"default": quotas}))
    client.submit()


# Settings of a tenant's functions


def test_what_is_said_of_the_function_of_a_tenant_wins_over_what_holds_for_any_tenant() -> None:
    own = FunctionSettings(timeout=5.0, keep_results=60.0, reuse_results=True)
    config = EngineConfig(
        functions={b"f": FunctionSettings(timeout=3.0, attempts=7)},
        tenants={"default": TenantSettings(functions={b"f": own})},
    )
    world = StoringWorld(config)
    admin = world.caller()
    said = dict(
        (line.split(b"\t")[1], line.split(b"\t")[2:])
        for line in admin.command(b"functions f").splitlines()[:-1]
    )
    assert said[b"timeout"] == [b"5s", b"file"]
    assert said[b"attempts"] == [b"7", b"file"]
    assert world.engine.rules.reusing
    assert world.engine.rules.rules("other", b"f").timeout == 3.0
    assert admin.command(b"set f timeout 9") == b"OK\r\n"
    assert world.engine.rules.rules("default", b"f").timeout == 9.0
