"""The view of `trigear top` on a terminal: drawn anew at every look, steered by single keys."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING, Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trigear.cli.connecting import PATIENCE, open_client, said_for
from trigear.cli.manners import manners_of
from trigear.cli.report import Failure, Status, line_for
from trigear.cli.tables import plain, shown
from trigear.cli.top import COLUMNS, look, rows_of
from trigear.cli.values import spell_duration
from trigear.errors import ConnectionLost, LoginFailed, TrigearError
from trigear.model import counted

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from trigear.cli.connecting import Servers
    from trigear.cli.tables import Cell
    from trigear.cli.top import Look
    from trigear.runtime.blocking import BlockingClient

FURNITURE: Final = 5
"""Lines of the screen that are no rows: above, the heads of the columns, and below."""

HELP: Final = "q ends · s sorts · space looks now"


def watch(servers: Servers, interval: float) -> int:
    """Show the functions until somebody types q.

    Args:
        servers: where to look.
        interval: seconds between two looks.

    Returns:
        The exit status.

    Raises:
        Failure: no server can be reached at the beginning. Later it is waited for.
    """
    view = View(servers, interval)
    try:
        with Signals() as signals:
            view.run(signals)
    finally:
        view.client.close()
    return Status.DONE


class Signals:
    """Takes the signals that end a program, and leaves it to the program when to: one that comes
    while the screen is drawn must not leave it half drawn, nor the terminal as it is."""

    def __enter__(self) -> Self:
        self.came = 0
        self.mine, theirs = os.pipe()
        os.set_blocking(theirs, False)
        self._theirs = theirs
        # Python's own handler may have to wait for the end of the call that waits for keys.
        self._wake_up = signal.set_wakeup_fd(theirs)
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wake_up)
        os.close(self.mine)
        os.close(self._theirs)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = number

    def check(self) -> bool:
        """Whether to end, as somebody at the keyboard wishes; ends at once if it is SIGTERM."""
        if self.came == signal.SIGTERM:
            sys.exit(128 + self.came)
        return self.came == signal.SIGINT


class View:
    """What is shown, and where it comes from."""

    def __init__(self, servers: Servers, interval: float) -> None:
        self.servers = servers
        self.interval = interval
        self.client = open_client(servers)
        self.before: Look | None = None
        self.after = self.ask()
        self.trouble = ""
        self.by_name = False
        self.console = Console(no_color=not manners_of().color, highlight=False)

    def ask(self) -> Look:
        with said_for(self.client, "'show functions'"):
            return look(self.client)

    def run(self, signals: Signals) -> None:
        with (
            Keys(signals.mine) as keys,
            Live(console=self.console, screen=True, auto_refresh=False) as live,
        ):
            due = time.monotonic() + self.interval
            while True:
                live.update(self.picture(), refresh=True)
                key = keys.wait(due - time.monotonic())
                if signals.check():
                    return
                match key:
                    case "q" | "Q":
                        return
                    case "s":
                        self.by_name = not self.by_name
                    case " " | "":
                        self.look_again()
                        due = time.monotonic() + self.interval
                    case _:
                        pass

    def look_again(self) -> None:
        """Take another look; a server that is gone is looked for every time."""
        try:
            if self.trouble:
                self.client.close()
                self.client = self.connect()
            fresh = self.ask()
        except LoginFailed:
            raise  # asking every other second would not help
        except (TrigearError, Failure, TimeoutError) as error:
            self.trouble = line_for(error)
            return
        # Rates over a time in which nobody counted would be wrong.
        self.before = None if self.trouble else self.after
        self.after = fresh
        self.trouble = ""

    def connect(self) -> BlockingClient:
        """A client of the first server that answers, without a remark about the others."""
        failure: ConnectionLost | None = None
        for address in self.servers.addresses:
            try:
                return self.servers.connect(address, min(PATIENCE, self.interval))
            except ConnectionLost as error:
                failure = error
        assert failure is not None, "there is a server to ask"
        raise failure

    def picture(self) -> Group:
        rows = rows_of(self.before, self.after)
        if self.by_name:
            rows.sort(key=lambda row: str(row[0]))
        running = sum(counts.running for counts in self.after.functions.values())
        queued = sum(counts.queued for counts in self.after.functions.values())
        head = (
            f"trigear top · {self.client.address} · {counted(len(rows), 'function')} ·"
            f" {counted(queued, 'job')} queued, {running} running · {time.strftime('%H:%M:%S')}"
        )
        room = max(1, self.console.height - FURNITURE)
        hidden = len(rows) - room
        foot = f"{HELP}{f' · {hidden} more below' if hidden > 0 else ''}"
        trouble = [Text(f"{self.trouble}; trying again", style="red")] if self.trouble else []
        return Group(Text(head, no_wrap=True), *trouble, table_of(rows[:room]), Text(foot, "dim"))


def table_of(rows: list[list[Cell]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in COLUMNS:
        words = head.title if head.key == "function" else f"{head.title}{UNITS.get(head.key, '')}"
        table.add_column(words, justify="left" if head.key == "function" else "right", no_wrap=True)
    for row in rows:
        *cells, oldest, paused = row
        waits = spell_duration(oldest) if isinstance(oldest, int) else plain(oldest)
        # A queue that nobody works on is what one looks for here.
        lonely = row[1] and not row[3]
        texts = [Text(shown(plain(cell))) for cell in cells]
        # Pausing is what somebody wanted: it is told where it is so.
        held = Text("yes" if paused else "")
        table.add_row(*texts, waits, held, style="yellow" if lonely else None)
    return table


UNITS: Final = {"arriving": "/S", "completing": "/S", "failing": "/S"}


class Keys:
    """Single keys from the terminal, if standard input is one; else time passes."""

    def __init__(self, alarm: int) -> None:
        self.descriptor = sys.stdin.fileno() if sys.stdin.isatty() else -1
        self._alarm = alarm

    def __enter__(self) -> Self:
        if self.descriptor >= 0:
            self.before = termios.tcgetattr(self.descriptor)
            tty.setcbreak(self.descriptor)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.descriptor >= 0:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.descriptor, termios.TCSADRAIN, self.before)

    def wait(self, seconds: float) -> str:
        """The next key within this time; nothing if there is none, or the alarm goes off."""
        sources = [self._alarm, *([self.descriptor] if self.descriptor >= 0 else [])]
        ready, _, _ = select.select(sources, [], [], max(0.0, seconds))
        if self.descriptor not in ready:
            return ""
        try:
            key = os.read(self.descriptor, 1)
        except OSError:
            key = b""
        # A terminal that is gone is ready at once, again and again.
        return key.decode("latin-1") or "q"
