"""A job, and what submissions coalesce on."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker import jobs
from trigear.broker.jobs import STATE_NAMES, key_of


@pytest.mark.parametrize("workload", [b"", b"w"])
def test_an_empty_unique_coalesces_on_nothing(workload):
    assert key_of(b"", workload) is None


@pytest.mark.parametrize("workload", [b"", b"w"])
@pytest.mark.parametrize("unique", [b"u", b"--", b"#", b"- "])
def test_a_unique_coalesces_on_itself(unique, workload):
    assert key_of(unique, workload) == unique


def test_a_dash_coalesces_on_the_workload():
    assert key_of(b"-", b"one") == key_of(b"-", b"one")
    assert key_of(b"-", b"one") != key_of(b"-", b"two")


def test_a_dash_without_workload_coalesces_on_nothing():
    assert key_of(b"-", b"") is None


def test_the_key_of_a_dash_is_no_unique_that_the_wire_can_carry():
    key = key_of(b"-", b"work")
    assert b"\0" in key
    assert key.startswith(b"-")
    assert len(key) == 2 + 24


def test_a_foreground_job_is_wanted_as_long_as_somebody_waits():
    world = World()
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert job.wanted
    assert worker.grab() is job
    client.leave()
    assert not job.wanted


def test_a_background_job_is_wanted_by_nobody_in_particular():
    world = World()
    client = world.connect()
    job = client.background()
    client.leave()
    assert job.wanted


def test_a_job_on_its_way_to_the_store_is_wanted():
    world = World(durable=True)
    first, second = world.connect(), world.connect()
    job = first.submit(unique=b"u")
    second.background(unique=b"u")
    first.leave()
    assert (job.background, len(job.waiters), job.wanted) == (False, 0, True)


def test_a_job_shows_itself_by_handle_function_and_state():
    world = World(durable=True)
    job = world.connect().background(b"resize")
    assert repr(job) == "<Job b'H:test:001' of b'resize' pending>"
    world.store_all()
    assert repr(job) == "<Job b'H:test:001' of b'resize' queued>"


def test_every_state_has_its_name():
    for name in STATE_NAMES:
        assert STATE_NAMES[getattr(jobs, name.upper())] == name
