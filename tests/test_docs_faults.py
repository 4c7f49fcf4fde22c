"""The page about gearmand's faults: every one of them is accounted for, by tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
COUNT = 33

LATER = {
    "durable store",
    "administration",
    "authentication",
    "TLS",
    "metrics",
    "results",
    "cluster",
}


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_fault_has_its_row_in_order() -> None:
    assert [row[0] for row in rows()] == [str(number) for number in range(1, COUNT + 1)]
    for row in rows():
        assert len(row) == 4, row[0]
        assert all(row), row[0]


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= COUNT
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists()
        or not re.search(rf"^(async )?def {test}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE)
    ]
    assert missing == []


def test_the_last_column_names_tests_and_nothing_else() -> None:
    for number, _, _, shown in rows():
        assert re.sub(r"`tests/[\w/]+\.py::test_\w+`", "", shown).strip() == "", number


def test_whatever_comes_later_is_a_part_that_the_page_explains() -> None:
    explained = set(re.findall(r"\*\*([\w ]+)\*\*", PAGE))
    assert explained == LATER
    for number, _, here, _ in rows():
        for promise in re.findall(r"[Ll]ater: (.*?)(?:[.;]|$)", here):
            assert any(part in promise for part in LATER), number
