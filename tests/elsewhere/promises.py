"""What every store of results has to do, whoever wrote it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from trigear.stores.results import DONE, Result

if TYPE_CHECKING:
    from trigear.stores.results import ResultStore

START = float(int(time.time()))


def result(handle: bytes = b"H:1", data: bytes | None = b"data", **other: object) -> Result:
    made = Result(
        tenant="default",
        handle=handle,
        function=b"f",
        unique=b"",
        state=DONE,
        attempts=1,
        ended=START,
        expires=START + 86400,
        data=data,
    )
    return made._replace(**other)


def gives_back_what_it_was_given(store: ResultStore) -> None:
    everything = [
        result(b"H:1"),
        result(b"H:2", b""),
        result(b"H:3", None),
        result(b"H:4", bytes(range(256)) * 100),
        result(b"H:5", b"{}\n\0", function=b"f g\xff", unique=b"\xfe u", tenant="größe"),
        result(b"H:6", b"bang", state="exception", attempts=3, ended=START + 0.125),
    ]
    store.put(everything)
    keys = [(each.tenant, each.handle) for each in everything]
    assert sorted(store.get(keys)) == sorted(everything)
    assert list(store.get([keys[4]])) == [everything[4]]


def knows_nothing_else(store: ResultStore) -> None:
    assert list(store.get([("default", b"H:1")])) == []
    assert list(store.find([("default", b"f", b"u")])) == []
    store.put([result(b"H:1", tenant="red", unique=b"u")])
    assert list(store.get([("default", b"H:1"), ("red", b"H:2")])) == []
    assert list(store.find([("default", b"f", b"u"), ("red", b"g", b"u")])) == []
    assert list(store.find([("red", b"f", b"v")])) == []


def keeps_one_result_for_each_handle(store: ResultStore) -> None:
    store.put([result(data=b"first")])
    store.put([result(data=b"second"), result(b"H:2")])
    store.put([result(data=b"second")])
    assert [each.data for each in store.get([("default", b"H:1")])] == [b"second"]


def finds_the_newest_success(store: ResultStore) -> None:
    store.put([result(b"H:1", b"old", unique=b"u"), result(b"H:2", b"new", unique=b"u")])
    store.put([result(b"H:3", b"", unique=b"u", state="failed")])
    store.put([result(b"H:4", b"other", unique=b"u", function=b"g")])
    keys = [("default", b"f", b"u"), ("default", b"g", b"u"), ("default", b"f", b"")]
    assert sorted(each.data for each in store.find(keys) if each.data) == [b"new", b"other"]


def drops_what_it_is_told_to(store: ResultStore) -> None:
    store.put([result(b"H:1", unique=b"u"), result(b"H:2", unique=b"v")])
    store.delete([("default", b"H:1"), ("default", b"H:never")])
    assert [each.handle for each in store.get([("default", b"H:1"), ("default", b"H:2")])] == [
        b"H:2"
    ]
    assert list(store.find([("default", b"f", b"u")])) == []


def has_a_name_and_can_be_closed_twice(store: ResultStore) -> None:
    assert store.name.isprintable()
    store.close()
    store.close()


PROMISES = (
    gives_back_what_it_was_given,
    knows_nothing_else,
    keeps_one_result_for_each_handle,
    finds_the_newest_success,
    drops_what_it_is_told_to,
    has_a_name_and_can_be_closed_twice,
)
