"""Every request that a server understands has a line in the table of rights.

A request without one is refused to everybody: whoever adds a packet or a text command says here
who may use it, in `trigear/security/policy.py`.
"""

from __future__ import annotations

from trigear.security.policy import COMMAND_RULES, PACKET_RULES
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS, Side

# Lines of the table for requests that the tables of wire/ do not have yet.
PACKETS_TO_COME: set[str] = set()
COMMANDS_TO_COME = {"metrics"}


def compared(in_table: set[str], in_wire: set[str], to_come: set[str]) -> list[str]:
    """One line for each difference."""
    return [
        *(f"{name}: no line in policy.py says who may" for name in in_wire - in_table),
        *(f"{name}: has a line, and is no request" for name in in_table - in_wire - to_come),
        *(f"{name}: has come; take it out of the list above" for name in in_wire & to_come),
    ]


def test_every_packet_that_a_peer_may_send_has_its_line() -> None:
    rows = (*PACKETS.values(), *EXTENSIONS.values(), *LOGINS.values())
    requests = {row.name for row in rows if row.asked_by != Side.NONE}
    assert compared(set(PACKET_RULES), requests, PACKETS_TO_COME) == []


def test_every_text_command_has_its_line() -> None:
    names = {command.name for command in COMMANDS}
    assert compared(set(COMMAND_RULES), names, COMMANDS_TO_COME) == []


def test_the_comparison_finds_each_kind_of_difference() -> None:
    assert len(compared({"a"}, {"a", "b"}, set())) == 1
    assert len(compared({"a", "b"}, {"a"}, set())) == 1
    assert len(compared({"a"}, {"a"}, {"a"})) == 1
    assert compared({"a", "b"}, {"a"}, {"b"}) == []
