"""What two tenants of one server do, in any order, and what each of them gets to see of it.

An *act* is something that somebody does: a tenant sends a packet or a command, hangs up or stops
reading; or nobody in particular: time passes, the store stops to answer, fails, goes on, or the
server is killed and started again. :func:`play` plays acts on a fresh server, for both tenants or
for one of them as if the other were not there, and returns every byte that each connection
received, and when.
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.engine.storing import Cabinet, StoringWorld
from tests.engine.world import NUMBERS
from trigear.broker.quotas import Quotas
from trigear.engine import outside
from trigear.engine.config import EngineConfig, FunctionSettings, TenantSettings
from trigear.engine.doors import Way
from trigear.engine.engine import Engine
from trigear.engine.logins import Logins
from trigear.errors import StoreUnavailable, StoreUnknown
from trigear.model import Now
from trigear.security.mechs import Authenticator, Channel, LoginSettings
from trigear.security.throttle import Throttle
from trigear.security.users import Users
from trigear.testing.clock import START, SettableClock
from trigear.wire.codec import request
from trigear.wire.commands import COMMANDS
from trigear.wire.packets import EXTENSIONS, LOGINS, PACKETS, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trigear.engine.gate import Commit
    from trigear.engine.reads import Fetch
    from trigear.stores.results import Result
    from trigear.testing.memory import MemoryPeer

RED: Final = "red"
BLUE: Final = "blue"
HOUSE: Final = "house"
"""A tenant that is there whoever else is: it gives the store something to be stuck with."""

SLOTS: Final = 5
"""Connections of each tenant. Who they belong to is told by the table of users."""

_ALL: Final = '["submit", "work", "admin"]'
_USERS: Final = "version = 1\n" + "".join(
    f"""
