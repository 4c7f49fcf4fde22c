"""`[[listener]]` and `[networks]` in `trigear.toml`: what they mean, and what is said of
mistakes."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.cli.test_config_file import plan_for
from tests.security.certificates import SERVER, Authority
from trigear.cli import exposure, logins
from trigear.cli.serve import fixed_settings
from trigear.engine.doors import Way
from trigear.errors import ConfigError
from trigear.security.policy import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Running, Said
    from trigear.cli.plan import Plan

NETWORKS = """
[networks]
"10.0.0.0/8" = { tenant = "wide", roles = ["submit"] }
"10.1.0.0/16" = { tenant = "acme", roles = ["submit", "work"], work = ["f*"] }
"""


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    def plan(text: str, *args: str) -> Plan:
        path = tmp_path / "trigear.toml"
        path.write_text(text, encoding="utf-8")
        return plan_for("--config", str(path), *args)

    return plan


def refusal(planned: Callable[..., Plan], text: str, *args: str) -> str:
    with pytest.raises(ConfigError) as caught:
        planned(text, *args)
    return str(caught.value).partition("trigear.toml: ")[2] or str(caught.value)


def test_an_address_has_its_own_ways_and_networks(planned: Callable[..., Plan]) -> None:
    plan = planned(
        """
        [server]
        auth = "sasl"
        allow = "192.0.2.0/24"

        [[listener]]
        address = "127.0.0.1:4731"

        [[listener]]
        address = "unix:run.sock"
        auth = ["peer", "sasl"]

        [[listener]]
        address = "127.0.0.1:4732"
        auth = "network"
        allow = ["10.0.0.0/8"]
        networks."10.1.0.0/16" = { tenant = "acme", roles = ["submit", "work"], work = ["f*"] }
        """
    )
    config = plan.config
    assert config.listen == ("127.0.0.1:4731", "unix:/start/run.sock", "127.0.0.1:4732")
    assert config.own("127.0.0.1:4731").door is None
    beside, network = (config.own(text) for text in config.listen[1:])
    assert beside.door is not None
    assert beside.door.ways == {Way.PEER, Way.SASL}
    assert beside.allow is None
    assert network.allow == ("10.0.0.0/8",)
    assert network.door is not None
    who = network.door.networks.find("10.1.2.3")
    assert who is not None
    assert (who.principal, who.tenant) == ("net:10.1.0.0/16", "acme")
    assert who.roles == {Role.SUBMIT, Role.WORK}
    assert who.work(b"foo")
    assert not who.work(b"g")
    assert plan.logins is not None
    assert plan.logins.door.ways == {Way.SASL}


def test_listen_adds_to_the_addresses_of_the_file(planned: Callable[..., Plan]) -> None:
    one = '[[listener]]\naddress = "127.0.0.1:4731"\n'
    assert planned(one).config.listen == ("127.0.0.1:4731",)
    assert planned(one, "--listen", "::1").config.listen == ("::1", "127.0.0.1:4731")
    said = refusal(planned, one, "--listen", "127.0.0.1:4731")
    assert said == (
        "[[listener]] 1 address: 127.0.0.1:4731 is named by --listen as well; name it once"
    )


def test_networks_hold_for_every_address_that_names_no_others(
    planned: Callable[..., Plan],
) -> None:
    plan = planned(NETWORKS, "--auth", "network", "--listen", "0.0.0.0:4730")
    assert plan.logins is not None
    assert plan.logins.door.networks.tenants == {"wide", "acme"}
    wide = {"0.0.0.0:4730": "0.0.0.0:4730"}
    (note,) = logins.judged(wide, plan.config, plan.logins, insecure_open=False)
    assert note.startswith("known by their addresses alone: 0.0.0.0:4730; whoever can take")
    own = planned(NETWORKS + '[[listener]]\naddress = "127.0.0.1"\nauth = ["network"]\n')
    door = own.config.own("127.0.0.1").door
    assert door is not None
    assert door.networks == plan.logins.door.networks


def test_each_address_is_judged_by_its_own_ways(planned: Callable[..., Plan]) -> None:
    text = '[[listener]]\naddress = "0.0.0.0:1"\nauth = "{}"\n[[listener]]\naddress = "[::1]:2"\n'
    wide = exposure.wide_addresses(planned(text.format("none")).config)
    assert wide == {"0.0.0.0:1": "0.0.0.0:1"}

    def judged(auth: str, *args: str, insecure_open: bool = False) -> list[str]:
        plan = planned(text.format(auth), *args)
        return logins.judged(wide, plan.config, plan.logins, insecure_open=insecure_open)

    with pytest.raises(ConfigError, match="nobody is asked who they are"):
        judged("none", "--auth", "sasl")
    (note,) = judged("none", "--auth", "sasl", insecure_open=True)
    assert note.startswith("open to other machines without authentication: 0.0.0.0:1;")
    with pytest.raises(ConfigError, match="logins beyond this machine need TLS"):
        judged("sasl", insecure_open=True)


def test_an_address_has_its_own_certificate(planned: Callable[..., Plan], tmp_path: Path) -> None:
    certificate, key = Authority().issue("localhost", usage=[SERVER]).write(tmp_path, "server")
    table = '[[listener]]\naddress = "{}"\n'
    files = f'cert = "{certificate}"\nkey = "{key}"\n'
    plan = planned(table.format("gearmans://127.0.0.1:1") + files + 'tls-min = "1.3"')
    tls = plan.config.own("gearmans://127.0.0.1:1").tls
    assert tls is not None
    assert (tls.certificate, tls.minimum) == (certificate, "1.3")
    assert plan.config.tls is None
    common = planned(f"[server]\n{files}" + table.format("gearmans://127.0.0.1:1"))
    assert common.config.tls is not None
    assert common.config.own("gearmans://127.0.0.1:1").tls is None
    assert refusal(planned, table.format("127.0.0.1:1") + files) == (
        "[[listener]] 1 (127.0.0.1:1): cert: of no use without TLS; write gearmans://HOST:PORT"
    )
    only = table.format("gearmans://127.0.0.1:1") + f'cert = "{certificate}"'
    assert "of no use without its key" in refusal(planned, only)
    assert "there is no certificate" in refusal(planned, table.format("gearmans://127.0.0.1:1"))


def test_options_say_how_long_and_how_many_may_wait(planned: Callable[..., Plan]) -> None:
    plan = planned(
        "[server]\nlimit-exempt = []\nmax-unauthenticated = 7\n",
        *("--auth", "sasl", "--auth-deadline", "3s", "--no-drop-on-password-change"),
        *("--users", "/nowhere/users.toml"),
        *("--max-unauthenticated-per-address", "0"),
    )
    assert plan.logins is not None
    assert plan.logins.deadline == 3
    assert not plan.logins.drop_on_password_change
    config = plan.config
    assert config.limit_exempt == ()
    assert (config.max_unauthenticated, config.max_unauthenticated_per_address) == (7, 0)
    users = logins.Users(plan.logins, only_look=True)
    assert users.logins.deadline == 3
    assert not users.logins.drop_on_password_change


def test_what_an_address_has_stays_as_it_was_at_the_start_but_for_its_files(
    planned: Callable[..., Plan], tmp_path: Path
) -> None:
    files = [
        Authority().issue("localhost", usage=[SERVER]).write(tmp_path, name)
        for name in ("one", "two")
    ]
    text = '[[listener]]\naddress = "gearmans://127.0.0.1:1"\ncert = "{}"\nkey = "{}"\n'
    first, second = (fixed_settings(planned(text.format(*pair)).config) for pair in files)
    assert first == second
    other = fixed_settings(planned(text.format(*files[0]) + 'allow = "::1"\n').config)
    assert [name for name in first if first[name] != other[name]] == ["listeners"]


ONE = '[[listener]]\naddress = "127.0.0.1:1"\n'


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("listener = 1", (), "listener: is not a list of tables; write [[listener]] above its"),
        ("listener = [1]", (), "listener: is not a table; write [listener] above its keys"),
        ("[[listener]]", (), '[[listener]] 1: has no address; write address = "HOST:PORT"'),
        (ONE + "adress = 1", (), "[listener 1] adress: no such setting; did you mean 'address'?"),
        ('[[listener]]\naddress = ":x"', (), "[[listener]] 1 address: ':x' names no host"),
        (ONE + ONE, (), "[[listener]] 2 address: is there twice; take one of them out"),
        (ONE + "auth = true", (), "[[listener]] 1 auth: takes text or a number, or a list"),
        (ONE + 'auth = ["magic"]', (), "[[listener]] 1 auth: 'magic' is not one of 'none', 'sasl'"),
        (ONE + "auth = []", (), "[[listener]] 1 (127.0.0.1:1): auth: nobody could come in"),
        (ONE + 'auth = ["none", "sasl"]', (), "auth: none and sasl contradict each other"),
        (ONE + 'auth = "mtls"', (), "auth mtls: no client is asked for a certificate"),
        (ONE + 'auth = "peer"', (), "auth peer: there is no Unix socket; add --listen unix:PATH"),
        (ONE + 'auth = "network"', (), "auth network: no network is listed; write [networks]"),
        (
            '[[listener]]\naddress = "unix:x"\nauth = "network"' + NETWORKS,
            (),
            "[[listener]] 1 (unix:x): auth network: only plain TCP goes by addresses",
        ),
        (
            ONE + 'networks."::1" = { tenant = "a", roles = ["submit"] }',
            ("--auth", "sasl"),
            "[[listener]] 1 (127.0.0.1:1): networks: of no use without it; write auth =",
        ),
        (NETWORKS, (), '[networks]: of no use here; write auth = ["network"] under [server]'),
        ("[networks]\nx = 1", (), "[networks] x: is no table; write { tenant ="),
        (
            '[networks]\nx = { tenant = "a" }',
            (),
            "[networks]: networks.x: 'x' is no network; write 10.0.0.0/8 or ::1",
        ),
        ('[networks]\n"::1" = { tenant = "a/b" }', (), "tenant: 'a/b' is no tenant name; write"),
        ('[networks]\n"::1" = { roles = [] }', (), "tenant: None is no tenant name; write one"),
        (
            '[networks]\n"::1" = { tenant = "a", roles = ["admin"] }',
            (),
            "[networks]: networks.::1: the role admin cannot be had by an address; give it to a"
            " user who logs in",
        ),
        (
            '[networks]\n"::1" = { tenant = "a", roles = ["king"] }',
            (),
            "[networks] ::1 roles: 'king' is no role; write submit, work or both",
        ),
        (
            '[networks]\n"::1" = { tenant = "a", submit = "f" }',
            (),
            "[networks] ::1 submit: 'f' is no list of texts; write",
        ),
        (
            '[networks]\n"::1" = { tenant = "a", role = "f" }',
            (),
            "[networks.::1] role: no such setting; did you mean 'roles'?",
        ),
        ("", ("--auth", "network"), "--auth network: no network is listed; write [networks]"),
        (
            NETWORKS,
            ("--auth", "network", "--listen", "unix:x"),
            "--auth network: only plain TCP goes by addresses; add --listen HOST:PORT",
        ),
        (
            NETWORKS,
            ("--auth", "network", "--listen", "unix:/x", "--listen", "127.0.0.1"),
            "--auth network: only plain TCP goes by addresses, and nobody could come in at unix:/x;"
            " give that one a way in of its own, in a [[listener]] of trigear.toml",
        ),
    ],
)
def test_what_cannot_be_stops_the_start_with_file_reason_and_next_step(
    text: str, args: tuple[str, ...], said: str, planned: Callable[..., Plan]
) -> None:
    assert said in refusal(planned, text, *args)


def test_what_an_address_has_is_shown_as_a_file_has_it(
    trigear: Callable[..., Said], tmp_path: Path
) -> None:
    text = (
        ONE + 'auth = ["network", "sasl"]\nallow = ["127.0.0.0/8"]\n\n[listener.networks]\n'
        '"127.0.0.0/8" = { tenant = "acme", roles = ["submit"], submit = ["f*"], work = ["*"] }\n'
        + NETWORKS
    )
    path = tmp_path / "trigear.toml"
    path.write_text(text)
    shown = trigear("config", "show", "--config", str(path)).out
    path.write_text(shown)
    assert trigear("config", "show", "--config", str(path)).out.count("[[listener]]") == 1
    assert "[[listener]]" + shown.partition("[[listener]]")[2] == (
        '[[listener]]\naddress = "127.0.0.1:1"\nauth = ["network", "sasl"]\n'
        'allow = ["127.0.0.0/8"]\n\n[listener.networks]\n'
        '"127.0.0.0/8" = { tenant = "acme", roles = ["submit"], submit = ["f*"], work = ["*"] }\n'
        "\n[networks]\n"
        '"10.1.0.0/16" = { tenant = "acme", roles = ["submit", "work"], submit = ["*"],'
        ' work = ["f*"] }\n'
        '"10.0.0.0/8" = { tenant = "wide", roles = ["submit"], submit = ["*"], work = ["*"] }\n'
    )
    document = json.loads(trigear("config", "show", "--json", "--config", str(path)).out)
    assert document["listener"][0]["networks"]["127.0.0.0/8"]["tenant"] == "acme"
    assert list(document["networks"]) == ["10.1.0.0/16", "10.0.0.0/8"]


def test_every_listener_may_say_for_itself_that_nobody_is_asked(
    planned: Callable[..., Plan],
) -> None:
    assert planned(ONE + 'auth = "none"', "--auth", "sasl").logins is None


@pytest.mark.slow
def test_a_server_goes_by_addresses_and_checking_writes_nothing(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    path = tmp_path / "trigear.toml"
    path.write_text(
        '[server]\nstore = "memory"\n[[listener]]\naddress = "127.0.0.1:0"\nauth = "network"\n'
        '[networks]\n"127.0.0.0/8" = { tenant = "acme", roles = ["submit", "work"] }\n'
    )
    command = [*TRIGEAR, "server", "--config", str(path), "--users", str(tmp_path / "users.toml")]
    said = subprocess.run(
        [*command, "--check"], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    assert said.stdout.startswith("good: would listen on 127.0.0.1:0;")
    assert [each.name for each in tmp_path.iterdir()] == ["trigear.toml"]
    server = start(*command)
    assert server.ask("whoami") == "OK net:127.0.0.0/8 acme submit,work network\r\n"
