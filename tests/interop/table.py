"""What the matrix showed, as data and as the tables of `docs/interop.md`."""

from __future__ import annotations

import json
import pathlib
import re
from dataclasses import dataclass, field

from tests.interop.limits import LIMITS, POINTS, Limit
from tests.interop.peers import PEERS
from tests.interop.servers import COMMANDS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "interop.md"
BEGIN = "<!-- written by the interop tests: begin -->"
END = "<!-- written by the interop tests: end -->"

TITLES = {"trigear": "trigear", "gearmand": "gearmand 1.1.20"}
PASSED = "yes"
LIMITED = "no"
NOT_RUN = ""

Key = tuple[str, str, str, str]  # server, client, worker, feature


def limits_of(server: str, client: str, worker: str, feature: str) -> list[Limit]:
    """Why this cell may miss points of the feature."""
    return [
        limit
        for limit in LIMITS
        if limit.feature == feature and limit.holds(server, client, worker)
    ]


@dataclass
class Findings:
    """The points each cell fulfilled, gathered while the tests run."""

    cells: dict[Key, set[str]] = field(default_factory=dict)

    def add(self, key: Key, points: set[str]) -> None:
        self.cells[key] = points

    def complete(self) -> bool:
        """Whether every cell has been run."""
        return all(key in self.cells for key in every_key())

    def as_json(self) -> str:
        rows = []
        for key in every_key():
            if key in self.cells:
                server, client, worker, feature = key
                missed = [point for point in POINTS[feature] if point not in self.cells[key]]
                reasons = [limit.reason for limit in limits_of(*key) if limit.point in missed]
                rows.append(
                    {
                        "server": server,
                        "client": client,
                        "worker": worker,
                        "feature": feature,
                        "passed": POINTS[feature][0] not in missed,
                        "missed": missed,
                        "limits": reasons,
                    }
                )
        return json.dumps(rows, indent=1) + "\n"

    def text(self, key: Key) -> str:
        """A cell's text in the table: the verdict and the numbers of the limits behind it."""
        points = self.cells.get(key)
        if points is None:
            return NOT_RUN
        server, client, worker, feature = key
        verdict = PASSED if POINTS[feature][0] in points else LIMITED
        numbers = sorted(
            {
                NUMBERS[limit.reason]
                for limit in limits_of(server, client, worker, feature)
                if limit.point not in points
            }
        )
        return " ".join([verdict, *(f"({number})" for number in numbers)])


def every_key() -> list[Key]:
    """Every cell of the matrix, in the order of the tables."""
    return [
        (server, client.name, worker.name, feature)
        for server in TITLES
        for client in PEERS
        for worker in PEERS
        for feature in POINTS
    ]


# Limits with the same reason share a number.
NUMBERS = {
    reason: number
    for number, reason in enumerate(dict.fromkeys(limit.reason for limit in LIMITS), start=1)
}


def render(findings: Findings) -> str:
    """The part of the page between the two marks."""
    assert set(TITLES) == set(COMMANDS)
    lines = []
    titles = {peer.name: peer.title for peer in PEERS}
    for server, title in TITLES.items():
        lines += [f"## Server: {title}", ""]
        lines.append(" | ".join(["| client", "worker", *POINTS]) + " |")
        lines.append("| --- " * (2 + len(POINTS)) + "|")
        for client in PEERS:
            for worker in PEERS:
                texts = [
                    findings.text((server, client.name, worker.name, feature)) for feature in POINTS
                ]
                row = [titles[client.name], titles[worker.name], *texts]
                lines.append("| " + " | ".join(row) + " |")
        lines.append("")
    lines += ["## Limits", ""]
    lines += [f"{number}. {reason}" for reason, number in NUMBERS.items()]
    return "\n".join(lines) + "\n"


def cells_of(text: str) -> dict[Key, str]:
    """The cells of the tables in a page's text: the inverse of `render`."""
    by_title = {peer.title: peer.name for peer in PEERS}
    cells: dict[Key, str] = {}
    server = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"## Server: (.*)", line):
            server = next(name for name, title in TITLES.items() if title == heading[1])
        elif line.startswith("| ") and server:
            client, worker, *texts = (word.strip() for word in line.strip("|").split("|"))
            if client in by_title:
                for feature, verdict in zip(POINTS, texts, strict=True):
                    cells[server, by_title[client], by_title[worker], feature] = verdict
    return cells


def committed() -> str:
    """The generated part of the page as it is."""
    text = PAGE.read_text()
    return text[text.index(BEGIN) + len(BEGIN) + 1 : text.index(END)]


def write(findings: Findings) -> None:
    """Replace the generated part of the page."""
    text = PAGE.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN) + 1, text.index(END)
    PAGE.write_text(text[:begin] + "\n" + render(findings) + "\n" + text[end:])