[users.{tenant}{slot}]
tenant = "{tenant}"
unix_uids = [{uid + slot}]
{rights}
"""
    for uid, tenant in ((1000, RED), (2000, BLUE), (3000, HOUSE))
    for slot, rights in enumerate(
        (
            f"roles = {_ALL}",
            f"roles = {_ALL}",
            'roles = ["work", "submit"]',
            'roles = ["submit"]\nsubmit = ["f*"]',
            f'roles = {_ALL}\nwork = ["g"]',
        )
    )
)
_UIDS: Final = {RED: 1000, BLUE: 2000, HOUSE: 3000}

_FUNCTIONS: Final = {
    b"g": FunctionSettings(
        keep_results=60.0, reuse_results=True, timeout=3.0, attempts=2, keep_results_count=2
    ),
    b"h": FunctionSettings(attempts=1, expires=5.0, dead_keep=20.0),
}
TIGHT: Final = Quotas(
    max_connections=4,
    max_workers=1,
    max_functions=2,
    max_queued_jobs=2,
    max_queued_bytes=40,
    max_job_bytes=20,
    max_abilities_per_connection=1,
    max_background_age=10.0,
)
"""Quotas that a few acts use up."""

OPEN: Final = {RED: Quotas(), BLUE: Quotas()}
EXHAUSTED: Final = {RED: TIGHT, BLUE: Quotas()}

_REQUESTS: Final = tuple(
    row
    for row in (*PACKETS.values(), *EXTENSIONS.values(), *LOGINS.values())
    if row.asked_by != Side.NONE
)
_OFTEN: Final = (
    *("SUBMIT_JOB", "SUBMIT_JOB_BG", "SUBMIT_JOB_HIGH_BG", "SUBMIT_JOB_EPOCH"),
    *("CAN_DO", "CAN_DO", "CAN_DO_TIMEOUT", "PRE_SLEEP"),
    *("GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL", "GRAB_JOB_UNIQ"),
    *("WORK_COMPLETE", "WORK_COMPLETE", "WORK_COMPLETE", "WORK_COMPLETE"),
    *("WORK_FAIL", "WORK_EXCEPTION", "WORK_STATUS"),
    *("GET_STATUS", "GET_STATUS_UNIQUE", "GET_RESULT"),
)
ACTS: Final = (
    *(row.name for row in _REQUESTS),
    *_OFTEN * 8,
    *(" ".join(command.words) for command in COMMANDS),
    *("hang up", "stop reading", "read on", "guess"),
)
"""What a tenant can do."""

EVENTS: Final = (
    *("time", "time", "time", "time", "time", "time"),
    *("store stops", "store stops", "store writes", "store writes", "store fails"),
    *("store is lost", "kill", "results stop", "results go on", "results fail"),
)
"""What happens to everybody."""

_BY_NAME: Final = {row.name: row for row in _REQUESTS}
_COMMANDS: Final = {" ".join(command.words): command for command in COMMANDS}
_SECONDS: Final = (0.25, 1.0, 3.125, 6.0, 70.0)
_HANDLE: Final = re.compile(rb"H:(?:red|blue):\d+")

_VALUES: Final[dict[str, tuple[bytes, ...]]] = {
    "function": (b"f", b"g", b"h", b"f", b"f", b"g"),
    "reducer": (b"f", b"g", b"h"),
    "unique": (b"", b"u", b"v", b"-", b"u", b""),
    "timeout": (b"1500", b"0", b"4000"),
    "interval": (b"500", b"0", b"2000"),
    "option": (b"trigear", b"exceptions", b"sasl", b"other", b"trigear"),
    "epoch": (b"0", b"1800000003", b"1800000060", b"9000000000"),
    "start": (b"SCRAM-SHA-256", b"SCRAM-SHA-256\0n,,n=red0,r=abcdefghijkl", b"EXTERNAL\0", b"X"),
    "reason": (b"", b"deadline"),
    "minute": (b"*", b"1", b"0"),
    "high or all": (b"1", b"0", b"3"),
    "when …": (b"@every 1s", b"* * * * *", b"@hourly", b"@every 3s"),
    "option=value …": (b"unique=u", b"priority=high", b"workload=abc", b""),
    "schedule": (b"u", b"v"),
    "priority": (b"high", b"low", b"none"),
    "setting": (b"paused", b"attempts", b"maxqueue", b"keep-results", b"backoff", b"expires"),
    "value …": (b"on", b"1", b"2", b"3s", b"0", b"off"),
    "id": (b"worker", b"x", b"a b"),
}
_ELSE: Final = (b"data", b"", b"1", b"*")


class Act(NamedTuple):
    """Somebody does something: ``who`` is a tenant, or empty for what happens to everybody; the
    numbers choose among the values that each part of it may have."""

    who: str
    name: str
    slot: int
    picks: tuple[int, ...]


def act_of(number: int) -> Act:
    """The act of a number below 2 ** 40: all of them have one."""
    number, kind = divmod(number, 8)
    number, who = divmod(number, 2)
    number, name = divmod(number, 1024)
    number, slot = divmod(number, SLOTS)
    picks = []
    for _ in range(4):
        number, pick = divmod(number, 12)
        picks.append(pick)
    if not kind:
        return Act("", EVENTS[name % len(EVENTS)], 0, tuple(picks))
    return Act((RED, BLUE)[who], ACTS[name % len(ACTS)], slot, tuple(picks))


Seen = list[tuple[int, int, bytes, str]]
"""What a tenant saw: at which act, on which connection, the bytes, and why that was closed."""


def _mint() -> Callable[[str, bytes, bytes], bytes]:
    """Handles that count per tenant: then they need no renaming to be compared."""
    numbers: defaultdict[str, count[int]] = defaultdict(lambda: count(1))
    return lambda tenant, function, unique: b"H:%s:%d" % (tenant.encode(), next(numbers[tenant]))


class _Clock(SettableClock):
    """Tells the same time after the same acts, in however many steps it came there."""

    def set(self, monotonic: float) -> None:
        self._now = Now(monotonic, START.wall + (monotonic - START.monotonic))


class Street(StoringWorld):
    """A server that two tenants use, or one."""

    def __init__(self, quotas: dict[str, Quotas], *, elsewhere: bool = False) -> None:
        self.elsewhere = elsewhere
        self.keeping = True
        self.kept: dict[tuple[str, bytes], Result] = {}
        """What the store of results has, where results are kept elsewhere."""
        self.logins = Logins(
            Authenticator(Users.parse(_USERS), LoginSettings(), Throttle(()), bytes(32), bytes),
            [Way.SASL, Way.PEER],
        )
        cabinet = Cabinet()
        cabinet.mint = _mint()
        config = EngineConfig(
            version="1",
            functions=_FUNCTIONS,
            backoff=1.0,
            tenants={name: TenantSettings(quotas=quotas[name]) for name in quotas},
        )
        super().__init__(config, cabinet, _Clock())
        self.stuck: Commit | None = None
        self.asked: Fetch | None = None

    def _open(self) -> None:
        cabinet = self.cabinet
        self.engine = engine = Engine(
            self.engine.config,
            cabinet.mint,
            self.time(),
            durable=True,
            term=cabinet.term,
            logins=self.logins,
            results_elsewhere=self.elsewhere,
        )
        for kind in engine.kinds:
            engine.restore_records(
                [r if kind.data else r._replace(data=b"") for r in cabinet.of(kind.name)],
                self.time(),
            )
        engine.restore([cabinet.jobs[key] for key in sorted(cabinet.jobs)], self.time())

    def flush(self) -> None:
        super().flush()
        keeper = self.engine.results.outside
        while keeper is not None and self.keeping and (put := keeper.next_ticket()) is not None:
            self.kept |= {(result.tenant, result.handle): result for result in put.results}
            self.engine.put(self.time(), kept=True)
            super().flush()
        while keeper is not None and self.keeping and keeper.reads.has_fetch:
            self.answer_fetch("")

    def answer_fetch(self, trouble: str) -> None:
        """Let the store of results answer somebody."""
        keeper = self.engine.results.outside
        assert keeper is not None
        fetch = self.asked or keeper.reads.next_fetch()
        self.asked = None
        assert fetch is not None
        found: dict[tuple[str | bytes, ...], Result] = {}
        for result in [] if trouble else list(self.kept.values()):
            place = result.tenant, result.handle
            if fetch.what[0] == outside.FIND:
                if result.state == "done":
                    found[result.tenant, result.function, result.unique] = result
            elif fetch.what[0] == outside.GET:
                found[place] = result
            elif place in fetch.keys:
                del self.kept[place]
        self.engine.fetched(fetch, found, trouble, self.time())
        super().flush()

    def stop_keeping(self) -> None:
        """Let the store of results be stuck with a question, which is nobody's of the two."""
        keeper = self.engine.results.outside
        if keeper is None or not self.keeping:
            return
        self.keeping = False
        house = self.enter(HOUSE, 0)
        house.send(request(NUMBERS["OPTION_REQ"], b"trigear"))
        house.send(request(NUMBERS["GET_RESULT"], b"H:house:0"))
        self.asked = keeper.reads.next_fetch()
        assert self.asked is not None
        house.hang_up()

    def keep_on(self, trouble: str) -> None:
        """Let the store of results answer what it was asked meanwhile, and go on."""
        keeper = self.engine.results.outside
        if keeper is None or self.keeping:
            return
        while self.asked is not None or keeper.reads.has_fetch:
            self.answer_fetch(trouble)
        self.keeping = True
        self.flush()

    def pass_time(self, seconds: float) -> None:
        assert isinstance(self.time, _Clock)
        end = self.time().monotonic + seconds
        while (deadline := self.engine.next_deadline()) <= end:
            self.time.set(max(deadline, self.time().monotonic))
            self.tick()
        self.time.set(end)

    def enter(self, tenant: str, slot: int) -> MemoryPeer:
        """A connection of one of a tenant's users."""
        return self.connect("-", Channel("-", unix=True, uid=_UIDS[tenant] + slot))

    def stop_writing(self) -> None:
        """Let the store be stuck with a batch, which is nobody's of the two."""
        if self.stuck is not None:
            return
        house = self.enter(HOUSE, 0)
        self.writing = False
        house.send(request(NUMBERS["SUBMIT_JOB_BG"], b"f", b"", b""))
        self.stuck = self.engine.take_ticket()
        assert self.stuck is not None
        house.hang_up()

    def answer(self, error: type[Exception] | None) -> None:
        """Let the store answer what it is stuck with, and whatever has gathered behind it."""
        if self.stuck is None:
            return
        ticket, self.stuck = self.stuck, None
        self._answer(ticket, error)
        behind = self.engine.take_ticket()
        if behind is not None:
            self._answer(behind, error)
        self.writing = True
        self.flush()

    def _answer(self, ticket: Commit, error: type[Exception] | None) -> None:
        if error is None:
            self.cabinet.write(ticket.batch.lines)
        self.engine.done(ticket, None if error is None else error("no space"), self.time())
        super().flush()

    def kill(self) -> None:
        """The server dies and is started again on what was written."""
        self.cut()
        self.stuck = self.asked = None
        self.writing = self.keeping = True
        self.cabinet.term += 1
        self._open()
        self.flush()


