"""Programs that know nothing of trigear leave jobs behind, and a killed server has them again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.crash.process import PATIENCE
from tests.interop.servers import HOST, start, stop, wait_until
from trigear.wire.packets import JOB_CREATED, SUBMIT_JOB_EPOCH

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import PeerTools

PHP = """
$client = new GearmanClient();
$client->addServer($argv[1], (int) $argv[2]);
for ($number = 0; $number < 3; $number++) {
    $client->doBackground('collect', "php $number\\n");
}
$client->doHighBackground('collect', "php high\\n");
exit($client->returnCode() === GEARMAN_SUCCESS ? 0 : 1);
"""

PERL = """
use Gearman::Client;
my $client = Gearman::Client->new(job_servers => ["$ARGV[0]:$ARGV[1]"]);
for my $number (0 .. 2) {
    $client->dispatch_background('collect', "perl $number\\n") or die;
}
"""

LEFT = {
    *(f"php {number}" for number in range(3)),
    "php high",
    *(f"perl {number}" for number in range(3)),
    *(f"gearman {number}" for number in range(3)),
    "later",
}


@pytest.mark.peers
@pytest.mark.slow
def test_jobs_of_php_perl_and_gearman_survive_a_kill(tmp_path: Path, peer_tools: PeerTools) -> None:
    def trigear(port: int) -> list[str]:
        where = ["--listen", HOST, "--port", str(port), "--state-dir", str(tmp_path / "state")]
        return [sys.executable, "-m", "trigear", "server", *where]

    server = start("trigear", trigear, tmp_path)
    place = [server.host, str(server.port)]
    try:
        for command in (
            [str(peer_tools.php), "-r", PHP, "--", *place],
            [str(peer_tools.perl), "-e", PERL, *place],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
        tool = [str(peer_tools.gearman), "-h", place[0], "-p", place[1], "-f", "collect"]
        for number in range(3):
            subprocess.run([*tool, "-b"], input=b"gearman %d\n" % number, check=True)
        with server.connect() as connection:
            # None of these programs can say when a job is due; libgearman does so like this.
            connection.send(SUBMIT_JOB_EPOCH, b"collect", b"later", b"1000000000", b"later\n")
            connection.expect(JOB_CREATED)
    finally:
        server.process.kill()
        server.process.wait()

    done = tmp_path / "done"
    server = start("trigear", trigear, tmp_path, server.port)
    worker = subprocess.Popen(
        [*tool, "-w", "--", "sh", "-c", f"cat >> '{done}'"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until("every job done", lambda: server.functions().get("collect", (1,))[0] == 0)
    finally:
        # The worker first: without its server it would complain for ever.
        worker.kill()
        worker.wait()
        stop(server.process)
    lines = done.read_text().splitlines()
    assert set(lines) == LEFT
    assert len(lines) == len(LEFT)
    assert lines[0] == "php high"
