"""What can be said about a function: how it is written, and who wins."""

from __future__ import annotations

from typing import Any

import pytest

from trigear.broker.functions import Rules
from trigear.engine.config import Auto, EngineConfig, FunctionSettings, OnTimeout
from trigear.engine.rules import RuleBook
from trigear.engine.settings import BY_NAME, SETTINGS
from trigear.errors import ConfigError
from trigear.model import Now, show_duration
from trigear.stores.base import Erase, Record

NOW = Now(100.0, 1_800_000_000.0)
PLAIN = EngineConfig()


@pytest.mark.parametrize(
    ("name", "written", "value", "shown"),
    [
        ("timeout", "90s", 90.0, "90s"),
        ("timeout", 2, 2.0, "2s"),
        ("on-timeout", "fail", OnTimeout.FAIL, "fail"),
        ("attempts", 3, 3, "3"),
        ("attempts", "0", 0, "0"),
        ("attempts", "9" * 5000, int("9" * 18), "9" * 18),
        ("retry-failures", True, True, "yes"),
        ("retry-failures", "Off", False, "no"),
        ("backoff", "auto", Auto.AUTO, "auto"),
        ("backoff", "0.5", 0.5, "500ms"),
        ("backoff", 0, 0.0, "0s"),
        ("backoff-factor", 1.5, 1.5, "1.5"),
        ("backoff-factor", "2", 2.0, "2"),
        ("backoff-limit", "1h", 3600.0, "1h"),
        ("expires", "7d", 7 * 86400.0, "7d"),
        ("dead-letters", "no", False, "no"),
        ("dead-failures", "on", True, "yes"),
        ("dead-keep", "90d", 90 * 86400.0, "90d"),
        ("maxqueue", 5, (5, 5, 5), "5 5 5"),
        ("maxqueue", [1, 2, 0], (1, 2, 0), "1 2 0"),
        ("maxqueue", "1 2 3", (1, 2, 3), "1 2 3"),
        ("paused", "true", True, "yes"),
        ("keep-results", "24h", 86400.0, "1d"),
        ("keep-results-count", "5", 5, "5"),
        ("keep-results-size", "64MiB", 64 << 20, "64MiB"),
        ("keep-results-size", "0", 0, "0"),
        ("keep-results-size", 1500, 1500, "1500"),
        ("reuse-results", "no", False, "no"),
    ],
)
def test_a_setting_is_read_and_shown(name: str, written: object, value: object, shown: str) -> None:
    setting = BY_NAME[name]
    found = setting.parse(written)
    assert (found, type(found)) == (value, type(value))
    assert setting.show(found) == shown
    assert setting.parse(shown) == setting.parse(setting.plain(found)) == found


