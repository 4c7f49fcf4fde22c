"""The basic rows of a record as a picture: SVG, written as text."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from benchmarks import report
from benchmarks.demands import each
from benchmarks.report import MEASURES
from benchmarks.rows import BASIC
from benchmarks.stats import estimate

if TYPE_CHECKING:
    from benchmarks.record import Record
    from benchmarks.stats import Estimate

COLUMNS = {"cpu_us_per_job": "server CPU per job, µs", "rate": "jobs per second"}
# Left edges and width of the two columns of bars, and the rest of the geometry, in pixels.
LABELS, LEFT, COLUMN, WIDTH = 130, 140, 215, 760
BAR, GAP, HEAD = 14, 6, 40
OURS, THEIRS = "#6aa5d8", "#bdbdbd"
STYLE = (
    "text{font:12px sans-serif;fill:#222}.h{font-weight:bold}.v{font-size:11px}"
    ".w{stroke:#222;stroke-width:1}"
)


def _bar(left: float, top: float, found: Estimate, most: float, colour: str) -> list[str]:
    """A bar as long as the median, a line for the interval, and the figure beside it."""
    scale, middle = COLUMN / most, top + BAR / 2
    low, high = left + found.low * scale, left + found.high * scale
    return [
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{found.median * scale:.1f}" height="{BAR}" '
        f'fill="{colour}"/>',
        f'<line class="w" x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}"/>',
        f'<text class="v" x="{max(high, left + found.median * scale) + 4:.1f}" '
        f'y="{middle + 4:.1f}">{report.plain(found.median)}</text>',
    ]


def _panel(record: Record, row: str, top: float) -> tuple[list[str], float]:
    """One scenario, and where the next begins."""
    rounds = record.rounds(row)
    cases = [case for case in record.data["rows"][row]["cases"] if case in rounds]
    out = [f'<text class="h" x="0" y="{top + 14:.1f}">{escape(row)}</text>']
    for index, (key, title) in enumerate(COLUMNS.items()):
        left = LEFT + index * (WIDTH - LEFT) / 2
        out.append(f'<text x="{left:.1f}" y="{top + 14:.1f}">{title}</text>')
        found = {case: estimate(each(case, MEASURES[key])(rounds)) for case in cases}
        most = max(max(one.high for one in found.values()), 1e-9)
        at = top + 22
        for case, one in found.items():
            colour = OURS if case.startswith("trigear") else THEIRS
            out += _bar(left, at, one, most, colour)
            if not index:
                out.append(
                    f'<text x="{LABELS}" y="{at + BAR / 2 + 4:.1f}" text-anchor="end">'
                    f"{escape(case)}</text>"
                )
            at += BAR + GAP
    return out, top + 22 + len(cases) * (BAR + GAP) + 14


def svg(record: Record) -> str:
    """The picture: for each basic scenario a bar for each server, with the interval as a line."""
    body: list[str] = []
    top = float(HEAD)
    for row in BASIC:
        if record.rounds(row):
            panel, top = _panel(record, row, top)
            body += panel
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {WIDTH + 20} {top:.0f}" '
            f'width="{WIDTH + 20}" height="{top:.0f}">',
            f"<style>{STYLE}</style>",
            f'<rect x="-10" y="0" width="{WIDTH + 20}" height="{top:.0f}" fill="#fff"/>',
            '<text class="h" x="0" y="20">Median of the rounds; the line is its interval</text>',
            *body,
            "</svg>\n",
        ]
    )
