"""The reference pages say what the tables say, whatever the tables say."""

from __future__ import annotations

import dataclasses
import re
import runpy
from pathlib import Path

import pytest

from trigear.security.policy import COMMAND_RULES, PACKET_RULES, Role, Rule, Scope, Way
from trigear.security.users import SETTINGS
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import CAN_DO, GET_STATUS, PACKETS, STATUS_RES, WORK_STATUS

DOCS = Path(__file__).parent.parent / "docs"
TABLES = runpy.run_path(str(DOCS / "_ext" / "trigear_tables.py"))


def test_every_packet_type_has_its_line_and_its_section() -> None:
    page = TABLES["fill"]((DOCS / "protocol.md").read_text(encoding="utf-8"))
    for packet in PACKETS.values():
        assert f"### {packet.number} · {packet.name}\n" in page
        assert f"\n| {packet.number} | [{packet.name}](" in page
    assert "<!-- generated" not in page


def test_every_command_has_its_section() -> None:
    page = TABLES["fill"]((DOCS / "admin.md").read_text(encoding="utf-8"))
    for command in COMMANDS:
        assert f"### {command.name}\n" in page
        assert f":Answer: {command.answer}\n" in page
    assert "<!-- generated" not in page


def test_every_request_has_its_place_in_the_table_of_rights() -> None:
    page = TABLES["fill"]((DOCS / "security.md").read_text(encoding="utf-8"))
    table = page.partition("\n## Rights\n")[2]
    for name in (*PACKET_RULES, *COMMAND_RULES):
        assert table.count(f"`{name}`") == 1, name
    assert "<!-- generated" not in page


def test_a_line_of_the_table_of_rights_says_what_the_rule_says() -> None:
    rules = {
        "open": Rule(login=False),
        "held": Rule(condition="of a job it holds"),
        "reduce": Rule((Way((Role.SUBMIT,), Role.SUBMIT),), reducer=True),
        "see": Rule((Way((Role.OPERATOR,), scope=Scope.SERVER), Way((Role.ADMIN,)))),
        "look": Rule((Way((Role.OPERATOR,), scope=Scope.SERVER), Way((Role.ADMIN,)))),
        "start": Rule((Way((Role.ADMIN, Role.SUBMIT), Role.SUBMIT),)),
    }
    assert TABLES["rights_table"](rules).splitlines()[2:] == [
        "| `open` | nothing, not even a login |",
        "| `held` | any login; only of a job it holds |",
        "| `reduce` | `submit`, and a `submit` glob that matches the function and the reducer |",
        "| `see`, `look` | `operator` (whole server) or `admin` |",
        "| `start` | `admin` and `submit`, and a `submit` glob that matches the function |",
    ]


def test_every_setting_of_a_user_is_explained_and_no_other() -> None:
    page = (DOCS / "security.md").read_text(encoding="utf-8")
    table = page.partition("\n| setting | means |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(SETTINGS)


def test_a_change_in_the_packet_table_shows_on_the_page() -> None:
    renamed = dataclasses.replace(PACKETS[CAN_DO], name="MAY_DO", args=("what", "how long"))
    page = TABLES["packet_reference"]({CAN_DO: renamed})
    assert "### 1 · MAY_DO" in page
    assert "| `what` | with a NUL byte |" in page
    assert "| `how long` | with the packet |" in page


def test_a_section_tells_way_header_reply_and_loose_arguments() -> None:
    page = TABLES["packet_section"](PACKETS[GET_STATUS], PACKETS)
    assert "client → server\n" in page
    assert "`00 52 45 51 00 00 00 0f`" in page
    assert f"Answered by [{PACKETS[STATUS_RES].name}](" in page
    page = TABLES["packet_section"](PACKETS[WORK_STATUS], PACKETS)
    assert "worker → server → client\n" in page
    assert "`00 52 45 51 00 00 00 0c` and `00 52 45 53 00 00 00 0c`" in page
    assert "Has no reply." in page
    assert "| `denominator` | with the packet | may be missing" in page


def test_a_pipe_in_a_cell_does_not_start_another_cell() -> None:
    assert TABLES["markdown_table"](("a",), [("x|y",)]) == "| a |\n| --- |\n| x\\|y |"


def test_a_placeholder_that_nobody_fills_stops_the_build() -> None:
    with pytest.raises(KeyError, match="nonsense"):
        TABLES["fill"]("before\n<!-- generated: nonsense -->\nafter")
