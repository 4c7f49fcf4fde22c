"""Where and with what it was measured: the machine, the interpreter, and which trigear runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from benchmarks import procfs

# Asked of a process that is started as the measured servers are: what this process imported may be
# the checkout, and the servers run what is installed.
QUESTION = """
import hashlib, json, pathlib, platform, ssl, sys, sysconfig
import trigear
from trigear.model import COMPILED
digest = hashlib.sha256()
for file in sorted(pathlib.Path(trigear.__file__).parent.rglob("*.py")):
    digest.update(file.read_bytes())
optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
# Debian optimises by profile, too, and does so without telling `configure`.
debian = sys.base_prefix == "/usr" and pathlib.Path("/etc/debian_version").exists()
print(json.dumps({
    "python": f"{platform.python_implementation()} {platform.python_version()}",
    "optimised": optimised or debian,
    "openssl": ssl.OPENSSL_VERSION,
    "trigear": trigear.__version__,
    "compiled": COMPILED,
    "digest": digest.hexdigest()[:16],
}))
"""


class MachineError(Exception):
    """The interpreter could not be asked; the text says why."""


def interpreter_facts() -> dict[str, Any]:
    """What the interpreter and the trigear that it runs are.

    Returns:
        `python`, `openssl` and `trigear` are versions; `optimised` says whether the interpreter was
        built with profiles, `compiled` whether trigear's engine was compiled; `digest` is the same
        as long as trigear's sources are.

    Raises:
        MachineError: trigear is not installed there.
    """
    command = [sys.executable, "-P", "-c", QUESTION]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word about why"])[-1]
        raise MachineError(f"{sys.executable} does not run trigear: {last}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def sync_rate(count: int = 100) -> float:
    """Syncs a second where the servers keep their queues: so many, each after a write of 4 KiB."""
    with tempfile.NamedTemporaryFile(prefix="trigear-bench-") as file:
        started = time.monotonic()
        for number in range(count):
            os.pwrite(file.fileno(), b"s" * 4096, 4096 * number)
            os.fdatasync(file.fileno())
        return count / (time.monotonic() - started)


def facts() -> dict[str, Any]:
    """Everything a reader must know to judge figures: machine, interpreter and trigear.

    Raises:
        MachineError: trigear is not installed.
    """
    syncs = round(sync_rate())
    return {**procfs.machine_facts(), **interpreter_facts(), "syncs_per_second": syncs}


def describe(found: dict[str, Any]) -> str:
    """One phrase for it."""
    build = "optimised" if found["optimised"] else "not optimised"
    state = "compiled" if found["compiled"] else "not compiled"
    return (
        f"{found['cpu']}, {found['usable_cores']} cores, {found['memory_bytes'] / 2**30:.0f} GiB, "
        f"{found['syncs_per_second']:,} syncs/s, {found['kernel']}, {found['python']} ({build} "
        f"build), {found['openssl']}; trigear {found['trigear']}, {state}"
    )
