"""Ways in: networks and who comes from them, and how many may wait to be known."""

from __future__ import annotations

import pytest

from tests.engine.test_logins import FAILED, TLS, Guarded, scram
from tests.engine.world import Caller
from trigear.engine import logins
from trigear.engine.doors import Arrivals, Door, Networks, Way
from trigear.engine.refusals import DENIED
from trigear.errors import ConfigError
from trigear.model import CloseReason, Now
from trigear.security.mechs import Channel
from trigear.security.policy import Role, network_identity

NOW = Now(100.0, 1_000_000_000.0)


def networks(**tenants: str) -> Networks:
    """Networks, each with the tenant that it belongs to; underscores stand for what a keyword
    cannot have."""
    return Networks(
        {
            text: network_identity(text, tenant, [Role.SUBMIT, Role.WORK])
            for text, tenant in tenants.items()
        }
    )


def test_the_longest_prefix_wins() -> None:
    found = networks(**{"10.0.0.0/8": "wide", "10.1.0.0/16": "narrow", "fd00::/8": "six"})
    tenants = {
        address: None if (who := found.find(address)) is None else who.tenant
        for address in ("10.2.0.1", "10.1.2.3", "11.0.0.1", "::ffff:10.1.0.9", "fd00::1%eth0", "-")
    }
    assert tenants == {
        "10.2.0.1": "wide",
        "10.1.2.3": "narrow",
        "11.0.0.1": None,
        "::ffff:10.1.0.9": "narrow",
        "fd00::1%eth0": "six",
        "-": None,
    }
    assert found.tenants == {"wide", "narrow", "six"}
    order = [network for network, _ in found.items()]
    assert order == ["10.1.0.0/16", "10.0.0.0/8", "fd00::/8"]


def test_networks_are_refused_that_are_none_or_there_twice() -> None:
    with pytest.raises(ConfigError, match=r"networks\.10/8: '10/8' is no network; write"):
        networks(**{"10/8": "acme"})
    with pytest.raises(ConfigError, match=r"networks\.10\.0\.0\.1/8: 10\.0\.0\.0/8 is there"):
        networks(**{"10.0.0.0/8": "acme", "10.0.0.1/8": "other"})


