"""What the pages of the documentation show can be done as it stands there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_code import Block, blocks_of, commands_in, matches

ROOT = Path(__file__).parent.parent

PAGES = (
    "tutorial",
    "client",
    "worker",
    "exceptions",
    "blocking",
    "commandline",
    "schedules",
    "testing",
    "mistakes",
    "questions",
    "results",
    "retries",
    "howto/django",
    "howto/fastapi",
    "howto/parallel",
    "howto/long-jobs",
)
"""The pages whose blocks are run. :mod:`tests.docs_code` says how a page is written for that."""

ROOT_PAGES = ("howto/users",)
"""Those on which root becomes somebody else."""

PEER_PAGES = ("../README", "quickstart", "howto/gearmand", "howto/php")
"""Those that show Debian's Gearman programs, too."""

STUNNEL_PAGES = ("howto/secure-existing-clients",)
"""Those on which stunnel stands between them and the server."""


def namespace() -> list[str]:
    """What runs a program with port 4730 to itself, where the system allows that."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    alone = ["unshare", *user, "--net"]
    try:
        possible = subprocess.run([*alone, "true"], capture_output=True, check=False).returncode
    except FileNotFoundError:
        possible = 1
    return [] if possible else alone


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_the_page_does_what_it_says(page: str) -> None:
    play(page)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("page", PEER_PAGES)
@pytest.mark.usefixtures("peer_tools")
def test_every_block_of_a_page_about_other_programs_does_what_it_says(page: str) -> None:
    play(page)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("page", STUNNEL_PAGES)
@pytest.mark.usefixtures("peer_tools", "stunnel")
def test_every_block_of_a_page_with_stunnel_does_what_it_says(page: str) -> None:
    play(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", ROOT_PAGES)
@pytest.mark.usefixtures("root")
def test_every_block_of_a_page_for_root_does_what_it_says(page: str) -> None:
    play(page)


def play(page: str) -> None:
    done = subprocess.run(
        [*namespace(), sys.executable, "-bb", "-m", "tests.docs_code", f"docs/{page}.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# The runner itself: one that cannot fail proves nothing.


def test_blocks_are_told_apart() -> None:
    page = (
        "<!-- setup\na = 1\n-->\n```python\n# one.py\nb\n```\n```python\ntrio.run(c)\n```\n"
        "```python\nd\n```\n```console\n$ e\n```\ntext\n<!-- in a terminal of its own -->\n"
        "```console\n$ f\n```\n```sh\ng\n```\n```php\n<?php // a/h.php\n```\n"
        "<!-- ends with 3 -->\n```console\n$ i\n```\n<!-- a remark -->\n"
        "<!-- in a terminal of its own: worker -->\n```console\n$ j\n```\n"
        "<!-- worker says -->\n```text\nk\n```\n<!-- stop worker -->\n"
    )
    assert blocks_of(page) == [
        Block("setup", "a = 1\n", 2),
        Block("file", "# one.py\nb\n", 5, name="one.py"),
        Block("program", "trio.run(c)\n", 9),
        Block("snippet", "d\n", 12),
        Block("console", "$ e\n", 15),
        Block("terminal", "$ f\n", 20),
        Block("file", "<?php // a/h.php\n", 26, name="a/h.php"),
        Block("console", "$ i\n", 30, status=3),
        Block("terminal", "$ j\n", 35, name="worker"),
        Block("says", "k\n", 39, name="worker"),
        Block("stop", "worker", 41, name="worker"),
    ]


def test_commands_have_the_lines_that_follow_them() -> None:
    assert commands_in("$ one\na\nb\n$ two\n") == [("one", ["a", "b"]), ("two", [])]


@pytest.mark.parametrize(
    ("said", "expected", "good"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a"], ["a", "b"], False),
        (["a", "b"], ["a"], False),
        (["a", "b", "c"], ["a", "..."], True),
        (["a", "b", "c"], ["...", "c"], True),
        ([], ["..."], True),
        ([], [], True),
        (["a+b"], ["a.b"], False),
        (["a 17 b"], ["a … b"], True),
        (["a 17"], ["a … b"], False),
    ],
)
def test_output_is_compared_line_by_line(said: list[str], expected: list[str], good: bool) -> None:
    assert matches(said, expected) is good


@pytest.mark.parametrize(
    "page",
    [
        "```python\nassert 1 == 2\n```\n",
        "```python\nawait client.submit('', b'')\n```\n",
        "```console\n$ echo no\nyes\n```\n",
        "```console\n$ false\n```\n",
        "<!-- in a terminal of its own -->\n```console\n$ echo it ends\nwell\n```\n",
        "<!-- ends with 3 -->\n```console\n$ exit 4\n```\n",
        "<!-- ends with 3 -->\n```python\nexit(3)\n```\n",
        "nothing to run\n",
    ],
)
def test_a_page_that_is_wrong_fails(tmp_path: Path, page: str) -> None:
    (tmp_path / "page.md").write_text(page)
    done = subprocess.run(
        [*namespace(), sys.executable, "-m", "tests.docs_code", str(tmp_path / "page.md")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 1
    assert "page.md" in done.stderr
