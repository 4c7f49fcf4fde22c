"""What a connection owes."""

from __future__ import annotations

from tests.broker.world import World
from trigear.broker.peers import GHOST_LIMIT


def test_debts_up_to_the_limit_are_all_remembered():
    peer = World().connect().peer
    handles = [b"%d" % number for number in range(GHOST_LIMIT)]
    assert [peer.owe(handle, None) for handle in handles] == [None] * GHOST_LIMIT
    assert list(peer.ghosts) == handles


def test_beyond_the_limit_the_oldest_debt_is_forgotten():
    peer = World().connect().peer
    for number in range(GHOST_LIMIT + 2):
        peer.owe(b"%d" % number, None)
    assert len(peer.ghosts) == GHOST_LIMIT
    assert next(iter(peer.ghosts)) == b"2"


def test_owing_the_same_answer_again_takes_no_more_room():
    peer = World().connect().peer
    for _ in range(2):
        for number in range(GHOST_LIMIT):
            peer.owe(b"%d" % number, None)
    assert len(peer.ghosts) == GHOST_LIMIT


def test_the_job_of_a_forgotten_debt_may_be_offered_again_and_is_handed_back():
    world = World()
    client, slow = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(8)
    for number in range(GHOST_LIMIT - 1):
        assert slow.peer.owe(b"%d" % number, None) is None
    assert world.function().ghosted == 1
    assert slow.peer.owe(b"one too many", None) is job
    assert world.function().ghosted == 0
    assert slow.grab() is job


def test_a_connection_begins_with_nothing():
    peer = World().connect().peer
    assert not any((peer.abilities, peer.jobs, peer.ghosts, peer.waiting))
    assert not any((peer.sleeping, peer.choked, peer.woken_for, peer.excepted))
