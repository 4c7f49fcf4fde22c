"""What the build hook does besides compiling, which tests/compiled.py tries out."""

from __future__ import annotations

import tempfile

import pytest

from hatch_build import CompileHook


def test_a_compilation_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    temporary, root = tmp_path / "tmp", tmp_path / "root"
    temporary.mkdir()
    (root / "trigear").mkdir(parents=True)
    monkeypatch.setenv("TRIGEAR_COMPILE", "1")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    hook = CompileHook(str(root), {}, None, None, str(tmp_path), "wheel")
    with pytest.raises(SystemExit, match="trigear was not compiled"):
        hook.initialize("standard", {"force_include": {}})
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("value", ["", "0"])
def test_without_being_asked_nothing_is_compiled_and_little_needed(value, tmp_path, monkeypatch):
    monkeypatch.setenv("TRIGEAR_COMPILE", value)
    hook = CompileHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    build_data: dict[str, object] = {}
    hook.initialize("standard", build_data)
    assert hook.dependencies() == []
    assert build_data == {}


def test_what_is_neither_yes_nor_no_is_no_guess(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIGEAR_COMPILE", "yes")
    hook = CompileHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    with pytest.raises(SystemExit, match="TRIGEAR_COMPILE=yes: write 1 to compile, 0 or nothing"):
        hook.dependencies()


def test_an_editable_installation_is_not_compiled(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIGEAR_COMPILE", "1")
    hook = CompileHook(str(tmp_path), {}, None, None, str(tmp_path), "wheel")
    with pytest.raises(SystemExit, match="makes no editable installation: leave out -e"):
        hook.initialize("editable", {})
