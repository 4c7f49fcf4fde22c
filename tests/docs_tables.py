"""Tables of the documentation of which each row is a test."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
MARK = "<!-- each row is a test -->"


def rows_of(page: str) -> dict[str, str]:
    """The rows of the table behind the mark: the first cell, and the rest."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert text.count(MARK) == 1, f"{page}: one table of rows that are tests"
    lines = text.partition(MARK)[2].strip().splitlines()
    rows = {}
    for line in lines[2:]:  # after the head and the rule
        if not line.startswith("|"):
            break
        first, rest = line.strip("|").split("|", 1)
        rows[first.strip()] = rest.strip()
    return rows
