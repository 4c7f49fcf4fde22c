"""How rows and progress look."""

from __future__ import annotations

import pytest

from trigear.cli.progress import drawn
from trigear.cli.tables import columns, plain, shown, table


def test_table_is_aligned_and_numbers_stand_to_the_right() -> None:
    rows = [("mail", 2, True, ("a", "b"), None), ("resize", 1000, False, (), "x")]
    assert table(columns("function", "total", "is_it", "names", "other"), rows)[1:] == [
        "mail          2  yes    a b    -",
        "resize     1000  no            x",
    ]
    assert table(columns("function"), []) == []


def test_cells_are_plain_text() -> None:
    assert [plain(cell) for cell in (None, True, False, 5, "x", ("a", "b"))] == [
        *("-", "yes", "no", "5", "x", "a b")
    ]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain ä", "plain ä"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\tb", r"a\tb"),
        ("\udcff", r"\xff"),
    ],
)
def test_text_does_nothing_to_a_terminal(text: str, seen: str) -> None:
    assert shown(text) == seen


@pytest.mark.parametrize(
    ("numbers", "line"),
    [
        ((0, 4), "job [........................]   0% 0/4"),
        ((1, 4), "job [######..................]  25% 1/4"),
        ((4, 4), "job [########################] 100% 4/4"),
        ((9, 4), "job [########################] 100% 9/4"),
        ((-1, 4), "job [........................]   0% -1/4"),
        ((0.5, 1), "job [############............]  50% 0.5/1"),
        ((7, 0), "job 7"),
        ((7, -1), "job 7/-1"),
    ],
)
def test_progress_shows_any_numbers(numbers: tuple[float, float], line: str) -> None:
    assert drawn("job", *numbers, width=80) == line


@pytest.mark.parametrize("width", [5, 20, 40, 50])
def test_progress_stays_on_its_line(width: int) -> None:
    line = drawn("a function with a long name", 1, 4, width)
    assert len(line) <= width - 1
    assert line.endswith("1/4")
    assert len(drawn("a function with a long name", 1, 0, width)) <= width - 1
