"""The benchmark of what protection costs runs, and says what it found."""

from __future__ import annotations

import pytest

from benchmarks import security

pytestmark = pytest.mark.slow


def test_a_short_run_measures_echoes_beside_handshakes_and_logins(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(security, "OFFERED", ((5, 5),))
    assert security.main(["--only", "waits", "--seconds", "0.5"]) == 0
    said = capsys.readouterr().out
    assert "offered    5 handshakes/s    5 logins/s; came " in said
    assert ", failed 0; echo median " in said


def test_what_is_missed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    rates = {"guarded": 80.0, "tls": 100.0, "plain": 200.0}
    security.tell_throughput(
        {kind: {"jobs_per_second": rate, "cpu_us_per_job": 1.0} for kind, rate in rates.items()}
    )
    said = capsys.readouterr().out
    assert "guarded beside TLS alone: 0.80 of its rate" in said
    assert "demanded: 0.85: MISSED" in said
    assert "TLS beside plain: 0.50 of its rate" in said


def test_load_that_did_not_come_about_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    one = {
        "offered": {"handshakes": 500, "logins": 200},
        "came": {"handshakes": 250.0, "logins": 200.0, "failed": 0.0},
        "echo_ms": {"median": 1.0, "p99": 26.0, "most": 30.0},
        "server_cpu": 0.5,
        "machine_busy": 0.9,
    }
    security.tell_waits([one])
    said = capsys.readouterr().out
    assert said.endswith("MISSED, but this machine could not make up so much load\n")
