"""What waits for its time costs nothing until then, however much of it there is."""

from __future__ import annotations

import pytest

from tests.engine.tick_cost import KINDS, cost_of

FEW, MANY = 10, 20_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_tick_makes_no_more_calls_with_thousands_waiting_than_with_ten(kind: str):
    few, many = cost_of(kind, FEW), cost_of(kind, MANY)
    assert (many.idle, many.due) == (few.idle, few.due)
