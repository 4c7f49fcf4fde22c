"""What the repository promises about itself: the README's commands, the version, the licence."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import trigear

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def marked(name: str) -> list[str]:
    """The lines of the code block that the README marks with a comment of this name."""
    found = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)```\n<!-- end -->", README, re.DOTALL)
    assert len(found) == 1
    lines: list[str] = found[0].splitlines()
    return lines


def test_continuous_integration_runs_the_command_of_the_readme() -> None:
    shown = subprocess.run(
        [ROOT / ".ci" / "run", "--show"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.splitlines() == marked("test command")


def test_readme_gives_one_line_to_run_one_to_serve_and_one_to_test() -> None:
    demo, server = marked("run command")
    assert demo.endswith(".venv/bin/trigear demo")
    assert server == ".venv/bin/trigear server"
    (test,) = marked("test command")
    assert test.endswith(".venv/bin/nox")
    for line in (demo, test):
        assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")


def test_links_in_the_readme_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_version_stands_in_one_place() -> None:
    assert importlib.metadata.version("trigear") == trigear.__version__
    assert METADATA["project"]["dynamic"] == ["version"]
    assert f"## [{trigear.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_both_commands_are_installed_and_called_by_their_names() -> None:
    scripts = {
        entry.name: entry.value
        for entry in importlib.metadata.distribution("trigear").entry_points
        if entry.group == "console_scripts"
    }
    assert scripts == {"trigear": "trigear.cli:main", "gearmand": "trigear.cli:gearmand_main"}
    for name in scripts:
        done = subprocess.run(
            [Path(sys.executable).parent / name, "--version"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert name in done.stdout


def test_every_dependency_has_its_line_in_the_documentation() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    project = METADATA["project"]
    extras = project["optional-dependencies"].values()
    needed = {
        re.split(r"[\[<>=~! ]", requirement)[0]
        for requirements in [
            project["dependencies"],
            METADATA["build-system"]["requires"],
            *extras,
        ]
        for requirement in requirements
    } - {"trigear"}
    described = set(re.findall(r"^\| \[([\w-]+)\]\(", page, re.MULTILINE))
    assert described == needed