class _Party:
    """A tenant's connections, and the handles that it has heard of."""

    def __init__(self, street: Street, tenant: str) -> None:
        self._street = street
        self._tenant = tenant
        self.peers: dict[int, MemoryPeer] = {}
        self._heard: dict[int, list[bytes]] = defaultdict(list)
        self._all: list[bytes] = []
        self.seen: Seen = []

    def _handle(self, slot: int, pick: int) -> bytes:
        """Most of the time one of a job that this connection does, or that it heard of last."""
        own = list(self.peers[slot].session.peer.jobs) or self._heard[slot]
        if pick % 4 and own:
            return own[-1 - (pick % 3) % len(own)]
        return self._all[-1 - (pick // 4) % len(self._all)] if self._all else b"H:none"

    def _value(self, name: str, slot: int, pick: int) -> bytes:
        if "handle" in name or (name == "schedule" and pick % 2):
            return self._handle(slot, pick)
        values = _VALUES.get(name, _ELSE)
        return values[pick % len(values)]

    def _meant(self, act: Act) -> Act:
        """Most of the time somebody acts who can, if there is one; else what makes that possible is
        done instead."""
        name, able = act.name, [act.slot]
        if act.picks[3] % 4 and name.startswith("WORK_"):
            able = [slot for slot, peer in self.peers.items() if peer.session.peer.jobs]
            name = name if able else "GRAB_JOB_UNIQ"
        if act.picks[3] % 4 and name.startswith(("GRAB_", "PRE_SLEEP")):
            able = [slot for slot, peer in self.peers.items() if peer.session.peer.abilities]
            name = name if able else "CAN_DO"
        slot = able[act.slot % len(able)] if able else act.slot
        return act._replace(name=name, slot=slot)

    def act(self, act: Act) -> None:
        act = self._meant(act)
        peer = self.peers.get(act.slot)
        if peer is None:
            peer = self.peers[act.slot] = self._street.enter(self._tenant, act.slot)
            self._heard[act.slot].clear()
            if not act.slot % 2 and peer.closed is None:
                peer.send(request(NUMBERS["OPTION_REQ"], b"trigear"))
        if peer.closed is not None:
            return
        engine, picks = self._street.engine, act.picks
        match act.name:
            case "hang up":
                peer.hang_up()
                del self.peers[act.slot]
            case "stop reading":
                engine.unsent(peer.session, engine.config.soft_mark + 1, 0, self._street.time())
                self._street.flush()
            case "read on":
                engine.unsent(peer.session, 0, 0, self._street.time())
                self._street.flush()
            case "guess":
                other = BLUE if self._tenant == RED else RED
                handle = b"H:%s:%d" % (other.encode(), 1 + picks[0] % 9)
                row = _GUESSES[picks[1] % len(_GUESSES)]
                args = [handle, *(b"x" for _ in _BY_NAME[row].args[1:])]
                peer.send(request(NUMBERS[row], *args))
            case name if name in _BY_NAME:
                row = _BY_NAME[name]
                args = [
                    self._value(arg, act.slot, picks[at % len(picks)])
                    for at, arg in enumerate(row.args)
                ]
                peer.send(request(NUMBERS[name], *args))
            case name:
                words = [name.encode()]
                for at, arg in enumerate(_COMMANDS[name].args):
                    pick = picks[at % len(picks)]
                    if arg.startswith("[") and pick % 2:
                        break
                    words.append(self._value(arg.strip("[]"), act.slot, pick))
                peer.send(b" ".join(words).strip() + b"\n")

    def look_around(self) -> None:
        """Ask for all that can be asked for, and guess what the other tenant may have."""
        peer = self.peers.get(0)
        if peer is None:
            peer = self.peers[0] = self._street.enter(self._tenant, 0)
        other = BLUE if self._tenant == RED else RED
        handles = [b"H:%s:%d" % (other.encode(), number) for number in range(1, 10)]
        questions = [
            *(request(NUMBERS["GET_STATUS"], handle) for handle in handles),
            *(request(NUMBERS["GET_STATUS_UNIQUE"], unique) for unique in (b"u", b"v", b"-")),
            *(b"show job %s\nresult %s\ndead show %s\n" % (one, one, one) for one in handles),
            *(b" ".join(map(str.encode, each.words)) + b"\n" for each in COMMANDS if each.is_list),
        ]
        for question in questions:
            if peer.closed is None:
                peer.send(question)

    def look(self, at: int) -> None:
        """Take down what has come."""
        for slot, peer in list(self.peers.items()):
            data = peer.take()
            for handle in _HANDLE.findall(data):
                own = self._heard[slot]
                if handle in own:
                    own.remove(handle)
                own.append(handle)
                if handle not in self._all:
                    self._all.append(handle)
            if data or peer.closed is not None:
                closed = "" if peer.closed is None else peer.closed.value
                self.seen.append((at, slot, data, closed))
            if peer.closed is not None:
                del self.peers[slot]


_GUESSES: Final = ("GET_STATUS", "WORK_COMPLETE", "WORK_DATA", "WORK_FAIL", "WORK_STATUS")


def play(
    acts: Sequence[Act],
    tenants: Iterable[str],
    quotas: dict[str, Quotas],
    *,
    elsewhere: bool = False,
) -> dict[str, Seen]:
    """Play what these tenants do, and what happens to everybody; what each of them saw."""
    street = Street(quotas, elsewhere=elsewhere)
    parties = {tenant: _Party(street, tenant) for tenant in tenants}
    for at, act in enumerate(acts):
        if not act.who:
            _happen(street, act)
        elif act.who in parties:
            parties[act.who].act(act)
        else:
            continue
        for party in parties.values():
            party.look(at)
    for party in parties.values():
        party.look_around()
        party.look(len(acts))
    return {tenant: party.seen for tenant, party in parties.items()}


def _happen(street: Street, act: Act) -> None:
    match act.name:
        case "time":
            street.pass_time(_SECONDS[act.picks[0] % len(_SECONDS)])
        case "store stops":
            street.stop_writing()
        case "store writes":
            street.answer(None)
        case "store fails":
            street.answer(StoreUnavailable)
        case "store is lost":
            street.stop_writing()
            assert street.stuck is not None
            street.engine.done(street.stuck, StoreUnknown("no word"), street.time())
        case "kill":
            street.kill()
        case "results stop":
            street.stop_keeping()
        case "results go on":
            street.keep_on("")
        case "results fail":
            street.keep_on("It cannot be read now")
