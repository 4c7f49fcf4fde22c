"""Extended mode has its own part of the protocol's reference, made from its own table."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path

from trigear.wire.packets import EXTENSIONS, JOB_CANCELLED, JOB_RELEASE, PACKETS

DOCS = Path(__file__).parent.parent / "docs"
TABLES = runpy.run_path(str(DOCS / "_ext" / "trigear_tables.py"))


def parts() -> tuple[str, str]:
    """What the page says before extended mode, and of it."""
    page = TABLES["fill"]((DOCS / "protocol.md").read_text(encoding="utf-8"))
    before, title, after = page.partition("\n## Extended mode\n")
    assert title
    return before, after


def test_every_extension_has_its_line_and_its_section_in_extended_mode() -> None:
    before, after = parts()
    for packet in EXTENSIONS.values():
        for line in (
            f"### {packet.number} · {packet.name}\n",
            f"\n| {packet.number} | [{packet.name}](",
            packet.about,
        ):
            assert line in after
            assert line not in before


def test_gearmans_own_packets_stay_out_of_extended_mode() -> None:
    _, after = parts()
    assert "<!-- generated" not in after
    assert [p.name for p in PACKETS.values() if f"· {p.name}\n" in after] == []


def test_a_section_tells_who_says_it_and_that_nothing_answers() -> None:
    page = TABLES["packet_section"](EXTENSIONS[JOB_RELEASE], EXTENSIONS)
    assert ":Way: worker → server\n" in page
    assert "`00 52 45 51 00 00 00 6c`" in page
    assert "Has no reply." in page
    page = TABLES["packet_section"](EXTENSIONS[JOB_CANCELLED], EXTENSIONS)
    assert ":Way: server → worker\n" in page
    assert "`00 52 45 53 00 00 00 71`" in page
    assert "reply" not in page


def test_a_change_in_the_table_shows_in_extended_mode() -> None:
    renamed = dataclasses.replace(EXTENSIONS[JOB_RELEASE], name="JOB_BACK", args=("why",))
    assert "| 108 | [JOB_BACK](#packet-job-back) | worker → server | `why` |" in (
        TABLES["packet_overview"]({JOB_RELEASE: renamed})
    )
