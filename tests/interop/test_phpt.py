"""The PHP extension's own tests say of trigear what they say of gearmand."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.interop import run_phpt

if TYPE_CHECKING:
    import pathlib

    from tests.conftest import PeerTools

pytestmark = pytest.mark.peers


@pytest.fixture(scope="module")
def phpt(peer_tools: PeerTools) -> tuple[pathlib.Path, pathlib.Path]:
    """The test files and the program that runs them."""
    try:
        return run_phpt.prepare(run_phpt.default_cache())
    except run_phpt.NotAvailable as problem:
        if os.environ.get("CI") == "true":
            pytest.fail(f"the tests cannot be had: {problem}", pytrace=False)
        pytest.skip(f"the tests cannot be had: {problem}")


def test_the_extensions_own_tests_pass_as_they_do_against_gearmand(
    phpt: tuple[pathlib.Path, pathlib.Path],
) -> None:
    tests, runner = phpt
    gearmand = run_phpt.run("gearmand", tests, runner)
    assert len(gearmand) > 50
    assert sum(verdict == "pass" for verdict in gearmand.values()) > 50
    assert run_phpt.run("trigear", tests, runner) == gearmand
