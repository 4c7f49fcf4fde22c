"""Clients that do not read what they are sent: the jobs that only they wait for are passed over."""

from __future__ import annotations

from trigear.broker.jobs import PARKED, QUEUED
from trigear.model import Priority


def test_a_job_that_only_a_choked_client_waits_for_is_not_handed_out(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    client.choke()
    assert worker.grab() is None
    assert job.state == PARKED
    assert world.status(job) is job


def test_jobs_of_others_go_on_beside_those_of_a_choked_client(world):
    choked, other, worker = world.connect(), world.connect(), world.worker()
    choked.submit(workload=b"unread")
    other.submit(workload=b"read")
    choked.choke()
    assert worker.grab_all() == [b"read"]


def test_a_job_submitted_while_its_client_is_choked_waits_too(world):
    client, worker = world.connect(), world.worker()
    client.choke()
    client.submit()
    assert worker.grab() is None


def test_a_background_job_of_a_choked_client_is_handed_out(world):
    client, worker = world.connect(), world.worker()
    client.choke()
    job = client.background()
    assert worker.grab() is job


def test_a_background_job_that_a_choked_client_waits_for_is_handed_out(world):
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u")
    client.submit(unique=b"u")
    client.choke()
    assert worker.grab() is job


def test_a_job_is_handed_out_while_one_of_its_clients_reads(world):
    choked, reading, worker = world.connect(), world.connect(), world.worker()
    job = choked.submit(unique=b"u")
    reading.submit(unique=b"u")
    choked.choke()
    assert worker.grab() is job


def test_a_running_job_stays_with_its_worker_when_its_client_is_choked(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.choke()
    worker.complete(job)
    assert client.told(job) == ["complete"]


def test_a_client_that_reads_again_gets_its_jobs_done_in_their_old_places(world):
    choked, other, worker = world.connect(), world.connect(), world.worker()
    for number in range(6):
        (choked if number % 2 else other).submit(workload=b"%d" % number)
    choked.choke()
    assert [worker.grab().workload for _ in range(2)] == [b"0", b"2"]
    other.submit(workload=b"6")
    choked.unchoke()
    assert worker.grab_all() == [b"1", b"3", b"4", b"5", b"6"]


def test_parked_jobs_of_several_priorities_come_back_by_priority(world):
    choked, worker = world.connect(), world.worker()
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        choked.submit(workload=priority.name.encode(), priority=priority)
    choked.choke()
    assert worker.grab() is None
    choked.unchoke()
    assert worker.grab_all() == [b"HIGH", b"NORMAL", b"LOW"]


def test_a_sleeper_is_woken_when_the_client_reads_again(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    client.choke()
    worker.sleep()
    assert worker.noops == 0
    client.unchoke()
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_new_client_that_reads_makes_a_parked_job_wanted(world):
    choked, reading, worker = world.connect(), world.connect(), world.worker()
    job = choked.submit(unique=b"u")
    choked.choke()
    worker.sleep()
    reading.submit(unique=b"u")
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_background_submission_makes_a_parked_job_wanted(world):
    choked, other, worker = world.connect(), world.connect(), world.worker()
    job = choked.submit(unique=b"u")
    choked.choke()
    worker.sleep()
    other.background(unique=b"u")
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_parked_job_ends_when_its_choked_client_leaves(world):
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    client.choke()
    assert worker.grab() is None
    client.leave()
    assert world.status(job) is None
    assert world.function().total == 0
    assert world.connect().submit(unique=b"u") is not job


def test_a_parked_job_is_wanted_again_when_the_choked_one_of_its_clients_leaves(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u")
    second.submit(unique=b"u")
    first.choke()
    second.choke()
    worker.sleep()
    assert job.state == PARKED
    second.unchoke()
    assert worker.noops == 1
    second.choke()
    assert worker.grab() is None
    first.leave()
    assert worker.grab() is None
    second.unchoke()
    assert worker.grab() is job


def test_a_choked_client_that_joined_a_parked_job_gets_it_done_when_it_reads(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u")
    first.choke()
    worker.sleep()
    second.choke()
    second.submit(unique=b"u")  # what had arrived before the reading stopped
    first.leave()
    assert worker.noops == 0
    second.unchoke()
    assert worker.noops == 1
    assert worker.grab() is job


def test_an_unread_job_behind_a_ghost_wakes_a_sleeper_when_its_client_reads_again(world):
    client, other, slow = world.connect(), world.connect(), world.worker(timeout=1024)
    client.submit(workload=b"slow")
    assert slow.grab() is not None
    world.pass_time(1024)
    other.choke()
    job = other.submit(workload=b"unread")
    slow.sleep()
    assert (slow.noops, job.state) == (0, QUEUED)
    other.unchoke()
    assert slow.noops == 1
    assert slow.grab() is job


def test_an_unread_job_behind_a_ghost_wakes_a_sleeper_when_somebody_reads_it(world):
    client, other, slow = world.connect(), world.connect(), world.worker(timeout=1024)
    client.submit(workload=b"slow")
    assert slow.grab() is not None
    world.pass_time(1024)
    other.choke()
    job = other.submit(workload=b"unread", unique=b"u")
    slow.sleep()
    client.submit(unique=b"u")
    assert slow.noops == 1
    assert slow.grab() is job


def test_an_unread_job_passed_over_wakes_a_sleeper_also_when_the_ghost_has_gone(world):
    client, other, slow = world.connect(), world.connect(), world.worker(timeout=1024)
    ghost = client.submit(workload=b"slow")
    assert slow.grab() is ghost
    world.pass_time(1024)
    other.choke()
    job = other.submit(workload=b"unread")
    slow.sleep()
    assert slow.complete(ghost) is None
    assert (slow.noops, job.state) == (0, QUEUED)
    other.unchoke()
    assert slow.noops == 1
    assert slow.grab() is job


def test_choking_twice_counts_once(world):
    client = world.connect()
    client.choke()
    client.choke()
    assert client.peer.tenant.choked == 1
    client.unchoke()
    client.unchoke()
    assert client.peer.tenant.choked == 0


def test_a_client_stays_choked_when_another_reads_again(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    first.submit(workload=b"first")
    second.submit(workload=b"second")
    first.choke()
    second.choke()
    first.unchoke()
    assert worker.grab_all() == [b"first"]


def test_a_choked_client_that_leaves_chokes_its_tenant_no_more(world):
    client = world.connect()
    client.choke()
    client.leave()
    assert client.peer.tenant.choked == 0


def test_jobs_parked_again_and_again_leave_nothing_behind_on_their_client(world):
    choked, reading, worker = world.connect(), world.connect(), world.worker()
    choked.submit(unique=b"u")
    choked.choke()
    worker.sleep()
    for _ in range(10):
        reading.submit(unique=b"u")
        reading.leave()
        worker.sleep()
    sizes = [len(getattr(choked.peer, name) or ()) for name in ("jobs", "ghosts", "waiting")]
    assert sizes == [0, 0, 1]


def test_a_parked_job_can_be_cancelled(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    client.choke()
    assert worker.grab() is None
    assert client.cancel(job.handle)
    assert client.told(job) == ["failed"]
    client.unchoke()
    assert worker.grab() is None


def test_a_job_lost_by_its_worker_parks_again_while_its_client_is_choked(world):
    client, worker, other = world.connect(), world.worker(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.choke()
    worker.leave()
    assert other.grab() is None
    client.unchoke()
    assert other.grab() is job
