"""Addresses, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.errors import ConfigError
from trigear.runtime.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost", Address("localhost", 4730)),
        ("jobs.example:4731", Address("jobs.example", 4731)),
        ("10.0.0.7:0", Address("10.0.0.7", 0)),
        ("gearman://jobs.example", Address("jobs.example", 4730)),
        ("GEARMAN://jobs.example:99/", Address("jobs.example", 99)),
        ("::1", Address("::1", 4730)),
        ("[::1]", Address("::1", 4730)),
        ("[fe80::1%eth0]:4731", Address("fe80::1%eth0", 4731)),
        ("gearmans://jobs.example", Address("jobs.example", 4730, tls=True)),
        ("GEARMANS://[::1]:4731/", Address("::1", 4731, tls=True)),
        ("gearman://[::1]:4731", Address("::1", 4731)),
        ("unix:/run/trigear.sock", Address(path="/run/trigear.sock")),
        ("unix:jobs.sock", Address(path="jobs.sock")),
        ("unix:///run/trigear.sock", Address(path="/run/trigear.sock")),
    ],
)
def test_each_form_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["localhost:4730", "[::1]:4730", "unix:/run/a:b.sock"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(parse_address(text)) == text


def test_the_port_of_an_address_without_one_can_be_chosen() -> None:
    assert parse_address("localhost", default_port=7003).port == 7003
    assert parse_address("localhost:1", default_port=7003).port == 1


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' names no host; write HOST, HOST:PORT"),
        (":4730", "names no host"),
        ("gearman://", "names no host"),
        ("local host", "no usable host: 'local host'"),
        ("gearman://user@host", "no usable host"),
        ("host/path", "no usable host"),
        ("host:", "no usable port: ''; a port is a number up to 65535"),
        ("host:gearman", "no usable port: 'gearman'"),
        ("host:65536", "no usable port"),
        ("host:-1", "no usable port"),
        ("host:٣", "no usable port"),
        ("host:0000004730", "no usable port"),
        ("a:b:c", "too many colons"),
        ("[::1", "no IPv6 address in brackets"),
        ("[::1]4730", "no IPv6 address in brackets"),
        ("[localhost]:4730", "no IPv6 address in brackets"),
        ("http://localhost", "is a http address; write HOST"),
        ("unix:", "names no path; write unix:PATH"),
        ("unix:/" + "x" * 107, "at most 107 bytes, no NUL; use a shorter path"),
        ("unix:/a\0b", "at most 107 bytes, no NUL"),
    ],
)
def test_what_is_no_address_gets_one_line_with_a_remedy(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text, setting="--server")
    assert caught.value.setting == "--server"
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_an_address_or_a_configuration_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert parse_address(str(address)) == address
