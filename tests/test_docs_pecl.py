"""The table of PECL's methods: all of them are there, and what stands beside them exists."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import trigear

if TYPE_CHECKING:
    from tests.conftest import PeerTools

PAGE = (Path(__file__).parent.parent / "docs" / "pecl.md").read_text(encoding="utf-8")
NOTHING = "\N{EN DASH}"
CLASSES = ("GearmanClient", "GearmanWorker", "GearmanJob", "GearmanTask")

WORDS: dict[str, list[Any]] = {
    "client": [trigear.Client, trigear.BlockingClient],
    "job": [trigear.WorkerJob, trigear.ThreadJob, trigear.AsyncioJob],
}
"""Words of the middle column that are not names in `trigear`."""

INSTANCES: dict[Any, Any] = {
    trigear.BlockingClient: trigear.BlockingClient(None, None),  # type: ignore[arg-type]
    trigear.JobRaised: trigear.JobRaised(b"H:1", b"ValueError"),
    trigear.Refused: trigear.Refused("QUEUE_FULL", "full"),
}
"""Objects of classes whose attributes are not there before they are made."""

NAME = re.compile(r"`(?P<path>[\w.]+)(?:\((?P<parameter>\w+)\))?`")


def rows(section: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def things(path: str) -> list[Any]:
    """What a name in the middle column stands for.

    Raises:
        AttributeError: it stands for nothing.
    """
    first, *rest = path.split(".")
    found = WORDS.get(first) or [getattr(trigear, first)]
    for name in rest:
        found = [getattr(INSTANCES.get(thing, thing), name) for thing in found]
    return found


def reflection(tools: PeerTools) -> dict[str, Any]:
    code = """
        $found = ["functions" => array_keys((new ReflectionExtension("gearman"))->getFunctions())];
        foreach ((new ReflectionExtension("gearman"))->getClassNames() as $name) {
            $found[$name] = [];
            foreach ((new ReflectionClass($name))->getMethods() as $method)
                if ($method->class === $name) $found[$name][] = strtolower($method->getName());
        }
        echo json_encode($found);
    """
    done = subprocess.run([tools.php, "-r", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.peers
def test_every_method_of_the_extension_has_one_row(peer_tools: PeerTools) -> None:
    methods = reflection(peer_tools)
    described = {name: sorted(row[0].strip("`").lower() for row in rows(name)) for name in CLASSES}
    assert described == {name: sorted(methods[name]) for name in CLASSES}


@pytest.mark.peers
def test_every_class_and_every_function_of_the_extension_is_accounted_for(
    peer_tools: PeerTools,
) -> None:
    found = reflection(peer_tools)
    functions = found.pop("functions")
    assert set(found) == {*CLASSES, "GearmanException"}
    assert found["GearmanException"] == []
    aliases = {
        f"{name.removeprefix('Gearman').lower()}{short}"
        for name in CLASSES
        for method in found[name]
        # `gearman_worker_errno` is `getErrno`, `gearman_task_numerator` is `taskNumerator`.
        for short in {method, method.removeprefix("get"), method.removeprefix("task")}
    }
    rest = [f for f in functions if f.removeprefix("gearman_").replace("_", "") not in aliases]
    unmentioned = [name for name in rest if f"`{name}`" not in PAGE.partition("\n## The rest")[2]]
    assert unmentioned == []
    assert len(rest) == 5


@pytest.mark.parametrize("section", CLASSES)
def test_what_stands_beside_a_method_exists(section: str) -> None:
    for method, here, _ in rows(section):
        names = list(NAME.finditer(here))
        assert NAME.sub("", here).replace(", ", "") == ("" if names else NOTHING), method
        for name in names:
            for thing in things(name["path"]):
                if name["parameter"]:
                    assert name["parameter"] in inspect.signature(thing).parameters, method


@pytest.mark.parametrize("section", CLASSES)
def test_a_method_without_a_counterpart_has_a_reason(section: str) -> None:
    assert [method for method, here, why in rows(section) if here == NOTHING and not why] == []


def test_a_name_that_does_not_exist_is_noticed() -> None:
    assert [thing.__qualname__ for thing in things("client.submit")] == [
        "Client.submit",
        "BlockingClient.submit",
    ]
    for path in ("client.map", "Client.grab", "nothing", "job.reply"):
        with pytest.raises(AttributeError):
            things(path)


@pytest.mark.parametrize("column", [1, 2])
def test_names_in_remarks_exist_too(column: int) -> None:
    """Those that begin with a name of `trigear`; others are PHP's or Trio's."""
    for section in CLASSES:
        for row in rows(section):
            for name in NAME.finditer(row[column]):
                first = name["path"].split(".")[0]
                if first in WORDS or first in trigear.__all__:
                    assert things(name["path"])
