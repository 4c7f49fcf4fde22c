"""The benchmark of foreground jobs beside durable load runs, and says what it found."""

from __future__ import annotations

import json
import shutil

import pytest

from benchmarks import beside

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here"),
]


def test_a_short_run_says_how_long_jobs_take_alone_and_beside(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert beside.main(["--rounds", "1", "--seconds", "0.2"]) == 0
    first, alone, loaded = capsys.readouterr().out.splitlines()
    assert first.startswith("durable submissions: ")
    assert alone.startswith("foreground jobs alone   p50 ")
    assert loaded.startswith("foreground jobs beside  p50 ")


def test_everything_measured_can_be_had_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert beside.main(["--rounds", "1", "--seconds", "0.2", "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["rounds"]
    assert one["reached"] < one["most"]
    assert one["beside"]["errors"] == one["alone"]["errors"] == 0
