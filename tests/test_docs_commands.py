"""The reference of the command line is what the commands say of themselves."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from trigear.cli.root import COMMANDS, run_trigear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parent.parent / "docs"
COMMAND_PAGES = runpy.run_path(str(DOCS / "_ext" / "trigear_commands.py"))
fill: Callable[[str], str] = COMMAND_PAGES["fill"]


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Every command of the reference, and its help."""
    for part in page.partition("## All commands\n")[2].split("\n```text\n")[1:]:
        text, _, _ = part.partition("\n```")
        yield text.split("\n", 1)[0].removeprefix("Usage: "), text


def test_every_command_has_its_section() -> None:
    page = fill((DOCS / "commandline.md").read_text(encoding="utf-8"))
    assert "<!-- help" not in page
    for name in COMMANDS:
        assert f"\n## trigear {name}\n" in page
    assert "\n### trigear admin maxqueue\n" in page


def test_every_section_is_the_commands_own_help(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # of which no more than a hundred are used
    page = fill((DOCS / "commandline.md").read_text(encoding="utf-8"))
    for usage, text in sections(page):
        words = usage.split()
        last = next(place for place, word in enumerate(words) if not word.islower())
        assert run_trigear([*words[1:last], "--help"]) == 0
        assert capfd.readouterr().out.rstrip() == text


def test_every_command_that_talks_to_a_server_has_examples() -> None:
    page = fill((DOCS / "commandline.md").read_text(encoding="utf-8"))
    without = [usage for usage, text in sections(page) if "Examples:" not in text]
    talking = ("submit", "job", "admin", "context", "completion")
    assert [usage for usage in without if usage.split()[1] in talking] == []


def test_placeholder_that_nobody_fills_stops_the_build() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        fill("before\n<!-- help: nonsense -->\nafter")
