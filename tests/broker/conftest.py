"""Every behaviour of the broker is the same however its functions are spread over partitions."""

from __future__ import annotations

import pytest

from tests.broker.world import World


@pytest.fixture(params=[1, 1024], ids=["one-partition", "1024-partitions"])
def partitions(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture
def world(partitions: int) -> World:
    """A broker that keeps jobs in memory and wakes as many workers as there are jobs."""
    return World(partitions=partitions)


@pytest.fixture
def durable(partitions: int) -> World:
    """A broker whose background jobs are stored first."""
    return World(partitions=partitions, durable=True)
