"""The options of `trigear worker`: what contradicts, what is missing, and what is said of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from trigear.cli import worker
from trigear.cli.report import Status
from trigear.cli.worker_plan import WorkerPlan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said

    Trigear = Callable[..., Said]

ROOT = ["--allow-root"] if os.geteuid() == 0 else []


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch, trigear: Trigear) -> Callable[..., WorkerPlan]:
    """The plan that these arguments make."""

    def plan_of(*args: str) -> WorkerPlan:
        plans: list[WorkerPlan] = []

        def keep(plan: WorkerPlan, given: object, renewed: object) -> int:
            plans.append(plan)
            return 0

        monkeypatch.setattr(worker, "run", keep)
        said = trigear("worker", *ROOT, *args)
        assert said.status == 0, said.err
        # What one process writes is what the other reads.
        assert WorkerPlan.from_json(plans[0].to_json()) == plans[0]
        return plans[0]

    return plan_of


def test_options_may_follow_the_worker(planned: Callable[..., WorkerPlan]) -> None:
    plan = planned("a.b:c", "--jobs", "4", "-p", "14730", "--max-memory", "1MiB", "--name", "me")
    assert (plan.target, plan.jobs, plan.servers) == ("a.b:c", 4, ("localhost:14730",))
    assert (plan.max_memory, plan.name, plan.command) == (1 << 20, "me", ())


def test_what_follows_a_command_is_the_commands(planned: Callable[..., WorkerPlan]) -> None:
    plan = planned("-f", "a", "-f", "b", "-N", "-t", "1500", "grep", "-c", "-n", "x")
    assert (plan.functions, plan.command) == (("a", "b"), ("grep", "-c", "-n", "x"))
    assert (plan.lines, plan.timeout, plan.total, plan.once) == ("stripped", 1.5, None, False)
    plan = planned("-f", "a", "-n", "-c", "3", "--timeout", "2s", "--", "-odd", "--", "x")
    assert (plan.command, plan.lines, plan.timeout) == (("-odd", "--", "x"), "whole", 2.0)
    assert (plan.total, plan.once) == (3, True)


def test_a_worker_works_for_all_servers(planned: Callable[..., WorkerPlan]) -> None:
    plan = planned("-f", "a", "--server", "one", "--server", "unix:/two")
    assert plan.servers == ("one:4730", "unix:/two")
    assert plan.command == ()


@pytest.mark.parametrize(("flag", "level"), [("-v", "DEBUG"), ("--quiet", "ERROR")])
def test_manners_say_how_much_is_logged(
    flag: str, level: str, planned: Callable[..., WorkerPlan]
) -> None:
    assert planned("-f", "a", flag).log_level == level


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([], "name a worker as module:worker, or functions with -f"),
        (["jobs"], "'jobs' does not say which worker: write module:worker, as in jobs:worker"),
        (["shop/jobs.py"], "'shop/jobs.py' is a path, and Python imports modules: write shop.jobs"),
        (["./jobs.py:doer"], "write jobs:doer"),
        (["jobs.py"], "write jobs:worker"),
        (["/tmp/m.py:worker"], "write `cd /tmp && trigear worker m:worker`"),
        (["../m"], "write `cd .. && trigear worker m:worker`"),
        ([":worker"], "as in module:worker"),
        (["a:b", "c:d"], "'c:d' after a:b"),
        (["a:b", "--", "cat"], "name the function that the command does with -f"),
        (["a:b", "-n"], "are for commands"),
        (["-f", "", "cat"], "a function has a name"),
        (["-f", "a", "-n", "-N"], "-n and -N both say how lines leave"),
        (["-f", "a", "-t", "1", "--timeout", "1s"], "--timeout and -t both say how long"),
        (["-f", "a", "-c", "1", "--max-jobs", "1"], "-c and --max-jobs both count jobs"),
        (["-f", "a", "-c", "1", "--processes", "2"], "leave --processes out"),
        (["-f", "a", "-d"], "--daemon leaves the terminal"),
        (["-f", "a", "--name", "two words"], "one word is needed"),
        (["-f", "a", "--jobs", "0"], "--jobs"),
    ],
)
def test_what_cannot_be_meant_is_one_line(args: list[str], says: str, trigear: Trigear) -> None:
    said = trigear("worker", *ROOT, *args)
    assert said.status == Status.USAGE
    assert says in said.line
    assert said.line.endswith("see 'trigear worker --help'")


def test_a_root_that_is_none_is_refused(as_root: None, trigear: Trigear, tmp_path: Path) -> None:
    said = trigear("worker", *ROOT, "-f", "a", "--chroot", str(tmp_path / "none"))
    assert (said.status, said.line.endswith("none: is no folder")) == (Status.USAGE, True)


def test_only_root_changes_the_root(trigear: Trigear, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = trigear("worker", "-f", "a", "--chroot", "/")
    assert said.status == Status.NOT_ALLOWED
    assert "only root can change the root" in said.line


def test_a_user_who_is_none_is_told(as_root: None, trigear: Trigear) -> None:
    said = trigear("worker", "-f", "a", "--run-as", "no-such-user")
    assert said.status == Status.USAGE
    assert "there is no user 'no-such-user'" in said.line


def test_nobody_stays_root_by_accident(as_root: None, trigear: Trigear) -> None:
    said = trigear("worker", "-f", "a")
    assert said.status == Status.NOT_ALLOWED
    assert "--run-as USER" in said.line
    assert "--allow-root" in said.line


def test_a_pid_file_that_cannot_be_written_stops_the_start(
    trigear: Trigear, tmp_path: Path
) -> None:
    said = trigear("worker", *ROOT, "-f", "a", "--pid-file", str(tmp_path / "no" / "pid"))
    assert said.status == Status.NO
    assert "name another with --pid-file" in said.line


def test_help_shows_examples(trigear: Trigear) -> None:
    said = trigear("worker", "--help")
    assert "trigear worker -f upper -- tr a-z A-Z" in said.out
    assert trigear("worker", "-H").out == said.out
    assert "all of them" in " ".join(said.out.split())
