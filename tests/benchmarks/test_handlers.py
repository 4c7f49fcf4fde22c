"""Measuring workers: that each kind does its jobs, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import handlers
from benchmarks.handlers import KINDS, Kind, main, markdown, schedule

if TYPE_CHECKING:
    from pathlib import Path

QUICK = ("--rounds", "1", "--seconds", "0.02")


@pytest.mark.slow
def test_each_kind_of_trigears_workers_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ["trio", "thread-16", "asyncio", "program"]
    report = tmp_path / "report.json"
    assert main([*QUICK, "--kinds", ",".join(kinds), "--json", str(report)]) == 0
    said = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert [one["kind"] for one in found["rounds"]] == kinds
    for one in found["rounds"]:
        assert one["jobs"] >= 50
        assert one["rate"] > 0
        assert one["worker_us"] >= 0
    assert said.count("\n| trigear, ") == len(kinds)
    assert "trigear worker" in found["commands"]["trio"]
    assert main(["--render", str(report)]) == 0
    assert capsys.readouterr().out == said


def test_a_worker_that_ends_is_named_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Kind("broken", "broken", lambda _port: ["sh", "-c", "echo no such thing"])
    monkeypatch.setitem(KINDS, "broken", broken)
    monkeypatch.setattr(handlers, "PATIENCE", 0.5)
    monkeypatch.setattr(handlers, "names", lambda _known: lambda text: text.split(","))
    assert main([*QUICK, "--kinds", "broken"]) == 1
    complaint = "broken does not do its jobs; its last line: no such thing"
    assert capsys.readouterr() == ("", f"benchmarks.handlers: {complaint}\n")


@pytest.mark.parametrize("thing", ["/usr/bin/nothing", "no_such_package"])
def test_what_is_missing_is_named_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], thing: str
) -> None:
    kind = Kind("trio", "trio", lambda _port: [], needs=(thing, "apt install it"))
    monkeypatch.setitem(KINDS, "trio", kind)
    assert main([*QUICK, "--kinds", "trio"]) == 2
    said = capsys.readouterr().err
    assert (
        said
        == f"benchmarks.handlers: trio: {thing} is not there; install it with: apt install it\n"
    )


def test_options_that_make_no_sense_get_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--rounds", "0"]) == 2
    (tmp_path / "other.json").write_text("{}")
    assert main(["--render", str(tmp_path / "other.json")]) == 2
    assert "is no report of it" in capsys.readouterr().err


def test_kinds_take_turns_in_being_measured_first() -> None:
    assert list(schedule(2, ["a", "b"])) == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


def test_a_table_has_medians_and_says_when_others_used_the_machine() -> None:
    rounds = [
        {"kind": "trio", "rate": rate, "worker_us": 100.0, "server_us": 50.0, "others_cores": 0.9}
        for rate in (1000.0, 3000.0, 2000.0)
    ]
    machine = {"cpu": "a cpu", "usable_cores": 2, "memory_bytes": 1 << 30}
    text = markdown(
        {
            "started": "2026-11-23T12:00:00+00:00",
            "machine": {**machine, "kernel": "Linux 6", "python": "CPython 3"},
            "versions": "trigear 0",
            "options": {"kinds": ["trio"], "rounds": 3, "seconds": 2.0},
            "rounds": rounds,
        }
    )
    row = "| trigear, `async def` | 1 | 2,000 (1,000 to 3,000) | 100 (100 to 100) | 50.0 |"
    assert row in text.splitlines()
    assert "Medians of 3 interleaved rounds" in text
    assert text.endswith("Other programs used 0.90 processors meanwhile: rates suffered.")
