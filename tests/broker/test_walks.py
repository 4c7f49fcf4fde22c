"""The broker beside the naive model on long random walks.

Hypothesis finds short ways to a fault, and makes them shorter. What needs a history (jobs lost and
handed on among many workers, some asleep) it hardly meets; these walks do. A failing walk is
repeated by its number.
"""

from __future__ import annotations

import faulthandler
import os
from random import Random

import pytest

from tests.broker.test_model import BOUNDS, TENANTS, WORKED, Beside
from tests.conftest import FUZZ_EXAMPLES, FUZZ_VARIABLE

STEPS = 400
WALKS = int(os.environ.get(FUZZ_VARIABLE, FUZZ_EXAMPLES)) // 100

WEIGHTS = {
    "foreground": 6,
    "background": 6,
    "again": 4,
    "choke": 3,
    "can_do": 3,
    "grab": 14,
    "sleep": 3,
    "idle_ones_sleep": 6,
    "finish": 6,
    "release": 1,
    "commit": 4,
    "leave": 1,
    "seldom": 2,
    "pass_time": 6,
}
SELDOM = ["cancel", "detach", "progress", "meddle", "give_up", "reset", "drop", "limit", "unlimit"]


class Walk:
    """One walk, of which everything follows from its number."""

    def __init__(self, number: int) -> None:
        chance = self.chance = Random(number)
        self.machine = Beside()
        self.machine.begin(
            partitions=chance.choice([1, 3, 1024]),
            wakeup=chance.choice([None, None, 0, 1, 2]),
            durable=chance.random() < 0.5,
            abilities=[(self.seat(), self.name(), self.timeout()) for _ in range(10)],
            bounds=chance.choice(BOUNDS),
        )
        self.invariants = [
            getattr(self.machine, invariant.function.__name__)
            for invariant in self.machine.invariants
        ]

    def seat(self) -> int:
        return self.chance.randrange(len(TENANTS))

    def name(self) -> bytes:
        return self.chance.choice([b"f", b"f", b"f", b"g", b"g", b"h"])

    def timeout(self) -> float:
        return self.chance.choice([0.0, 1.0, 3.0])

    def pick(self) -> int:
        return self.chance.randrange(1000)

    def job(self) -> dict[str, object]:
        return {
            "seat": self.seat(),
            "name": self.name(),
            "unique": self.chance.choice([b"", b"", b"u", b"v", b"-"]),
            "workload": self.chance.choice([b"", b"one", b"two"]),
            "priority": self.chance.randrange(3),
        }

    def step(self) -> None:
        machine, chance = self.machine, self.chance
        (what,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        if what == "foreground":
            machine.foreground(**self.job())
        elif what == "background":
            machine.background(delay=chance.choice([None, None, None, -5, 1, 7]), **self.job())
        elif what == "again" and machine.coalescing():
            machine.again(seat=self.seat(), pick=self.pick(), background=chance.random() < 0.5)
        elif what == "choke":
            machine.choke(seat=self.seat(), choked=chance.random() < 0.4)
        elif what == "can_do":
            machine.can_do(seat=self.seat(), name=self.name(), timeout=self.timeout())
        elif what == "grab":
            machine.grab(pick=self.pick())
        elif what == "sleep":
            machine.sleep(seat=self.seat())
        elif what == "idle_ones_sleep":
            machine.idle_ones_sleep()
        elif what == "finish" and machine.duties():
            machine.finish(pick=self.pick(), what=chance.choice(sorted(WORKED)))
        elif what == "release" and machine.duties():
            machine.release(pick=self.pick(), late=chance.random() < 0.5)
        elif what == "commit" and machine.world.ledger and machine.world.ledger.kept:
            machine.commit(count=chance.randint(1, 4), written=chance.random() < 0.7)
        elif what == "pass_time":
            machine.pass_time(quarters=chance.choice([1, 2, 4, 4, 6, 8, 12]))
        elif what in ("leave", "seldom"):
            action = "leave" if what == "leave" else chance.choice(SELDOM)
            machine.seldom(seat=self.seat(), name=self.name(), pick=self.pick(), what=action)
        for invariant in self.invariants:
            invariant()


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_the_broker_does_what_the_model_does_on_long_walks():
    faulthandler.cancel_dump_traceback_later()  # with a large budget this takes long
    for number in range(WALKS):
        walk = Walk(number)
        for step in range(STEPS):
            try:
                walk.step()
            except BaseException as error:
                error.add_note(f"in step {step} of walk {number}")
                raise
        walk.machine.teardown()