def test_doors_that_say_the_same_are_the_same() -> None:
    one, same = (Door(frozenset([Way.NETWORK]), networks(**{"::1": "acme"})) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Door(frozenset([Way.NETWORK]), networks(**{"::1": "other"}))
    assert one.networks
    assert not Networks()


@pytest.fixture
def trusting() -> Guarded:
    world = Guarded(ways=[])
    ways = frozenset([Way.NETWORK, Way.SASL])
    world.logins.door = Door(ways, networks(**{"127.0.0.0/8": "acme"}))
    return world


def test_t40_who_comes_from_a_network_is_known_by_it(trusting: Guarded) -> None:
    caller = trusting.caller()
    assert caller.command(b"whoami") == b"OK net:127.0.0.0/8 acme submit,work network\r\n"
    assert caller.submit()
    assert trusting.engine.broker.tenant("acme").functions.keys() == {b"f"}
    assert caller.command(b"status") == b"ERR PERMISSION_DENIED Permission+denied\r\n"
    assert not trusting.logins.door.admits("198.51.100.7")
    assert trusting.logins.door.admits("127.0.0.9")


def test_t32_a_login_on_top_of_a_network_needs_a_clean_connection(trusting: Guarded) -> None:
    clean = trusting.caller()
    assert scram(clean, "eve")[:3] == ("SASL_OK", b"other/eve", b"other")
    assert clean.peer.session.peer.tenant.name == "other"
    again = trusting.caller()
    assert scram(again, "alice")[0] == "SASL_OK"
    assert scram(again, "eve") == ()


@pytest.mark.parametrize(
    "before",
    [
        ("SUBMIT_JOB", b"f", b"", b""),
        ("SUBMIT_JOB_BG", b"f", b"", b""),
        ("SUBMIT_JOB_SCHED", b"f", b"", b"*", b"*", b"*", b"*", b"*", b""),
        ("CAN_DO", b"f"),
        ("SET_CLIENT_ID", b"me"),
    ],
)
def test_t32_nobody_logs_in_where_somebody_was_at_work(before: tuple, trusting: Guarded) -> None:
    caller = trusting.caller()
    caller.ask(*before)
    assert scram(caller, "alice") == ()
    assert trusting.wait(caller) == [FAILED]
    assert caller.end() is CloseReason.NOT_LOGGED_IN


def test_other_users_are_no_matter_of_networks(trusting: Guarded) -> None:
    from trigear.security.users import Users

    caller = trusting.caller()
    assert trusting.engine.renew_users(Users(()), trusting.time()) == 0
    assert caller.submit()


def test_each_door_has_its_ways() -> None:
    world = Guarded()

    def come(door: Door) -> Caller:
        arrival = Arrivals(door).come("127.0.0.1", world.time())
        number = len(world._peers) + 50
        session = world.engine.connection_opened(
            number, "127.0.0.1", world.time(), Channel("127.0.0.1", loopback=True), arrival
        )
        from trigear.testing.memory import MemoryPeer

        peer = world._peers[number] = MemoryPeer(world, session)
        return Caller(world, peer)

    assert come(Door(frozenset([Way.SASL]))).command(b"auth") == b"OK SCRAM-SHA-256\r\n"
    refused = b"ERR AUTHENTICATION_REQUIRED Authentication+required\r\n"
    assert come(Door(frozenset([Way.MTLS]))).command(b"auth") == refused
    free = come(Door(open=True))
    assert free.command(b"status") == b".\n"
    for word in (b"shutdown", b"drain", b"reload", b"tenant acme", b"whoami"):
        assert free.command(word).startswith(b"ERR UNKNOWN_COMMAND"), "nobody is an operator there"
    assert free.peer.session.act_for("acme") == DENIED
    assert world.engine.wishes == []
    free.submit()
    known = world.user("alice")
    assert known.command(b"status") == b"default/f\t1\t0\t0\n.\n"
    assert free.command(b"tenants").count(b"default") == free.command(b"tenants").count(b"max-")


def test_a_way_that_does_not_lead_in_is_left_out() -> None:
    both = Door(frozenset([Way.NETWORK, Way.SASL]), networks(**{"::1": "acme"}))
    assert both.without(Way.NETWORK) == Door(frozenset([Way.SASL]))
    assert both.without(Way.PEER) is both
    assert Door(open=True).without(Way.NETWORK).open


# Arrivals

ASKING = Door(frozenset([Way.SASL]))


def test_only_so_many_may_wait_to_be_known() -> None:
    arrivals = Arrivals(ASKING, most=2)
    first, second = (arrivals.come(address, NOW) for address in ("10.0.0.1", "10.0.0.2"))
    assert first is not None
    assert second is not None
    assert arrivals.full
    told: list[bool] = []
    arrivals.on_leave = lambda: told.append(arrivals.full)
    first.over()
    first.over()
    second.over()
    assert told == [False]
    assert len(arrivals) == 0


def test_only_so_many_of_them_come_from_one_address() -> None:
    arrivals = Arrivals(ASKING, most_per_address=1, exempt=["10.9.0.0/16"])
    first = arrivals.come("10.0.0.1", NOW)
    assert first is not None
    assert arrivals.come("10.0.0.1", NOW) is None
    assert arrivals.come("10.0.0.2", NOW) is not None
    for address in ("10.9.0.1", "-"):
        assert arrivals.come(address, NOW) is not None
        assert arrivals.come(address, NOW) is not None
        assert arrivals.exempts(address)
    first.over()
    assert arrivals.come("10.0.0.1", NOW) is not None


def test_without_bounds_any_number_may_wait() -> None:
    arrivals = Arrivals(ASKING, most=0, most_per_address=0)
    for _ in range(300):
        assert arrivals.come("10.0.0.1", NOW) is not None
    assert not arrivals.full


def test_nobody_waits_at_an_open_door() -> None:
    arrivals = Arrivals(Door(open=True), most=1, most_per_address=1)
    for _ in range(3):
        assert arrivals.come("10.0.0.1", NOW) is not None
    assert len(arrivals) == 0


def test_a_connection_makes_room_once_it_is_known_or_gone() -> None:
    world = Guarded()
    arrivals = Arrivals(ASKING)

    def come() -> Caller:
        caller = world.caller(TLS)
        arrival = arrivals.come("10.0.0.1", world.time())
        assert arrival is not None
        caller.peer.session._arrival = arrival
        return caller

    known, gone, refused = come(), come(), come()
    assert len(arrivals) == 3
    assert scram(known)[0] == "SASL_OK"
    assert len(arrivals) == 2
    gone.leave()
    assert len(arrivals) == 1
    refused.command(b"status")
    assert len(arrivals) == 1, "it is still there"
    world.pass_time(2)
    assert len(arrivals) == 0


def test_the_time_to_log_in_begins_with_the_connection() -> None:
    """A handshake that takes its time leaves less for the login."""
    world = Guarded()
    arrival = Arrivals(ASKING).come("10.0.0.1", world.time())
    world.time.advance(logins.DEADLINE - 1)
    world.engine.connection_opened(1, "10.0.0.1", world.time(), TLS, arrival)
    assert world.engine.next_deadline() == pytest.approx(world.time().monotonic + 1)
