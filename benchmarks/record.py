"""What a run of the suite has measured so far, as the file in which it is kept.

The file is written after every measurement, so that an interrupted run keeps what it has, and a
later one can go on with it.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from benchmarks.rows import Case, Row

FORMAT = 1
PROGRAM = "benchmarks.suite"

# What has to stay the same while a run is gone on with.
SAME = ("cpu", "usable_cores", "kernel", "python", "optimised", "trigear", "compiled", "digest")


class RecordError(Exception):
    """A file cannot be read, or not be gone on with; the text says why."""


class Record:
    """Rounds by row and case, what went wrong, and where each part was measured.

    Args:
        data: the content of the file.
        file: where it is kept; None for nowhere.
    """

    def __init__(self, data: dict[str, Any], file: Path | None = None) -> None:
        self.data = data
        self.file = file

    @classmethod
    def new(cls, file: Path | None, *, quick: bool) -> Self:
        """An empty one."""
        data = {"format": FORMAT, "program": PROGRAM, "quick": quick}
        return cls({**data, "sessions": [], "servers": {}, "rows": {}}, file)

    @classmethod
    def load(cls, file: Path) -> Self:
        """The one in `file`.

        Raises:
            RecordError: it cannot be read, or is something else.
        """
        try:
            data = json.loads(file.read_text())
            found = data["program"], data["format"]
            if found != (PROGRAM, FORMAT):
                raise ValueError(f"{found} instead of {(PROGRAM, FORMAT)}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RecordError(f"{file} is no record of this program: {error}") from error
        return cls(data, file)

    def save(self) -> None:
        """Writes the file as a whole: who reads it meanwhile finds the last one complete."""
        if self.file is not None:
            unfinished = self.file.with_name(f"{self.file.name}.{os.getpid()}")
            unfinished.write_text(json.dumps(self.data, indent=1) + "\n")
            unfinished.rename(self.file)

    def begin(self, started: str, machine: Mapping[str, Any]) -> None:
        """A part of the run begins.

        Raises:
            RecordError: the parts before were measured on another machine, or of another trigear.
        """
        for before in self.data["sessions"]:
            for key in SAME:
                if before["machine"][key] != machine[key]:
                    raise RecordError(
                        f"what is there was measured with another {key}: "
                        f"{before['machine'][key]}, now {machine[key]}"
                    )
        self.data["sessions"].append({"started": started, "machine": dict(machine)})

    def _row(self, row: Row) -> dict[str, Any]:
        """Its part of the record.

        Raises:
            RecordError: it was measured under another load.
        """
        about = {"title": row.title, "pinned": row.pinned, "pairs": [list(p) for p in row.pairs]}
        empty = {**about, "cases": {}, "rounds": [], "problems": []}
        entry: dict[str, Any] = self.data["rows"].setdefault(row.name, empty)
        for case in row.cases:
            words = " ".join(case.load.words())
            facts = entry["cases"].setdefault(case.name, {"peer": case.peer, "load": words})
            if facts["load"] != words:
                raise RecordError(f"{row.name} was measured under another load: {facts['load']}")
        return entry

    def prepare(self, row: Row) -> None:
        """Makes room for a row; what went wrong with it before is forgotten, for it is tried again.

        Raises:
            RecordError: it was measured under another load.
        """
        self._row(row)["problems"] = []

    def has(self, row: Row, case: Case, number: int) -> bool:
        """Whether the case was measured in this round."""
        return number in self.rounds(row.name).get(case.name, {})

    def add(self, row: Row, case: Case, number: int, figures: Mapping[str, Any]) -> None:
        """A measurement is there."""
        session = len(self.data["sessions"]) - 1
        one = {"round": number, "case": case.name, "session": session, **figures}
        self._row(row)["rounds"].append(one)
        self.save()

    def complain(self, row: Row, case: Case, number: int, problem: str) -> None:
        """A measurement could not be made."""
        one = {"round": number, "case": case.name, "problem": problem}
        self._row(row)["problems"].append(one)
        self.save()

    def rounds(self, row: str) -> dict[str, dict[int, dict[str, Any]]]:
        """The figures of a row by case and number of the round."""
        found: dict[str, dict[int, dict[str, Any]]] = {}
        for one in self.data["rows"].get(row, {"rounds": []})["rounds"]:
            found.setdefault(one["case"], {})[one["round"]] = one
        return found

    def problems(self) -> list[str]:
        """One line for each case of which something could not be measured."""
        lines = {}
        for row, entry in self.data["rows"].items():
            for one in entry["problems"]:
                problem = " ".join(one["problem"].split())
                lines[row, one["case"]] = f"{row}, {one['case']}: {problem}"
        return list(lines.values())
