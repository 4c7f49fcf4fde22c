"""What workers say they can do."""

from __future__ import annotations

from trigear.broker.jobs import RUNNING


def test_taking_a_registration_back_leaves_running_jobs_where_they_are(world):
    client, worker = world.connect(), world.worker(b"f", b"g")
    job = client.submit()
    assert worker.grab() is job
    worker.cant_do(b"f")
    worker.reset()
    assert (job.state, job.losses) == (RUNNING, 0)
    assert worker.complete(job) is None
    assert client.told(job) == ["complete"]


def test_a_worker_gets_no_more_jobs_of_a_function_it_gave_up(world):
    client, worker = world.connect(), world.worker(b"f", b"g")
    worker.cant_do(b"f")
    client.submit(b"f")
    client.submit(b"g")
    assert worker.grab_all() == [b"work"]
    worker.reset()
    client.submit(b"g")
    assert worker.grab() is None


def test_giving_up_what_one_never_did_does_nothing(world):
    worker, other = world.worker(b"f"), world.worker(b"g")
    worker.cant_do(b"g")
    worker.cant_do(b"nobody's")
    assert list(world.function(b"g").workers) == [other.peer]
    assert [function.name for function in world.functions] == [b"f", b"g"]


def test_registering_twice_counts_once(world):
    worker = world.worker()
    worker.can_do()
    assert len(world.function().workers) == 1
    worker.cant_do()
    assert len(world.function().workers) == 0
