"""Writes the protocol and the command reference from the tables that the server runs on.

A page holds a line `<!-- generated: NAME -->`; while the page is read, the line is replaced by what
the function called NAME in GENERATORS makes of the tables. Nothing generated is kept in the tree,
so it cannot grow stale.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trigear.engine.settings import SETTINGS
from trigear.engine.tenants import QUOTAS
from trigear.security.policy import COMMAND_RULES, PACKET_RULES, Scope
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sphinx.application import Sphinx

    from trigear.engine.settings import Setting
    from trigear.engine.tenants import Quota
    from trigear.security.policy import Rule, Way
    from trigear.wire.commands import Command
    from trigear.wire.packets import Packet

PLACEHOLDER: Final = re.compile(r"^<!-- generated: (.*?) -->$", re.MULTILINE)

SIDE_NAMES: Final = {
    Side.CLIENT: "client",
    Side.WORKER: "worker",
    Side.ANY: "client or worker",
}


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def anchor(packet: Packet) -> str:
    return "packet-" + packet.name.lower().replace("_", "-")


def link(packet: Packet) -> str:
    return f"[{packet.name}](#{anchor(packet)})"


def way(packet: Packet) -> str:
    """Who sends the packet to whom."""
    asked, sent = SIDE_NAMES.get(packet.asked_by), SIDE_NAMES.get(packet.sent_to)
    if asked and sent:
        return f"{asked} → server → {sent}"
    return f"{asked} → server" if asked else f"server → {sent}"


def header(packet: Packet) -> str:
    """The first eight bytes of the packet, once for each magic it travels under."""
    number = packet.number.to_bytes(4, "big")
    magics = []
    if packet.asked_by:
        magics.append(b"\0REQ")
    if packet.sent_to:
        magics.append(b"\0RES")
    return " and ".join(f"`{(magic + number).hex(' ')}`" for magic in magics)


def argument_rows(packet: Packet) -> list[tuple[str, str, str]]:
    last = len(packet.args) - 1
    rows = []
    for position, name in enumerate(packet.args):
        ends = "with the packet" if position == last else "with a NUL byte"
        notes = []
        if position >= packet.least:
            notes.append("may be missing, then it reads as empty")
        if position == last and packet.strip_nul:
            notes.append("one NUL byte at its end is dropped")
        rows.append((f"`{name}`", ends, "; ".join(notes)))
    return rows


def packet_section(packet: Packet, packets: dict[int, Packet]) -> str:
    parts = [
        f"({anchor(packet)})=\n\n### {packet.number} · {packet.name}",
        packet.about,
        f":Way: {way(packet)}\n:Starts with: {header(packet)}",
    ]
    if packet.asked_by and not packet.served:
        parts.append("Not served: the answer is ERROR.")
    elif packet.replies:
        answers = " or ".join(link(packets[number]) for number in packet.replies)
        parts.append(f"Answered by {answers}.")
    elif packet.asked_by:
        parts.append("Has no reply.")
    if packet.args:
        parts.append(markdown_table(("argument", "ends", "note"), argument_rows(packet)))
    else:
        parts.append("No arguments.")
    return "\n\n".join(parts)


def packet_overview(packets: dict[int, Packet]) -> str:
    """One line for each packet type."""
    return markdown_table(
        ("type", "name", "way", "arguments"),
        (
            (
                str(packet.number),
                link(packet),
                way(packet),
                " · ".join(f"`{name}`" for name in packet.args) or "none",
            )
            for _, packet in sorted(packets.items())
        ),
    )


def packet_reference(packets: dict[int, Packet]) -> str:
    """One section for each packet type."""
    return "\n\n".join(packet_section(packet, packets) for _, packet in sorted(packets.items()))


def command_reference(commands: Sequence[Command]) -> str:
    """One section for each text command."""
    return "\n\n".join(command_section(command) for command in commands)


def command_section(command: Command) -> str:
    usage = " ".join([*command.words, *(name.upper() for name in command.args)])
    too_many = "is an error" if command.exact else "is not an error: the rest is ignored"
    fields = [
        f":Answer: {command.answer}",
        f":A word too many: {too_many}",
        f":From: {command.origin}",
    ]
    if command.login:
        fields.append(":Known: where peers have to say who they are")
    return "\n\n".join(
        [f"### {command.name}", f"```text\n{usage}\n```", command.about, "\n".join(fields)]
    )


def way_in_words(way: Way, *, reducer: bool) -> str:
    """What one way to a right asks for."""
    if not way.roles:
        return "any login"
    words = " and ".join(f"`{role.value}`" for role in way.roles)
    if way.globs_of is not None:
        words += f", and a `{way.globs_of.value}` glob that matches the function"
        words += " and the reducer" if reducer else ""
    return words + (" (whole server)" if way.scope is Scope.SERVER else "")


def needs(rule: Rule) -> str:
    """What a request asks for, in words."""
    if not rule.login:
        return "nothing, not even a login"
    ways = " or ".join(way_in_words(way, reducer=rule.reducer) for way in rule.ways)
    return f"{ways}; only {rule.condition}" if rule.condition else ways


def rights_table(rules: Mapping[str, Rule]) -> str:
    """One line for the requests that need the same."""
    lines: dict[str, list[str]] = {}
    for name, rule in rules.items():
        lines.setdefault(needs(rule), []).append(f"`{name}`")
    return markdown_table(
        ("requests", "need"), ((", ".join(names), need) for need, names in lines.items())
    )


def quotas_table(quotas: Iterable[Quota]) -> str:
    """One line for each quota of a tenant."""
    return markdown_table(
        ("quota", "what it limits", "default"),
        ((f"`{each.name}`", each.about, f"`{each.show(each.default)}`") for each in quotas),
    )


def settings_table(settings: Iterable[Setting]) -> str:
    """One line for each setting of a function."""
    return markdown_table(
        ("setting", "what it says", "as in"),
        ((f"`{each.name}`", each.about, f"`{each.example}`") for each in settings),
    )


GENERATORS: Final[dict[str, Callable[[], str]]] = {
    "packet overview": lambda: packet_overview(PACKETS),
    "packets": lambda: packet_reference(PACKETS),
    "extension overview": lambda: packet_overview(EXTENSIONS),
    "extensions": lambda: packet_reference(EXTENSIONS),
    "login overview": lambda: packet_overview(LOGINS),
    "logins": lambda: packet_reference(LOGINS),
    "commands": lambda: command_reference(COMMANDS),
    "settings": lambda: settings_table(SETTINGS),
    "quotas": lambda: quotas_table(QUOTAS),
    "rights": lambda: rights_table(PACKET_RULES | COMMAND_RULES),
}


def fill(text: str) -> str:
    """The page with every placeholder replaced. Raises KeyError for a name that is none."""
    return PLACEHOLDER.sub(lambda found: GENERATORS[found[1]](), text)


def fill_page(_app: Sphinx, _page: str, source: list[str]) -> None:
    source[0] = fill(source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", fill_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
