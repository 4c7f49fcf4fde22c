"""Results on their way to other programs' stores, and the page that says how to write one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.elsewhere.promises import PROMISES, START, result
from trigear.errors import ConfigError, StoreUnavailable, StoreUnusable
from trigear.stores.results import about, pack, result_store, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.stores.results import ResultStore

PAGE = Path(__file__).parent.parent.parent / "docs" / "results.md"

CODE = re.compile(r"^```python\n# trigear_files\.py\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENTRY_POINTS = re.compile(
    r'^\[project\.entry-points\."(.*?)"\]\n(.*?)^```$', re.DOTALL | re.MULTILINE
)

ODD = result(b"H:\n1", b"\n\0{}", unique=b"\xff\n", tenant="größe", attempts=7, state="exception")


@pytest.mark.parametrize("one", [result(), result(data=b""), result(data=None), ODD])
def test_a_result_can_be_made_bytes_and_back(one):
    assert unpack(pack(one)) == one
    assert "\n" not in about(one)


def packed(**other: object) -> bytes:
    fields = json.loads(about(result())) | other
    return json.dumps(fields).encode() + b"\ndata"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "Expecting value"),
        (b"[]\n", "no result"),
        (b"{}\n", "no result: KeyError"),
        (packed(version=2), "layout 2"),
        (packed(size=5), "4 bytes of data where 5 belong"),
        (packed(handle=5), "no result: AttributeError"),
        (packed(handle="€"), "latin-1"),
        (packed(attempts=[]), "no result: TypeError"),
        (packed(ended="soon"), "could not convert"),
        (packed(expires=float("inf")), "expires at inf"),
        (packed(ended=float("nan")), "ended at nan"),
    ],
)
def test_what_is_no_result_is_not_taken_for_one(raw, why):
    with pytest.raises(ValueError, match=why):
        unpack(raw)


def test_data_behind_a_result_without_any_are_not_its_own():
    assert unpack(pack(result(data=None)) + b"more").data is None


# The entry point


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the page, as an installer would have left it."""
    page = PAGE.read_text(encoding="utf-8")
    (code,) = CODE.findall(page)
    (points,) = ENTRY_POINTS.findall(page)
    folder = tmp_path / "site-packages"
    metadata = folder / "trigear_files-1.0.dist-info"
    metadata.mkdir(parents=True)
    (folder / "trigear_files.py").write_text(code)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: trigear-files\nVersion: 1.0\n")
    group, lines = points
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + lines.replace('"', ""))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "trigear_files", raising=False)
    return folder


@pytest.fixture
def store(installed: Path, tmp_path: Path) -> Iterator[ResultStore]:
    store = result_store(f"files://{tmp_path}/kept")
    store.open()
    yield store
    store.close()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_the_store_of_the_page_keeps_its_promises(
    store: ResultStore, promise: Callable[[ResultStore], None]
):
    promise(store)


def test_the_store_of_the_page_drops_what_has_expired(installed: Path, tmp_path: Path):
    store = result_store(f"files://{tmp_path}/kept")
    store.open()
    store.put([result(unique=b"u", expires=START - 10), result(b"H:2", expires=START + 3600)])
    store.open()
    assert [each.handle for each in store.get([("default", b"H:1"), ("default", b"H:2")])] == [
        b"H:2"
    ]


def test_the_store_of_the_page_says_what_is_wrong(installed: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnusable, match=r"results: .*/file/kept: Not a directory"):
        result_store(f"files://{tmp_path}/file/kept").open()
    with pytest.raises(StoreUnavailable, match="files in"):
        result_store(f"files://{tmp_path}/file/kept").put([result()])


def test_a_scheme_that_nobody_knows_is_refused_with_those_that_there_are(installed: Path):
    with pytest.raises(ConfigError, match="at 'redis:' URLs; there is files; install one"):
        result_store("redis://x")


def test_where_there_are_none_at_all_it_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("trigear.stores.results.entry_points", lambda group: [])
    with pytest.raises(ConfigError, match="none is installed; install one that has an entry point"):
        result_store("files:///x")
