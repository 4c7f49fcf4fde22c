"""What a tenant sees does not depend on what another one does, or on whether there is another one.

This is the sum of all that is said about tenants: two of them do what they like on one server, with
the same names for everything, and each sees, to the byte and to the moment, what it would have seen
alone. What both share is the same in every run: the time, and a store that stops, fails, goes on.
"""

from __future__ import annotations

import logging
import os
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import FUZZ_EXAMPLES, FUZZ_VARIABLE
from tests.engine.two_tenants import BLUE, EXHAUSTED, OPEN, RED, act_of, play
from tests.engine.world import NUMBERS
from trigear.wire.codec import RES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.engine.two_tenants import Act, Seen
    from trigear.broker.quotas import Quotas

EXAMPLES = int(os.environ.get(FUZZ_VARIABLE, FUZZ_EXAMPLES)) // 100

STORIES = st.lists(st.integers(0, (1 << 40) - 1).map(act_of), min_size=40, max_size=100)

MET = {
    *("NOOP", "JOB_CREATED", "NO_JOB", "JOB_ASSIGN", "JOB_ASSIGN_UNIQ", "WORK_COMPLETE"),
    *("WORK_FAIL", "ERROR", "STATUS_RES", "STATUS_RES_UNIQUE", "RESULT"),
    "OPTION_RES",
}
"""Answers that are to be among those compared: jobs go all the way, somebody is told of each."""


@pytest.fixture
def no_log() -> Iterator[None]:
    """Thousands of lines that nobody reads take longer than what they are about."""
    log = logging.getLogger("trigear")
    level = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(level)


def kinds(seen: Seen) -> set[str]:
    """Which of the answers that are to be met are among these."""
    stream = b"".join(data for _, _, data, _ in seen)
    return {name for name in MET if RES + NUMBERS[name].to_bytes(4, "big") in stream}


@pytest.mark.usefixtures("untraced", "no_log")
@pytest.mark.parametrize(
    ("quotas", "elsewhere"),
    [(OPEN, False), (EXHAUSTED, False), (EXHAUSTED, True)],
    ids=["open", "exhausted", "elsewhere"],
)
def test_t33_a_tenant_sees_what_it_would_see_alone(
    quotas: dict[str, Quotas], elsewhere: bool
) -> None:
    @settings(max_examples=EXAMPLES)
    @given(STORIES)
    def compare(acts: list[Act]) -> None:
        together = play(acts, (RED, BLUE), quotas, elsewhere=elsewhere)
        for tenant in (RED, BLUE):
            alone = play(acts, (tenant,), quotas, elsewhere=elsewhere)
            assert together[tenant] == alone[tenant], tenant

    compare()


@pytest.mark.usefixtures("untraced", "no_log")
def test_the_stories_are_about_something() -> None:
    """However the tables grow: within so many stories every kind of answer comes up."""
    chance = Random(0)
    missing = set(MET)
    for _ in range(1000):
        acts = [act_of(chance.getrandbits(40)) for _ in range(100)]
        missing -= kinds(play(acts, (RED,), OPEN)[RED])
        if not missing:
            break
    assert missing == set()
