from __future__ import annotations

import math
import random

import pytest

from benchmarks.stats import estimate, percentile, ratios


def test_the_median_of_fifteen_rounds_lies_between_the_fourth_smallest_and_largest() -> None:
    found = estimate([float(n) for n in range(1, 16)])
    assert (found.median, found.low, found.high, found.rounds) == (8, 4, 12, 15)
    # P(fewer than 4 of 15 coins show heads), twice, is what the interval misses.
    assert found.coverage == pytest.approx(1 - 2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert found.coverage >= 0.90


def test_the_next_narrower_interval_would_fall_short_of_the_confidence() -> None:
    for rounds in range(5, 60):
        found = estimate([float(n) for n in range(rounds)])
        rank = int(found.low) + 1
        narrower = 1 - 2 * sum(math.comb(rounds, k) for k in range(rank + 1)) / 2**rounds
        assert found.coverage >= 0.90
        assert narrower < 0.90 or 2 * (rank + 1) > rounds


def test_with_few_rounds_the_interval_is_everything_and_admits_its_small_coverage() -> None:
    found = estimate([3.0, 1.0])
    assert (found.median, found.low, found.high, found.coverage) == (2.0, 1.0, 3.0, 0.5)
    assert estimate([7.0]).coverage == 0.0


def test_the_interval_covers_the_true_median_of_a_skewed_distribution_as_often_as_it_says() -> None:
    chance = random.Random(4730)
    true_median = math.log(2)
    hits = 0
    for _ in range(4000):
        found = estimate([chance.expovariate(1) for _ in range(15)])
        hits += found.low <= true_median <= found.high
    assert hits / 4000 == pytest.approx(found.coverage, abs=0.012)


def test_the_order_of_rounds_does_not_matter_to_an_estimate() -> None:
    assert estimate([5.0, 1.0, 3.0, 2.0, 4.0]) == estimate([1.0, 2.0, 3.0, 4.0, 5.0])


def test_nothing_measured_has_no_median() -> None:
    with pytest.raises(ValueError, match="no rounds"):
        estimate([])


def test_ratios_are_taken_round_by_round() -> None:
    assert ratios([1.0, 9.0], [2.0, 3.0]) == [0.5, 3.0]


def test_rounds_that_do_not_pair_up_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="2 rounds cannot be compared with 1"):
        ratios([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="zero"):
        ratios([1.0], [0.0])


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.95) == 95
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([4.0], 0.01) == 4.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
