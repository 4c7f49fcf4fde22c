"""`trigear demo`: real processes, real work, every answer checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import trio

from trigear.cli.demo import Demo, Outcome, document, semiprime, status_for, summary
from trigear.cli.demo_display import Bars, Lines, Quiet, display_for
from trigear.cli.demo_worker import FACTOR_STEPS, count_words, divisor_between
from trigear.cli.report import Status
from trigear.runtime.client import open_client
from trigear.runtime.worker import Worker, WorkerJob
from trigear.testing.memory import open_memory_server

DEMO = [sys.executable, "-m", "trigear", "demo", "--workers", "2", "--documents", "100"]


def children_of(process: int) -> list[int]:
    listings = Path(f"/proc/{process}/task").glob("*/children")
    return [int(word) for listing in listings for word in listing.read_text().split()]


@pytest.mark.slow
def test_the_demo_ends_with_every_answer_right_and_a_job_re_run() -> None:
    done = subprocess.run(
        [*DEMO, "--json"], capture_output=True, text=True, timeout=85, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["wrong"] == 0
    assert outcome["rerun"] >= 1
    assert outcome["raised"] == 1
    assert outcome["background"] == 2
    assert outcome["jobs"] == 100 + 4 + 2 + 1
    assert outcome["workers"] >= 3
    lines = done.stderr.splitlines()
    killed = next(line for line in lines if line.startswith("killed worker process"))
    handle = killed.split()[-1]
    assert any(line.startswith(f"job {handle} went to process") for line in lines)
    assert any("1 running job goes to others" in line for line in lines)
    assert any("UnicodeDecodeError" in line for line in lines)


@pytest.mark.slow
def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*DEMO, "--documents", "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("killed worker process"):
                break
        workers = children_of(process.pid)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert workers
    assert process.returncode == Status.INTERRUPTED
    assert said.splitlines()[-1].endswith("interrupted")
    assert "Traceback" not in said
    assert not any(os.path.exists(f"/proc/{worker}") for worker in workers)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example() -> None:
    done = subprocess.run([*DEMO[:4], "--help"], capture_output=True, text=True, check=True)
    assert "Example: trigear demo --workers 2" in done.stdout
    assert "--json" in done.stdout


def test_one_worker_is_too_few_for_a_demo_that_kills_one() -> None:
    done = subprocess.run(
        [*DEMO[:4], "--workers", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == Status.USAGE
    assert len(done.stderr.splitlines()) == 1


# Wrong answers are found


async def test_wrong_answers_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    liar = Worker(max_jobs=4)

    @liar.function("count")
    async def count(job: WorkerJob) -> bytes:
        return b"{}"

    @liar.function("factor")
    async def factor(job: WorkerJob) -> bytes:
        await job.status(1, FACTOR_STEPS)
        return b"1 " + job.workload

    @liar.function("archive")
    async def archive(job: WorkerJob) -> None:
        pass

    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(liar.run, network.open)
        demo = Demo(client, Lines(), documents=3, folder=tmp_path)
        await demo.run()
        nursery.cancel_scope.cancel()
    outcome = demo.outcome
    assert outcome.wrong == outcome.jobs == 3 + 4 + 2 + 1
    assert status_for(outcome) == Status.NO
    assert f"{outcome.wrong} are WRONG" in "\n".join(summary(outcome))
    assert capsys.readouterr().err.count("wrong answer: ") == outcome.wrong


def test_right_answers_are_a_success() -> None:
    outcome = Outcome(jobs=12345, seconds=5.0, rate=2469.0, rerun=1, raised=1, background=7)
    assert status_for(outcome) == Status.DONE
    first, second, third, _ = summary(outcome)
    assert first == "12,345 jobs in 5.0 s, 2,469 a second, 7 of them in the background"
    assert second.startswith("1 re-run")
    assert third == "every answer was checked: all are right"


# The work


def test_the_work_is_the_same_every_time() -> None:
    assert document(7) == document(7) != document(8)
    assert semiprime(7) == semiprime(7) != semiprime(8)


def test_words_are_counted() -> None:
    assert count_words("a b a") == {"a": 2, "b": 1}


def test_numbers_are_taken_apart() -> None:
    small, large = semiprime(1)
    assert small <= large
    assert divisor_between(small * large, 3, small - 1) is None
    assert divisor_between(small * large, small - 10, small + 10) == small


# The display


def test_bars_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    assert type(display_for(quiet=False, color=True)) is Lines
    assert type(display_for(quiet=True, color=True)) is Quiet


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Quiet() as display:
        display.begin("a", 1)
        display.advance("a")
        display.say("x")
    assert capsys.readouterr() == ("", "")


def test_lines_say_now_and_then_how_far_things_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: moment)
    with Lines() as display:
        display.begin("a", 4)
        display.begin("b", 2)
        display.advance("a")
        moment += 10
        display.advance("b")
        display.advance("b")
        display.say("done")
    assert capsys.readouterr().err == "a 25 %, b 50 %\ndone\n"


def test_bars_show_what_happens(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(color=False) as display:
        display.begin("documents", 2)
        display.advance("documents", 2)
        display.say("[something] happened")
    shown = capsys.readouterr().err
    assert "[something] happened" in shown
    assert "2/2" in shown
