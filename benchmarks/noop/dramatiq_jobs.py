"""Actors of Dramatiq's, on the Redis that NOOP_REDIS names."""

from __future__ import annotations

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

broker = RedisBroker(url=os.environ["NOOP_REDIS"])
dramatiq.set_broker(broker)

DONE = "noop.done"


def noop(workload: str) -> None:
    pass


def tell(workload: str) -> None:
    """The last of many: as Dramatiq tells nobody of an end, this does."""
    broker.client.lpush(DONE, "")


noop_actor = dramatiq.actor(noop)
tell_actor = dramatiq.actor(tell)
