"""Jobs whose worker takes too long: given to others, with the late answer in mind."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import Late
from trigear.model import JobEnd


@pytest.fixture(params=[1, 1024], ids=["one-partition", "1024-partitions"])
def world(request):
    return World(partitions=request.param)


def test_a_late_answer_for_a_job_that_another_has_completed_since_is_dropped(world):
    slow, quick, client = world.worker(timeout=1), world.worker(), world.connect()
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(2)  # the deadline, then the time during which it is not offered to the slow one
    assert quick.grab() is job
    assert quick.complete(job) is None
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["complete"]
    assert world.ended == {JobEnd.COMPLETED: 1}
