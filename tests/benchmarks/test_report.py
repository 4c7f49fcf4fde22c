from __future__ import annotations

from typing import Any

from benchmarks import report


def one(number: int, server: str, *, jobs: int, cpu: float, **more: float) -> dict[str, Any]:
    return {
        "round": number,
        "scenario": more.get("scenario", "drain"),
        "server": server,
        "generator": {
            **{"jobs": jobs, "seconds": 2.0, "rate": jobs / 2, "cpu_share": more.get("share", 0.3)},
            **{"clients": 1, "workers": 4, "outstanding": 256, "size": 64},
        },
        "server_cpu_seconds": cpu,
        "memory_begin": 10_000_000,
        "memory_end": 10_000_000 + 500 * jobs,
        "peak_memory": 20 * report.MIB,
        "others_cores": more.get("others", 0.0),
        "latency_us": {"count": jobs, "p50": 50.0, "p95": 95.0, "p99": 99.0, "max": 100.0},
    }


def made_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "started": "2030-01-02T03:04:05+00:00",
        "machine": {
            **{"cpu": "Fast 9000", "usable_cores": 2, "memory_bytes": 2**33},
            **{"kernel": "Linux 6", "python": "CPython 3.11.2"},
        },
        "options": {"pin": False, "seconds": 2.0, "backlog": 20000},
        "servers": {
            "trigear": {"title": "trigear", "version": "0.1.0"},
            "gearmand": {"title": "gearmand -t 4", "version": "1.1.20"},
        },
        "rounds": rounds,
    }
    made["summary"] = report.summarise(made)
    return made


def test_processor_time_is_divided_by_the_jobs_of_the_same_round() -> None:
    assert report.cpu_us_per_job(one(0, "trigear", jobs=100_000, cpu=2.5)) == 25.0


def test_ratios_pair_the_servers_of_one_round() -> None:
    made = made_of(
        [
            one(0, "trigear", jobs=1000, cpu=0.1),
            one(0, "gearmand", jobs=1000, cpu=0.2),
            # The order of servers alternates, and this minute is four times as slow for both.
            one(1, "gearmand", jobs=250, cpu=0.2),
            one(1, "trigear", jobs=250, cpu=0.1),
        ]
    )
    found = made["summary"]["drain"]["ratios"]["gearmand"]
    assert found["cpu_us_per_job"]["median"] == 0.5
    assert found["cpu_us_per_job"]["low"] == found["cpu_us_per_job"]["high"] == 0.5
    assert found["rate"]["median"] == 1.0


def test_a_round_that_was_interrupted_before_every_server_had_its_turn_does_not_count() -> None:
    made = made_of(
        [
            one(0, "trigear", jobs=1000, cpu=0.1),
            one(0, "gearmand", jobs=1000, cpu=0.2),
            one(1, "gearmand", jobs=9, cpu=9),
        ]
    )
    assert made["summary"]["drain"]["servers"]["gearmand"]["rate"]["rounds"] == 1


def test_a_ratio_to_a_round_too_short_for_the_clock_is_left_out() -> None:
    made = made_of([one(0, "trigear", jobs=10, cpu=0.01), one(0, "gearmand", jobs=10, cpu=0.0)])
    assert "cpu_us_per_job" not in made["summary"]["drain"]["ratios"]["gearmand"]
    assert "rate" in made["summary"]["drain"]["ratios"]["gearmand"]
    assert report.table(made)


def test_nothing_measured_is_reported_as_nothing() -> None:
    assert report.table(made_of([])) == "No complete round was measured."


def test_figures_have_three_digits_and_no_exponent() -> None:
    shown = [report.plain(v) for v in (0.456, 9.999, 45.67, 99.96, 456.7, 999.6, 241_499, 2.4e6)]
    assert shown == ["0.46", "10.0", "45.7", "100", "457", "1,000", "241,000", "2,400,000"]


def test_a_busy_generator_and_busy_neighbours_are_pointed_out_in_table_and_markdown() -> None:
    quiet = one(0, "gearmand", jobs=1000, cpu=0.2)
    loud = one(0, "trigear", jobs=1000, cpu=0.1, share=0.93, others=0.7)
    made = made_of([loud, quiet])
    for text in (report.table(made), report.markdown(made)):
        assert "the generator was busy 93% of the time with trigear 0.1.0" in text
        assert "other programs used 0.70 processors beside trigear 0.1.0" in text
        assert "with gearmand" not in text


def test_markdown_names_the_machine_and_has_a_row_per_server() -> None:
    made = made_of([one(0, "trigear", jobs=1000, cpu=0.1), one(0, "gearmand", jobs=1000, cpu=0.2)])
    text = report.markdown(made)
    assert text.startswith("Measured 2030-01-02 on Fast 9000, 2 cores, 8 GiB, Linux 6, CPython")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows] == [
        *("| server", "| trigear 0.1.0", "| gearmand -t 4 1.1.20")
    ]
    assert len({row.count("|") for row in rows}) == 1
    assert "trigear 0.1.0 / gearmand -t 4 1.1.20: CPU 0.50 (0.50 to 0.50)" in text


def test_growth_per_queued_job_is_reported_where_jobs_stay_queued() -> None:
    rounds = [one(0, name, jobs=1000, cpu=0.1) for name in ("trigear", "gearmand")]
    for entry in rounds:
        entry["scenario"] = "background"
    text = report.table(made_of(rounds))
    assert "trigear 0.1.0 grew by 500 (500 to 500) bytes per queued job" in text
    assert "memory per queued job 1.00" in text
    assert "peak memory" not in text
