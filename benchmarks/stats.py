"""Medians, their intervals and ratios of rounds.

Intervals are distribution-free: the k-th smallest and k-th largest of n rounds enclose the true
median with a probability that follows from the binomial distribution alone (David and Nagaraja,
*Order Statistics*, 3rd edition, section 7.1). Rates on shared machines are skewed and have
outliers, so nothing that assumes a bell curve is used.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIDENCE = 0.90


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median and the interval that encloses the true one with probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float
    rounds: int

    def as_dict(self) -> dict[str, float]:
        """The fields as plain values for JSON."""
        return asdict(self)


def estimate(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """The median of `values` with the narrowest order-statistics interval of at least `confidence`.

    With fewer than five rounds no such interval reaches 90 %; then it is the smallest and the
    largest value, and `coverage` says how little that is worth.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("no rounds to take a median of")
    ordered = sorted(values)
    n = len(ordered)
    rank, outside = 1, 1
    while 2 * rank < n:
        wider = outside + math.comb(n, rank)
        if 1 - 2 * wider / 2**n < confidence:
            break
        rank, outside = rank + 1, wider
    return Estimate(
        median=statistics.median(ordered),
        low=ordered[rank - 1],
        high=ordered[n - rank],
        coverage=max(0.0, 1 - 2 * outside / 2**n),
        rounds=n,
    )


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ours divided by theirs, round by round, so that a slow minute hits both sides of a ratio.

    Raises:
        ValueError: the two have different numbers of rounds, or one of theirs is zero.
    """
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds cannot be compared with {len(theirs)}")
    if not all(theirs):
        raise ValueError("a round measured zero, a ratio to it means nothing")
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` (0 to 1) of them do not exceed.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
