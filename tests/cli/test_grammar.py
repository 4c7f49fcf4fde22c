"""One grammar: options in front of a command, help everywhere, and what mistakes are told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
import pytest

from tests.cli.conftest import PATIENCE
from tests.plain import server_in_thread
from trigear import connect_blocking
from trigear.cli.report import Status
from trigear.cli.root import trigear_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cli.conftest import Said


def every_command() -> Iterator[tuple[list[str], click.Command]]:
    """All commands there are, with the words that call them."""
    ctx = click.Context(trigear_command)
    for name in trigear_command.list_commands(ctx):
        command = trigear_command.get_command(ctx, name)
        assert command is not None
        yield [name], command
        if isinstance(command, click.Group):
            for below in command.list_commands(ctx):
                found = command.get_command(ctx, below)
                assert found is not None
                yield [name, below], found


COMMANDS = list(every_command())


# Options in front


@pytest.fixture
def other() -> Iterator[str]:
    """A server that no variable names, with a job."""
    with server_in_thread() as (address,), connect_blocking(address, timeout=PATIENCE) as client:
        client.submit_background("mail", b"", unique="u")
        yield address


@pytest.mark.parametrize("group", ["admin", "job"])
def test_options_in_front_of_the_command_are_the_commands(
    group: str, other: str, nowhere: str, trigear: Callable[..., Said]
) -> None:
    host, _, port = other.rpartition(":")
    words = ["status"] if group == "admin" else ["status", "-u", "u"]
    behind = trigear(group, *words, "--server", other)
    assert behind.status == 0
    for front in (["--server", other], [f"--server={other}"], ["-h", host, "-p", port]):
        assert trigear(group, *front, *words) == behind
    assert trigear(group, "-h", host, words[0], "-p", port, *words[1:]) == behind


def test_every_group_whose_commands_talk_to_a_server_takes_their_options_in_front() -> None:
    groups = {words[0]: command for words, command in COMMANDS if isinstance(command, click.Group)}
    talking = {
        words[0] for words, command in COMMANDS if len(words) == 2 and names_a_server(command)
    }
    assert talking >= {"admin", "job"}
    assert {name for name in talking if not names_a_server(groups[name])} == set()


def names_a_server(command: click.Command) -> bool:
    return any("--server" in param.opts for param in command.params)


def test_json_may_stand_in_front(other: str, trigear: Callable[..., Said]) -> None:
    said = trigear("admin", "--json", "--server", other, "status")
    assert json.loads(said.out) == {"function": "mail", "total": 1, "running": 0, "workers": 0}


def test_servers_in_front_and_behind_are_tried_in_this_order(
    other: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("admin", "--server", "127.0.0.1:1", "status", "--server", other)
    assert said.out == "mail\t1\t0\t0\n"
    assert said.line == f"trigear: no server at 127.0.0.1:1 (Connection refused): taking {other}"


def test_what_contradicts_behind_the_name_contradicts_across_it(
    trigear: Callable[..., Said],
) -> None:
    said = trigear("admin", "--server", "a", "status", "-h", "b")
    assert said.status == Status.USAGE
    assert "--server and -h or -p both name a server: leave one out" in said.line


def test_of_two_hosts_the_one_nearest_to_the_command_is_taken(
    other: str, trigear: Callable[..., Said]
) -> None:
    host, _, port = other.rpartition(":")
    assert trigear("admin", "-h", "nowhere.invalid", "status", "-h", host, "-p", port).status == 0


def test_option_in_front_that_the_command_does_not_know_is_refused_by_it(
    trigear: Callable[..., Said],
) -> None:
    said = trigear("admin", "--json", "drop-function", "f")
    assert said.status == Status.USAGE
    assert "--json" in said.line
    assert said.line.endswith("see 'trigear admin drop-function --help'")


def test_option_of_a_command_in_front_of_all_words_is_told_its_place(
    trigear: Callable[..., Said],
) -> None:
    said = trigear("--server", "x", "admin", "status")
    assert said.status == Status.USAGE
    assert "'--server' stands behind the command, if it knows it: trigear COMMAND" in said.line


def test_option_is_not_repeated_where_help_is_asked_for(trigear: Callable[..., Said]) -> None:
    said = trigear("admin", "--server", "x", "--help")
    assert said.status == 0
    assert said.out.startswith("Usage: trigear admin")


# Help


@pytest.mark.parametrize(
    ("words", "command"), COMMANDS, ids=[" ".join(words) for words, _ in COMMANDS]
)
def test_h_is_help_or_says_where_help_is(
    words: list[str], command: click.Command, trigear: Callable[..., Said]
) -> None:
    said = trigear(*words, "-h")
    if any("-h" in param.opts and param.name == "host" for param in command.params):
        assert said.status == Status.USAGE
        assert "-h names the server's host, as gearman has it; for help write" in said.line
        assert "--help'" in said.line
    else:
        assert said.status == 0
        assert said.out.startswith(f"Usage: trigear {' '.join(words)}")


def test_h_is_help_at_the_front_door(trigear: Callable[..., Said]) -> None:
    assert trigear("-h") == trigear("--help")


@pytest.mark.parametrize("command", ["submit", "worker"])
def test_capital_h_is_help_where_gearman_has_it(command: str, trigear: Callable[..., Said]) -> None:
    assert trigear(command, "-H") == trigear(command, "--help")


@pytest.mark.parametrize(
    "words",
    [[], *(words for words, command in COMMANDS if isinstance(command, click.Group))],
    ids=" ".join,
)
def test_group_without_a_word_shows_its_help_as_a_mistake(
    words: list[str], trigear: Callable[..., Said]
) -> None:
    said = trigear(*words)
    assert said.status == Status.USAGE
    assert said.err.startswith(f"Usage: {' '.join(['trigear', *words])}")
    assert "Commands:" in said.err


def test_options_without_a_command_are_told_the_commands(trigear: Callable[..., Said]) -> None:
    said = trigear("job", "--server", "x")
    assert said.status == Status.USAGE
    assert "name a command: cancel, drop-result, list," in said.line


def test_command_that_was_taken_for_a_host_is_told(trigear: Callable[..., Said]) -> None:
    said = trigear("job", "-h", "list")
    assert said.status == Status.USAGE
    assert "-h names a server's host here, and took 'list' for it" in said.line


# Mistakes


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["status"], "did you mean `trigear admin status` or `trigear job status`?"),
        (["workers"], "did you mean `trigear admin workers`?"),
        (["cancel", "H:1"], "did you mean `trigear job cancel H:1`?"),
        (["stauts"], "did you mean `trigear admin status` or `trigear job status`?"),
        (["admin", "stauts"], "did you mean 'status'?"),
        (["job", "workers"], "did you mean `trigear admin workers`?"),
        (["job", "H:host:7"], "did you mean `trigear job show H:host:7`?"),
        (["serve", "-p", "4731"], "did you mean `trigear server -p 4731`?"),
        (["Start"], "did you mean `trigear server`?"),
        (["gearman", "-f", "x y"], "did you mean `trigear submit -f 'x y'`?"),
        (["help"], "did you mean `trigear --help`?"),
        (["sever"], "did you mean 'server'?"),
        (["cancel", "x" * 80], "did you mean `trigear job cancel`?"),
        (["admin", "halt"], "`kill -TERM PID`; `trigear admin getpid` says its PID"),
        (["stop"], "tell the server by a signal, on its machine: `kill -TERM PID`"),
        (["admin", "reopen"], "`kill -HUP PID`"),
        (["drain"], "did you mean `trigear admin drain`?"),
        (["config", "sho"], "did you mean 'show'?"),
        (["xyzzy"], "no command 'xyzzy': there are admin, "),
        (
            ["submit", "--host", "a", "f"],
            "no option '--host': write --server HOST:PORT, or -h HOST",
        ),
        (["submit", "--wait", "f"], "no option '--wait': write nothing: it waits"),
        (["submit", "--timeout", "3", "f"], "no option '--timeout': write --deadline DURATION"),
        (["job", "cancel", "--force", "H:1"], "no option '--force': write --yes"),
        (["admin", "status", "--format", "json"], "no option '--format': write --json"),
        (["worker", "--log", "x", "a:b"], "write --log-file FILE"),
        # Known to other commands only: click says what it is.
        (["context", "list", "--host", "x"], "No such option '--host'"),
        (["submit", "--prioritee", "f"], "No such option '--prioritee'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistake_is_told_what_was_meant(
    args: list[str], says: str, trigear: Callable[..., Said]
) -> None:
    said = trigear(*args)
    assert said.status == Status.USAGE
    assert says in said.line
