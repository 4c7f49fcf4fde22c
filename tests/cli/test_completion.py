"""What the shell completes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import TRIGEAR
from trigear.cli.completion import SHELLS
from trigear.cli.report import Status
from trigear.cli.root import COMMANDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_its_script(shell: str, trigear: Callable[..., Said]) -> None:
    said = trigear("completion", shell)
    assert said.status == 0
    assert f"_TRIGEAR_COMPLETE={shell}_complete" in said.out


def test_shell_that_is_none_is_told_the_known_ones(trigear: Callable[..., Said]) -> None:
    said = trigear("completion", "tcsh")
    assert said.status == Status.USAGE
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in said.line


def test_bash_takes_the_script(trigear: Callable[..., Said], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(trigear("completion", "bash").out)
    asked = subprocess.run(
        ["/bin/bash", "-c", f"source {tmp_path}/script; complete -p trigear"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_trigear_completion" in asked.stdout


def completed(*words: str) -> list[str]:
    """What is offered for the last of these words."""
    done = subprocess.run(
        [*TRIGEAR[:1], "-c", "from trigear.cli import main; main()", *words],
        env={
            "_TRIGEAR_COMPLETE": "fish_complete",
            "COMP_WORDS": " ".join(["trigear", *words]),
            "COMP_CWORD": words[-1],
            "XDG_CONFIG_HOME": "/nonexistent",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split(",")[1].split("\t")[0] for line in done.stdout.splitlines() if "," in line]


def test_commands_and_options_are_offered() -> None:
    assert completed("sub") == ["submit"]
    assert completed("") == sorted(COMMANDS)
    assert "maxqueue" in completed("admin", "max")
    assert completed("submit", "--dead") == ["--deadline"]


def test_names_of_contexts_are_offered(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from click.shell_completion import ShellComplete

    from trigear.cli.root import trigear_command

    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    trigear("context", "add", "live", "a")
    trigear("context", "add", "test", "b")
    shell = ShellComplete(trigear_command, {}, "trigear", "_TRIGEAR_COMPLETE")

    def offered(args: list[str], incomplete: str) -> list[str]:
        return [item.value for item in shell.get_completions(args, incomplete)]

    assert offered(["context", "use"], "") == ["live", "test"]
    assert offered(["submit", "--context"], "l") == ["live"]
    (tmp_path / "trigear" / "contexts.toml").write_text("broken")
    assert offered(["submit", "--context"], "l") == []
