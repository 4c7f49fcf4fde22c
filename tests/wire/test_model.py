"""The words that every floor shares."""

from __future__ import annotations

import pytest

from trigear.model import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (-1, "-1 jobs")]
)
def test_only_one_of_a_thing_is_named_in_the_singular(number: int, words: str) -> None:
    assert counted(number, "job") == words


def test_words_that_take_no_s_bring_their_plural() -> None:
    assert counted(1, "job goes", "jobs go") == "1 job goes"
    assert counted(3, "job goes", "jobs go") == "3 jobs go"
