"""Who waits for sockets looks again and again before sleeping, where that is worth it."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from trigear.runtime.poller import VAIN, Poller

if TYPE_CHECKING:
    from collections.abc import Iterator

SHORT = 0.0001


class Pipe:
    """Something to wait for."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        self.epoll = select.epoll()
        self.epoll.register(self.out, select.EPOLLIN)
        self.poller = Poller(self.epoll, 8)

    def write(self) -> None:
        os.write(self.into, b"x")

    def read(self) -> None:
        os.read(self.out, 1)

    def wait(self) -> bool:
        events = self.poller.wait(SHORT)
        assert events in ([], [(self.out, select.EPOLLIN)])
        return bool(events)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.epoll.close()
    os.close(pipe.out)
    os.close(pipe.into)


def test_what_is_there_is_returned_whatever_the_patience(pipe: Pipe) -> None:
    assert pipe.poller.wait(0.0) == []
    pipe.write()
    assert pipe.poller.wait(0.0) == [(pipe.out, select.EPOLLIN)]
    assert pipe.wait()


def test_no_more_are_returned_than_wanted(pipe: Pipe) -> None:
    other = os.dup(pipe.out)
    pipe.epoll.register(other, select.EPOLLIN)
    pipe.write()
    assert len(Poller(pipe.epoll, 1).wait(SHORT)) == 1
    assert len(Poller(pipe.epoll, 2).wait(SHORT)) == 2
    os.close(other)


def test_who_has_looked_in_vain_sleeps_at_once_ever_more_often(pipe: Pipe) -> None:
    expected = 1
    while expected < VAIN * 4:
        assert not pipe.wait()
        assert pipe.poller.sleeps == min(expected, VAIN)
        for left in reversed(range(pipe.poller.sleeps)):
            assert not pipe.wait()
            assert pipe.poller.sleeps == left
        expected = expected * 2 + 1


def test_who_finds_something_looks_again_the_next_time(pipe: Pipe) -> None:
    for _ in range(5):
        assert not pipe.wait()
    assert pipe.poller.sleeps == 1
    pipe.write()
    # Sleeping at once finds it as well, and says nothing about looking.
    assert pipe.wait()
    assert pipe.poller.sleeps == 0
    assert pipe.wait()
    pipe.read()
    assert not pipe.wait()
    assert pipe.poller.sleeps == 1


def test_without_patience_nothing_is_learnt(pipe: Pipe) -> None:
    for _ in range(5):
        assert pipe.poller.wait(0.0) == []
    assert pipe.poller.sleeps == 0
