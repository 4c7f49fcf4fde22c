from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import database, run
from benchmarks.generator import GeneratorError, Load, split_cpus
from benchmarks.servers import PEERS, Peer, Server, ServerError


def test_servers_take_turns_in_being_measured_first() -> None:
    planned = list(run.schedule(2, ["drain", "echo"], ["a", "b"]))
    assert planned == [
        *((0, "drain", "a"), (0, "drain", "b"), (0, "echo", "a"), (0, "echo", "b")),
        *((1, "drain", "b"), (1, "drain", "a"), (1, "echo", "b"), (1, "echo", "a")),
    ]


def test_names_are_separated_by_commas_and_all_means_every_one() -> None:
    options = run.parser().parse_args(["--against", "perl,gearmand,perl", "--scenario", "all"])
    assert options.against == ["perl", "gearmand"]
    assert options.scenario == list(run.SCENARIOS)


def test_nobody_to_compare_with_is_a_choice_too() -> None:
    assert run.parser().parse_args(["--against", "none"]).against == []


def test_an_unknown_scenario_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--scenario", "drian"])
    assert ended.value.code == 2
    assert "'drian' is none of background, drain" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rounds", "0"], "--rounds and --seconds have to be above zero"),
        (["--seconds", "0"], "--rounds and --seconds have to be above zero"),
        (["--size", "8"], "--size has to be 16 at least"),
        (["--against", "trigear"], "trigear cannot be measured against itself"),
        (["--against", "none", "--json", "/nowhere/at/all.json"], "/nowhere/at is no directory"),
    ],
)
def test_options_that_make_no_sense_get_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run.main(words) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_a_server_that_is_not_installed_is_named_with_its_package() -> None:
    absent = Peer("perl", "Perl", "/nonexistent/gearmand", "gearman-server", PEERS["perl"].command)
    assert absent.missing() == (
        "perl: /nonexistent/gearmand is not there; install it with: apt install gearman-server"
    )


def test_a_database_that_is_not_installed_is_named_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "programs", lambda: None)
    assert PEERS["trigear-postgresql"].missing() == (
        "trigear-postgresql: there is no PostgreSQL; apt install postgresql"
    )


def test_a_file_that_is_no_report_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in ("not json", "[]", '{"format": 99}', "{}"):
        (tmp_path / "report.json").write_text(content)
        assert run.main(["--render", str(tmp_path / "report.json")]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert "is no report of this program" in said.err
        assert said.err.count("\n") == 1


def test_a_report_without_rounds_can_be_rendered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = {
        **{"format": 1, "started": "2030-01-02T03:04:05+00:00", "rounds": []},
        **{"options": {"pin": True, "seconds": 3.0}, "servers": {"trigear": {}}},
        "machine": {
            **{"cpu": "Fast 9000", "usable_cores": 2, "memory_bytes": 2**33},
            **{"kernel": "Linux 6", "python": "CPython 3.11.2"},
        },
    }
    empty["servers"] = {"trigear": {"title": "trigear", "version": "0.1.0"}}
    (tmp_path / "report.json").write_text(json.dumps(empty))
    assert run.main(["--render", str(tmp_path / "report.json")]) == 0
    assert "server and generator pinned apart" in capsys.readouterr().out


def test_presets_of_a_scenario_stay_unless_something_else_is_asked_for() -> None:
    words = Load("echo", clients=3).words()
    assert words[words.index("--clients") + 1] == "3"
    assert "--workers" not in words
    assert "--interval" not in words


def test_pinning_needs_a_processor_for_each_side() -> None:
    assert split_cpus([0, 1, 2]) == ({0, 1}, {2})
    with pytest.raises(GeneratorError, match="two processors"):
        split_cpus([0])


def test_a_server_that_ends_at_once_is_reported_with_its_last_words() -> None:
    loser = Peer(
        *("loser", "Loser", sys.executable, "python3"),
        lambda port, directory: [
            sys.executable,
            "-c",
            "print('first', flush=True); raise SystemExit('no luck')",
        ],
    )
    with pytest.raises(ServerError, match=r"loser ended with status 1; its last line: no luck"):
        Server(loser).__enter__()


def test_a_server_that_stays_silent_is_stopped_and_reported() -> None:
    mute = Peer(
        *("mute", "Mute", sys.executable, "python3"),
        lambda port, directory: [sys.executable, "-c", "import time; time.sleep(60)"],
    )
    server = Server(mute, patience=0.1)
    with pytest.raises(ServerError, match="mute gave no version"):
        server.__enter__()
    assert not Path(f"/proc/{server.pid}").exists()
