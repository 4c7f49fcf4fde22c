"""Records of a store find their way back to who wrote them; what makes no sense is passed over."""

from __future__ import annotations

import logging

import pytest

from tests.stores import places
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.engine.records import Kind
from trigear.model import Now
from trigear.stores.base import SpoiltRecord

NOW = Now(100.0, 1_800_000_000.0)


def record(key: bytes, **other):
    return places.record(key, kind="thing", **other)


def engine_with(restored: list) -> Engine:
    engine = Engine(EngineConfig(), lambda *_: b"H:1", NOW, durable=True)
    engine.kinds.register(
        Kind("thing", lambda entry, about, now: restored.append((entry, about["reason"], now)))
    )
    return engine


def test_a_record_goes_to_whoever_registered_its_kind():
    restored = []
    engine = engine_with(restored)
    engine.restore_records([record(b"a"), record(b"b", about='{"reason": "x"}')], NOW)
    assert restored == [
        (record(b"a"), "lost", NOW),
        (record(b"b", about='{"reason": "x"}'), "x", NOW),
    ]
    assert [kind.name for kind in engine.kinds][-1] == "thing"
    assert engine.spoilt == 0


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (record(b"b", about="{}"), "'reason' is missing"),
        (record(b"b", about="[]"), "about: is no JSON object"),
        (record(b"b", about="moths"), "Expecting value"),
        (SpoiltRecord("thing", "default", b"b", 0, "layout 99"), "layout 99"),
    ],
)
def test_a_record_that_makes_no_sense_is_logged_and_passed_over(entry, why, caplog):
    restored = []
    engine = engine_with(restored)
    with caplog.at_level(logging.ERROR):
        engine.restore_records([record(b"a"), entry, record(b"c")], NOW)
    assert [kept.key for kept, _, _ in restored] == [b"a", b"c"]
    assert engine.spoilt == 1
    assert f"thing b of tenant default in the store makes no sense and stays there: {why}" in (
        caplog.text
    )


def test_a_record_whose_names_are_none_is_logged_and_passed_over(caplog):
    engine = engine_with([])
    entry = SpoiltRecord("thing", b"\xff", "text", None, "key, tenant: not of their kind")
    engine.restore_records([entry], NOW)
    assert engine.spoilt == 1
    assert "thing text of tenant \\xff in the store makes no sense and stays there: key" in (
        caplog.text
    )


def test_a_record_without_a_tenant_is_nobodys(caplog):
    restored = []
    engine = engine_with(restored)
    engine.restore_records([record(b"a", tenant="")], NOW)
    assert restored == []
    assert engine.spoilt == 1
    assert "it has no tenant" in caplog.text
