"""The choice of a server is the one that Perl's client makes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from trigear.protocol.choice import home_of, walk

if TYPE_CHECKING:
    from tests.conftest import PeerTools

PERL = r"""
use Gearman::Task;
binmode STDOUT;
for (@ARGV) {
    my ($unique, $workload) = split /:/, $_, 2;
    my $task = Gearman::Task->new("f", \$workload, { uniq => $unique });
    my $hash = $task->hash;
    print defined $hash ? $hash : "none", "\n";
}
"""


@pytest.mark.parametrize(
    ("unique", "home"),
    # crc32 of the ASCII digits 1 to 9 is the check value of the algorithm, 0xcbf43926.
    [(b"123456789", (0xCBF4 & 0x7FFF) % 7), (b"a", (0xE8B7 & 0x7FFF) % 7)],
)
def test_the_home_is_bits_16_to_30_of_the_crc(unique: bytes, home: int) -> None:
    assert home_of(unique, b"w", 7) == home


def test_a_dash_stands_for_the_workload() -> None:
    assert home_of(b"-", b"order-7", 5) == home_of(b"order-7", b"other", 5)


def test_submissions_that_nobody_can_join_have_no_home() -> None:
    assert home_of(b"", b"w", 3) is None
    assert home_of(b"-", b"", 3) is None


def test_the_walk_begins_at_the_home_and_visits_everybody_once() -> None:
    assert list(walk(2, 4)) == [2, 3, 0, 1]
    assert list(walk(0, 1)) == [0]


@pytest.mark.peers
def test_perl_agrees(peer_tools: PeerTools) -> None:
    pairs = [
        ("a", "w"),
        ("-", "the work"),
        ("", "w"),
        ("-", ""),
        *((str(n), "") for n in range(1, 40)),
    ]
    done = subprocess.run(
        [str(peer_tools.perl), "-e", PERL, *(f"{unique}:{workload}" for unique, workload in pairs)],
        capture_output=True,
        text=True,
        check=True,
    )
    for (unique, workload), said in zip(pairs, done.stdout.split(), strict=True):
        ours = home_of(unique.encode(), workload.encode(), 0x8000)
        assert said == ("none" if ours is None else str(ours))
