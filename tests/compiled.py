"""Compile trigear, and run tests with what came of it: ``python -m tests.compiled [PYTEST ARGS]``.

The compiled package goes into a folder of its own, and the tests into another one that has no
source of trigear's beside them: nothing here can be pure without anybody noticing. Where no
``tests/…`` is named, the rooms are tested whose modules are compiled.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BESIDE = (
    *(".ci", "tests", "benchmarks", "certs-dev", "docs"),
    *("CHANGELOG.md", "LICENSE", "README.md", "hatch_build.py", "noxfile.py", "pyproject.toml"),
)
ROOMS = ("wire", "protocol", "broker", "engine", "runtime")
CHECK = "import sys; from trigear.model import COMPILED; sys.exit(not COMPILED)"


def main(arguments: list[str]) -> int:
    """Returns pytest's exit status, or 1 if it did not come that far."""
    with tempfile.TemporaryDirectory(
        prefix="trigear-compiled-", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        # Some tests run what was built as another user.
        folder.chmod(0o755)
        environment = os.environ | {"TRIGEAR_COMPILE": "1", "TMPDIR": name}
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
        build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ROOT)]
        if subprocess.run(build, env=environment).returncode:
            return 1
        (wheel,) = (folder / "wheels").iterdir()
        site = folder / "site"
        if subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel]).returncode:
            return 1
        tests = folder / "checkout"
        tests.mkdir()
        for beside in BESIDE:
            source = ROOT / beside
            if source.is_dir():
                shutil.copytree(source, tests / beside)
            else:
                shutil.copy(source, tests / beside)
        environment = os.environ | {"PYTHONPATH": str(site)}
        if subprocess.run([sys.executable, "-c", CHECK], cwd=tests, env=environment).returncode:
            print("what was built is not compiled", file=sys.stderr)
            return 1
        if not any(argument.startswith("tests/") for argument in arguments):
            arguments = [*arguments, *(f"tests/{room}" for room in ROOMS)]
        options = ["-q", "-p", "no:cacheprovider"]
        command = [sys.executable, "-bb", "-m", "pytest", *options, *arguments]
        return subprocess.run(command, cwd=tests, env=environment).returncode


if __name__ == "__main__":
    # Who ends this ends what it has started, and nothing stays in the folder for temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))
