"""`trigear context`: servers by name, and what wins over them."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from trigear.cli import connecting, contexts
from trigear.cli.report import Status

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said
    from tests.cli.talking import Terminal


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty configuration folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(contexts, "SYSTEM", str(tmp_path / "no-system"))
    return tmp_path / "config" / "trigear"


def places(*args: str, **given: object) -> list[str]:
    options: dict[str, object] = {"server": (), "host": None, "port": None, "context": None}
    servers = connecting.choose(**(options | given))  # type: ignore[arg-type]
    return [str(address) for address in servers.addresses]


# Keeping them


def test_context_is_added_listed_used_and_removed(
    folder: Path, trigear: Callable[..., Said]
) -> None:
    said = trigear("context", "add", "live", "jobs1.example", "jobs2.example:4731")
    assert said.line == (
        "trigear: context 'live' is jobs1.example, jobs2.example:4731; take it with"
        " `trigear context use live` or --context live"
    )
    said = trigear("context", "add", "test", "unix:/tmp/x.sock", "--use")
    assert said.line == "trigear: context 'test' is unix:/tmp/x.sock; in use"
    assert trigear("context", "list").out == (
        "\tlive\tjobs1.example jobs2.example:4731\t-\t-\n*\ttest\tunix:/tmp/x.sock\t-\t-\n"
    )
    assert places() == ["unix:/tmp/x.sock"]
    said = trigear("context", "use", "live")
    assert said.line == "trigear: from now on context 'live': jobs1.example, jobs2.example:4731"
    assert places() == ["jobs1.example:4730", "jobs2.example:4731"]
    said = trigear("context", "remove", "--yes", "live")
    assert said.line == "trigear: removed context 'live' (jobs1.example, jobs2.example:4731)"
    assert places() == ["localhost:4730"]
    assert [json.loads(line) for line in trigear("context", "list", "--json").out.splitlines()] == [
        {
            "current": False,
            "name": "test",
            "servers": ["unix:/tmp/x.sock"],
            "tls": False,
            "user": None,
        }
    ]
    said = trigear("context", "use", "--none")
    assert said.line == "trigear: from now on no context"


def test_what_people_wrote_into_the_file_stays(folder: Path, trigear: Callable[..., Said]) -> None:
    folder.mkdir(parents=True)
    place = folder / contexts.NAME
    place.write_text('# ours\ncurrent = "a"\n\n[context.a]  # the first\nservers = ["x:1"]\n')
    trigear("context", "add", "b", "y:2")
    trigear("context", "add", "--replace", "a", "z:3")
    assert place.read_text() == (
        '# ours\ncurrent = "a"\n\n[context.a]  # the first\nservers = ["z:3"]\n\n'
        '[context.b]\nservers = ["y:2"]\n'
    )
    assert os.listdir(folder) == [contexts.NAME]
    assert stat.S_IMODE(place.stat().st_mode) & 0o077 == 0


def test_context_that_exists_is_not_replaced_unasked(
    folder: Path, trigear: Callable[..., Said]
) -> None:
    trigear("context", "add", "live", "a")
    said = trigear("context", "add", "live", "b")
    assert said.status == 1
    assert said.line.endswith("context 'live' exists: --replace changes it, or take another name")
    assert places(context="live") == ["a:4730"]


def test_removing_asks(
    folder: Path, trigear: Callable[..., Said], terminal: Callable[..., Terminal]
) -> None:
    trigear("context", "add", "live", "a", "--use")
    said = trigear("context", "remove", "live", "--dry-run")
    assert said.line == "trigear: would remove context 'live' (a), which is in use"
    shell = terminal("--no-color", "context", "remove", "live")
    shell.read_until("]: ")
    shell.type("n\n")
    assert shell.wait() == 1
    assert shell.seen == (
        "Remove context 'live' (a), which is in use? [y/N]: n\n"
        "trigear: error: nothing was removed\n"
    )


def test_list_of_none_says_how_to_make_one(folder: Path, terminal: Callable[..., Terminal]) -> None:
    shell = terminal("context", "list")
    assert shell.wait() == 0
    assert shell.seen == (
        "trigear: no context yet: make one with `trigear context add NAME ADDRESS`\n"
    )


# The system's and the user's


def test_contexts_of_the_system_are_there_for_everybody(
    folder: Path, trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    system = tmp_path / "etc"
    system.mkdir()
    (system / contexts.NAME).write_text(
        'current = "a"\n[context.a]\nservers = ["a"]\n[context.b]\nservers = ["b"]\n'
    )
    monkeypatch.setattr(contexts, "SYSTEM", str(system))
    trigear("context", "add", "b", "mine")
    assert places() == ["a:4730"]
    assert places(context="b") == ["mine:4730"]
    said = trigear("context", "remove", "--yes", "a")
    assert said.status == 1
    assert said.line.endswith(f"context 'a' stands in {system / contexts.NAME}: remove it there")


# What wins


def test_what_is_nearer_wins(
    folder: Path, trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places() == ["localhost:4730"]
    trigear("context", "add", "used", "used", "--use")
    trigear("context", "add", "other", "other")
    assert places() == ["used:4730"]
    monkeypatch.setenv("GEARMAN_SERVERS", "gearman:1, second")
    assert places() == ["gearman:1", "second:4730"]
    monkeypatch.setenv("TRIGEAR_SERVERS", "ours,unix:/x")
    assert places() == ["ours:4730", "unix:/x"]
    assert places(context="other") == ["other:4730"]
    assert places(server=("flag", "[::1]:1")) == ["flag:4730", "[::1]:1"]
    assert places(host="host") == ["host:4730"]
    assert places(host="::1", port=5) == ["[::1]:5"]
    assert places(port=5) == ["localhost:5"]
    monkeypatch.setenv("TRIGEAR_SERVERS", "")
    monkeypatch.setenv("GEARMAN_SERVERS", " , ")
    assert places() == ["used:4730"]


# Mistakes


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["add", "two words", "a"], Status.USAGE, "'two words' is no name; letters, digits and"),
        (["add", "live", "a:b"], Status.USAGE, "'a:b' has no usable port"),
        (["add", "live"], Status.USAGE, "Missing argument 'ADDRESS...'"),
        (["use"], Status.USAGE, "name one context, or say --none"),
        (["use", "live", "--none"], Status.USAGE, "name one context, or say --none"),
        (["use", "live"], Status.USAGE, "there is no 'live'; make it with `trigear context add"),
        (["remove", "live"], Status.USAGE, "there is no 'live'; make it with `trigear context"),
    ],
)
def test_mistake_is_one_line_that_says_what_to_do(
    args: list[str], status: int, says: str, folder: Path, trigear: Callable[..., Said]
) -> None:
    said = trigear("context", *args)
    assert said.status == status
    assert says in said.line
    assert not folder.exists()


def test_unknown_context_is_told_the_known_ones(folder: Path, trigear: Callable[..., Said]) -> None:
    trigear("context", "add", "live", "a")
    trigear("context", "add", "test", "b")
    said = trigear("admin", "status", "--context", "tets")
    assert said.status == Status.USAGE
    assert said.line == (
        "trigear: error: context: there is no 'tets', only live, test; make it with"
        " `trigear context add tets ADDRESS`"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("current = ", "is not TOML"),
        ("current = 5", "current: is no name of a context"),
        ("servers = []", "servers: no such table; write [context.NAME]"),
        ("context = 5", "context: no such table; write [context.NAME]"),
        ("[context.a]", '[context.a]: names no servers; write servers = ["HOST:PORT"]'),
        ("[context]\na = 5", '[context.a]: names no servers; write servers = ["HOST:PORT"]'),
        ("[context.a]\nservers = []", "[context.a] servers: is no list of addresses"),
        ("[context.a]\nservers = [5]", "[context.a] servers: is no list of addresses"),
        (
            '[context.a]\nservers = ["x"]\ntoken = true',
            "[context.a] token: this version does not know",
        ),
        ('current = "a"', "context: 'a' is in use and does not exist any more; choose another"),
        ('current = "a"\n[context.a]\nservers = ["x:y"]', "context 'a': 'x:y' has no usable port"),
    ],
)
def test_broken_file_is_named_with_what_is_wrong(
    text: str, says: str, folder: Path, trigear: Callable[..., Said]
) -> None:
    folder.mkdir(parents=True)
    (folder / contexts.NAME).write_text(text)
    said = trigear("admin", "status")
    assert said.status == Status.USAGE
    assert says in said.line
    if "context" not in says.partition(":")[0]:
        assert str(folder / contexts.NAME) in said.line


def test_file_that_cannot_be_read_or_written_is_said(
    folder: Path, trigear: Callable[..., Said]
) -> None:
    (folder / contexts.NAME).mkdir(parents=True)
    said = trigear("context", "list")
    assert said.status == 1
    assert said.line == (f"trigear: error: contexts: {folder / contexts.NAME}: Is a directory")


def test_folder_that_cannot_be_made_is_said(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    said = trigear("context", "add", "live", "a")
    assert said.status == 1
    assert said.line.endswith("Not a directory; XDG_CONFIG_HOME names another configuration folder")
