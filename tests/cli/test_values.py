from __future__ import annotations

from pathlib import Path

import pytest

from trigear.cli.values import (
    parse_duration,
    parse_network,
    parse_port,
    parse_size,
    parse_whole_seconds,
    spell_duration,
)

HTTP = "http" if Path("/etc/services").exists() else "80"
"""The name of a port, where this system knows names of ports."""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("0", 0),
        ("1.5", 1.5),
        (" 2 s ", 2),
        (45, 45),
        (0.25, 0.25),
    ],
)
def test_duration_has_a_unit_or_is_in_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5 minutes", "-1", "1e3", "nan", "inf", "5S", True, -3])
def test_what_is_no_duration_is_told_how_to_write_one(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration: write 500ms, 30s, 5m or 24h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (60, "1m"),
        (61, "1m 1s"),
        (3600, "1h"),
        (3605, "1h"),
        (90061, "1d 1h"),
    ],
)
def test_duration_is_spelt_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert spell_duration(seconds) == words


def test_whole_seconds_are_one_at_least_and_not_broken() -> None:
    assert parse_whole_seconds("2m") == 120
    for text in ("500ms", "0", "1.5s"):
        with pytest.raises(ValueError, match="whole number of seconds"):
            parse_whole_seconds(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65536),
        ("1GiB", 1 << 30),
        ("1.5KiB", 1536),
        ("2mb", 2_000_000),
        ("7", 7),
        (4096, 4096),
    ],
)
def test_size_has_a_unit_or_is_in_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1 zettabyte", "-5", "0.3"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a (size: write|whole number of bytes)"):
        parse_size(text)


def test_port_is_a_number_or_the_name_of_a_service() -> None:
    assert parse_port("4730") == 4730
    assert parse_port(0) == 0
    assert parse_port(HTTP) == 80
    with pytest.raises(ValueError, match="the last one is 65535"):
        parse_port("65536")
    with pytest.raises(ValueError, match="neither a port nor the name of a service"):
        parse_port("-1")


def test_network_is_given_back_in_its_own_notation() -> None:
    assert parse_network("10.0.0.0/8") == "10.0.0.0/8"
    assert parse_network("::1") == "::1/128"


def test_network_with_bits_too_many_is_told_which_one_was_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean 10\.0\.0\.0/8\?"):
        parse_network("10.0.0.1/8")
    with pytest.raises(ValueError, match="is not a network"):
        parse_network("localhost")
