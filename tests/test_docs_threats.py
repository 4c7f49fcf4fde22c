"""The page about threats: every one of them has a defence, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import trigear
from tests.security.defences import DEFENCES, ROOT

PACKAGE = Path(trigear.__file__).parent
PAGE = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
COUNT = 44


def rows() -> list[list[str]]:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def exists(file: str, test: str) -> bool:
    path = Path(ROOT / file)
    wanted = rf"^(async )?def {test}\(" if test else ""
    return path.exists() and bool(re.search(wanted, path.read_text("utf-8"), re.MULTILINE))


def test_every_threat_has_its_row_in_order() -> None:
    assert [row[0] for row in rows()] == [str(number) for number in range(1, COUNT + 1)]
    for row in rows():
        assert len(row) == 4, row[0]
        assert all(row), row[0]


def test_the_last_column_names_tests_that_exist_and_nothing_else() -> None:
    for number, _, _, shown in rows():
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", shown)
        assert named, number
        assert [f"{file}::{test}" for file, test in named if not exists(file, test)] == []
        assert re.sub(r"`tests/[\w/]+\.py::test_\w+`", "", shown).strip() == "", number


def test_each_defence_is_there_to_be_taken_out_and_so_are_its_tests() -> None:
    for defence in DEFENCES:
        assert 1 <= int(defence.threat.removeprefix("T")) <= COUNT, defence.what
        source = (PACKAGE / defence.file).read_text(encoding="utf-8")
        assert source.count(defence.old) == 1, defence.what
        for test in defence.tests:
            file, _, name = test.partition("::")
            assert exists(file, name), test


def test_the_defences_that_can_be_taken_out_stand_against_most_threats() -> None:
    assert len({defence.threat for defence in DEFENCES}) >= 30