@pytest.mark.parametrize(
    ("name", "written", "says"),
    [
        ("timeout", "soon", "'soon' is not a duration: write 500ms, 30s, 5m or 24h"),
        ("expires", "4000d", "'4000d' is longer than ten years"),
        ("dead-keep", "9" * 400, "is longer than ten years"),
        ("backoff-limit", "0", "'0' is no time at all"),
        ("on-timeout", "panic", "'panic' is not one of reassign, fail"),
        ("attempts", True, "'True' is not a number of attempts"),
        ("attempts", 1.5, "'1.5' is not a number of attempts"),
        ("attempts", "\N{SUPERSCRIPT TWO}", "is not a number of attempts"),
        ("backoff-factor", "x", "'x' is not a number"),
        ("backoff-factor", "0.5", "'0.5' is not between 1 and 1000"),
        ("backoff-factor", "nan", "'nan' is not between 1 and 1000"),
        ("retry-failures", "maybe", "'maybe' is neither yes nor no"),
        ("retry-failures", 1, "'1' is neither yes nor no"),
        ("maxqueue", "1 2", "'1 2' is neither one number nor three"),
        ("maxqueue", "", "'' is neither one number nor three"),
        ("maxqueue", [1, 2, "x"], "'x' is not a number of jobs"),
        ("keep-results-count", "0", "at least one result has to be kept"),
        ("keep-results-size", "much", "is not a size"),
    ],
)
def test_what_is_no_value_is_refused(name: str, written: object, says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are what matters
        BY_NAME[name].parse(written)
    assert says in str(caught.value)


def test_every_setting_has_a_default_and_a_place_in_the_file() -> None:
    for setting in SETTINGS:
        default = setting.default
        if default is None:
            default = getattr(PLAIN, setting.field)
        assert setting.parse(setting.plain(default)) == default
        assert getattr(FunctionSettings(), setting.field) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.25, "250ms"), (1.5, "1.5s"), (60, "1m"), (86400, "1d"), (5400, "90m")],
)
def test_durations_are_shown_in_their_largest_unit(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"backoff": -1.0}, "backoff: -1.0 is negative; use 0 for no delay"),
        ({"backoff_factor": 0.9}, "backoff-factor: 0.9 is below 1; use 1 for equal delays"),
        ({"backoff_limit": 0.0}, "backoff-limit: 0.0 is no time; use a backoff of 0 for none"),
        ({"expires": -1.0}, "expires: -1.0 is negative; use 0 for no limit"),
        ({"dead_keep": -1.0}, "dead-keep: -1.0 is negative; use 0 for ever"),
    ],
)
@pytest.mark.parametrize("kind", [FunctionSettings, EngineConfig])
def test_settings_out_of_range_are_refused(kind: Any, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        kind(**settings)
    assert str(caught.value) == says


# Who wins


def values_of(book: RuleBook, function: bytes = b"f") -> dict[str, tuple[str, str]]:
    return {
        setting.name: (setting.show(value), origin)
        for setting, value, origin in book.explain("default", function)
    }


def test_a_command_wins_over_the_file_and_the_file_over_the_default() -> None:
    book = RuleBook(EngineConfig(attempts=4, functions={b"f": FunctionSettings(attempts=5)}))
    assert values_of(book)["attempts"] == ("5", "file")
    assert values_of(book, b"g")["attempts"] == ("4", "default")
    book.set("default", b"f", "attempts", 6)
    assert values_of(book)["attempts"] == ("6", "command")
    assert book.rules("default", b"f").attempts == 6
    assert book.rules("other", b"f").attempts == 5
    # Zero and no are values like others.
    book.set("default", b"f", "attempts", 0)
    assert values_of(book)["attempts"] == ("0", "command")
    assert book.reset("default", b"f", "attempts")
    assert not book.reset("default", b"f", "attempts")
    assert values_of(book)["attempts"] == ("5", "file")


def test_everything_that_was_set_can_be_reset_at_once() -> None:
    book = RuleBook(PLAIN)
    book.set("default", b"f", "attempts", 6)
    book.set("default", b"f", "paused", True)
    book.set("default", b"g", "paused", True)
    assert book.functions("default") == [b"f", b"g"]
    assert book.functions("other") == []
    assert not book.reset("default", b"f", "expires")
    assert book.reset("default", b"f")
    assert book.functions("default") == [b"g"]
    assert not book.reset("default", b"h")


def test_rules_of_a_server_that_says_nothing() -> None:
    assert RuleBook(PLAIN).rules("default", b"f") == Rules(
        attempts=10,
        at_once=1,
        backoff=1.0,
        backoff_factor=2.0,
        backoff_limit=300.0,
        dead_letters=True,
    )


def test_a_backoff_that_is_named_holds_from_the_first_loss_on() -> None:
    rules = RuleBook(EngineConfig(backoff=3.0)).rules("default", b"f")
    assert (rules.at_once, rules.backoff) == (0, 3.0)


def test_whether_any_function_reuses_results_is_known_beforehand() -> None:
    own = FunctionSettings(keep_results=1.0, reuse_results=True)
    book = RuleBook(PLAIN)
    assert not book.reusing
    book.set("default", b"f", "reuse-results", True)
    assert book.reusing
    book.reset("default", b"f")
    assert not book.reusing
    book.config = EngineConfig(functions={b"f": own})
    assert book.reusing
    again = RuleBook(PLAIN)
    record = Record("setting", "default", b"f", 0, b"f", "", b"", 0.0)
    again.kind().restore(record, {"reuse-results": "yes"}, NOW)
    assert again.reusing


# On record


def test_what_was_set_for_a_function_is_one_record() -> None:
    book = RuleBook(PLAIN)
    book.set("default", b"f", "backoff", Auto.AUTO)
    book.set("default", b"f", "maxqueue", (1, 2, 3))
    line = book.line("default", b"f", 7)
    assert line == Record(
        *("setting", "default", b"f", 7, b"f", '{"backoff":"auto","maxqueue":"1 2 3"}', b"", 0.0)
    )
    book.reset("default", b"f")
    assert book.line("default", b"f", 7) == Erase("setting", "default", b"f", 7)


def test_what_was_set_is_restored() -> None:
    book = RuleBook(PLAIN)
    book.set("default", b"f", "backoff", Auto.AUTO)
    book.set("default", b"f", "expires", 5400.0)
    line = book.line("default", b"f", 0)
    assert isinstance(line, Record)
    again = RuleBook(PLAIN)
    again.kind().restore(line, {"backoff": "auto", "expires": "90m"}, NOW)
    assert values_of(again) == values_of(book)
    again.kind().restore(line._replace(key=b"g"), {}, NOW)
    assert again.functions("default") == [b"f"]


@pytest.mark.parametrize(
    ("about", "says"),
    [({"backof": "1s"}, "no setting is called backof"), ({"expires": "soon"}, "not a duration")],
)
def test_a_record_that_makes_no_sense_changes_nothing(about: dict[str, str], says: str) -> None:
    book = RuleBook(PLAIN)
    record = Record("setting", "default", b"f", 0, b"f", "", b"", 0.0)
    with pytest.raises(ValueError, match=says):
        book.kind().restore(record, {"attempts": "1", **about}, NOW)
    assert book.functions("default") == []
