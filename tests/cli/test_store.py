"""`--store` and `--state-dir`: where the queue is, and what is said if it cannot be there."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from trigear.cli import store
from trigear.cli.process import Identity
from trigear.cli.report import Failure, Status
from trigear.cli.store import StorePlan, parse_store, store_plan, usual_folder
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Said


@pytest.fixture
def nobody_special(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize("text", ["memory", "sqlite", "sqlite:///x", "sqlite:///a%20b/c.db"])
def test_stores_that_there_are(text: str) -> None:
    assert parse_store(text) == text


@pytest.mark.parametrize(
    ("store", "state_dir", "plan"),
    [
        ("memory", None, StorePlan()),
        ("memory", "/s", StorePlan()),
        ("sqlite", "/s", StorePlan("/s/jobs.sqlite3", "/s")),
        ("sqlite", "s/../t", StorePlan("/start/t/jobs.sqlite3", "/start/t")),
        ("sqlite:///x/y.db", "/s", StorePlan("/x/y.db")),
        ("sqlite:////x/../y%20%25.db", None, StorePlan("/y %.db")),
    ],
)
def test_options_lead_to_a_file(store: str, state_dir: str | None, plan: StorePlan) -> None:
    assert store_plan(store, state_dir, "/start") == plan


def test_memory_says_what_it_means_and_a_file_where_it_is() -> None:
    assert str(StorePlan()) == "memory (queued jobs do not survive a stop)"
    assert str(StorePlan("/x/y.db")) == "sqlite /x/y.db"


def test_a_plan_becomes_a_store(tmp_path: Path) -> None:
    assert StorePlan().build() is None
    built = StorePlan(str(tmp_path / "x.db")).build()
    assert isinstance(built, SqliteStore)
    assert built.path == str(tmp_path / "x.db")
    assert list(tmp_path.iterdir()) == []


# The state directory


def test_the_service_manager_has_the_first_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/one:/var/lib/two")
    assert usual_folder() == "/var/lib/one"


def test_then_comes_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.setenv("STATE_DIRECTORY", "")
    assert usual_folder() == "/xdg/trigear"


def test_root_is_a_system_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert usual_folder() == "/var/lib/trigear"


@pytest.mark.usefixtures("nobody_special")
def test_a_person_has_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/person")
    assert usual_folder() == "/home/person/.local/state/trigear"


def test_the_state_directory_is_made_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "trigear"
    plan = store_plan("sqlite", str(folder), "/")
    for _ in range(2):
        plan.prepare(None)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_state_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    store_plan("sqlite", str(tmp_path), "/").prepare(None)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


@pytest.mark.usefixtures("as_root")
def test_the_state_directory_belongs_to_who_will_use_it(tmp_path: Path) -> None:
    folder = tmp_path / "trigear"
    store_plan("sqlite", str(folder), "/").prepare(Identity("nobody", 65534, 65534))
    assert (folder.stat().st_uid, folder.stat().st_gid) == (65534, 65534)


def test_folders_of_files_that_are_named_are_not_made(tmp_path: Path) -> None:
    store_plan(f"sqlite://{tmp_path}/a/x.db", None, "/").prepare(None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "/trigear"])
def test_a_file_in_the_place_of_the_state_directory_is_one_line(tmp_path: Path, below: str) -> None:
    (tmp_path / "state").write_text("")
    plan = store_plan("sqlite", f"{tmp_path}/state{below}", "/")
    with pytest.raises(Failure, match="name another place with --state-dir") as caught:
        plan.prepare(None)
    assert caught.value.status == Status.NO
    with pytest.raises(Failure, match=r"not a directory; name another place with --state-dir"):
        plan.check()


def test_a_place_without_rights_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere; what the system says of others is put into its mouth.
    monkeypatch.setattr(os, "mkdir", _refuse)
    monkeypatch.setattr(store.os, "access", lambda *_: False)
    plan = store_plan("sqlite", str(tmp_path / "trigear"), "/")
    for attempt in (lambda: plan.prepare(None), plan.check):
        with pytest.raises(Failure, match="name another place with --state-dir") as caught:
            attempt()
        assert caught.value.status == Status.NOT_ALLOWED


def _refuse(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


# --check


def test_check_says_where_the_queue_would_be_and_makes_nothing(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    said = trigear("server", "--check", "-L", "127.0.0.1")
    state = tmp_path / "state"
    assert (
        said.out == f"good: would listen on 127.0.0.1; store: sqlite {state}/trigear/jobs.sqlite3\n"
    )
    assert not state.exists()
    said = trigear("server", "--check", "--store", "memory")
    assert "store: memory (queued jobs do not survive a stop)" in said.out


def test_check_finds_a_folder_that_is_not_there(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    said = trigear("server", "--check", "--store", f"sqlite://{tmp_path}/absent/x.db")
    assert said.status == Status.NO
    assert f"store: {tmp_path}/absent: no such directory; name another file" in said.line
    assert trigear("server", "--check", "--store", f"sqlite://{tmp_path}/x.db").status == 0


def test_options_may_come_from_the_environment_and_the_file(
    trigear: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trigear.toml"
    path.write_text(f'[server]\nstate-dir = "{tmp_path}/one"\n', encoding="utf-8")
    said = trigear("server", "--check", "--config", str(path))
    assert f"store: sqlite {tmp_path}/one/jobs.sqlite3" in said.out
    monkeypatch.setenv("TRIGEAR_SERVER_STATE_DIR", str(tmp_path / "two"))
    said = trigear("server", "--check", "--config", str(path))
    assert f"store: sqlite {tmp_path}/two/jobs.sqlite3" in said.out
