"""Compiles what runs for each packet and each job, where that is wanted.

    TRIGEAR_COMPILE=1 pip install .

builds a package in which mypyc has made C extensions of the modules named below, from the very
source that runs without them; it needs a C compiler and Python's headers. Without the variable the
package is pure Python, and nothing but hatchling is needed to build it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPILED = (
    "model",
    *(f"wire/{name}" for name in ("codec", "packets")),
    *(f"protocol/{name}" for name in ("connection", "server")),
    *("broker/assignments", "broker/books", "broker/broker", "broker/functions", "broker/jobs"),
    *("broker/outcomes", "broker/peers", "broker/quotas", "broker/registry", "broker/schedules"),
    *("broker/steering", "broker/timers", "broker/wakeups"),
    *("engine/arriving", "engine/engine", "engine/entering", "engine/gate", "engine/guarded"),
    *("engine/handles", "engine/reads", "engine/scheduler", "engine/session", "engine/shelves"),
    "security/layer",
    *("runtime/hub", "runtime/poller"),
)
"""The modules that are compiled, together with each base class of what is in them."""

NEEDED = ["mypy==2.4.*", "setuptools>=77"]

SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

setup(
    name="trigear",
    script_args=["build_ext", "--inplace"],
    packages=[],
    ext_modules=mypycify(
        ["--config-file=", "--ignore-missing-imports", "--follow-imports=silent", *sys.argv[1:]],
        group_name="trigear",
        opt_level={level!r},
    ),
)
"""


def wanted() -> bool:
    """Whether the one who builds asked for it.

    Raises:
        SystemExit: it is not clear what was asked for.
    """
    value = os.environ.get("TRIGEAR_COMPILE") or "0"
    if value not in ("0", "1"):
        raise SystemExit(f"TRIGEAR_COMPILE={value}: write 1 to compile, 0 or nothing not to")
    return value == "1"


class CompileHook(BuildHookInterface[Any]):
    """Puts the compiled modules beside their source into the wheel."""

    _folder: str | None = None

    def dependencies(self) -> list[str]:
        """What has to be installed to build this."""
        return NEEDED if wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a folder of its own, so that a checkout stays pure.

        Raises:
            SystemExit: it did not compile, or was asked for where it cannot be.
        """
        if not wanted():
            return
        if version == "editable":
            raise SystemExit("TRIGEAR_COMPILE=1 makes no editable installation: leave out -e")
        self._folder = tempfile.mkdtemp(prefix="trigear-compile-")
        try:
            self._compile(Path(self._folder), build_data)
        except BaseException:
            # Nobody calls finalize() then.
            shutil.rmtree(self._folder)
            raise

    def _compile(self, folder: Path, build_data: dict[str, Any]) -> None:
        """As :meth:`initialize`, in this folder."""
        leftovers = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(Path(self.root) / "trigear", folder / "trigear", ignore=leftovers)
        (folder / "setup.py").write_text(
            SETUP.format(level=os.environ.get("TRIGEAR_COMPILE_LEVEL", "3"))
        )
        modules = [f"trigear/{name}.py" for name in COMPILED]
        done = subprocess.run(
            [sys.executable, "setup.py", *modules],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise SystemExit(
                f"{done.stdout}\ntrigear was not compiled: see above. It needs a C compiler and "
                "Python's headers (Debian: apt install gcc python3-dev); without TRIGEAR_COMPILE "
                "it needs neither"
            )
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for path in folder.rglob("*.so"):
            place = path.relative_to(folder)
            if place.parts[0] != "build":
                build_data["force_include"][str(path)] = str(place)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Clear away."""
        if self._folder is not None:
            shutil.rmtree(self._folder)
