"""What a `trigear worker` command line asks for, as its processes hand it on."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

READY = b"R"
"""A worker process says: the functions are announced at a server."""

RETIRING = b"D"
"""A worker process says: no more jobs are begun here, start another."""

WORD = re.compile(rb"R|D|([+-])([0-9]{1,10});")
"""What a worker process says: one of these, or that a process group begins or has ended."""


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Everything that a worker process needs to know; sizes in bytes, times in seconds.

    ``target`` is `module:attribute`; else ``functions`` are done by ``command``, or printed where
    there is none. ``total`` jobs are done by a process before it is replaced, or, with ``once``,
    before the worker ends. ``folder`` is where it was started.
    ``detached`` says that what started it does not wait for its output. ``password`` is there only
    on its way from process to process, which is a pipe.
    """

    servers: tuple[str, ...]
    folder: str
    target: str | None = None
    functions: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    lines: str | None = None
    timeout: float | None = None
    jobs: int | None = None
    name: str | None = None
    total: int | None = None
    once: bool = False
    max_memory: int | None = None
    grace: float = 30.0
    run_as: str | None = None
    chroot: str | None = None
    log_target: str = "stderr"
    log_style: str = "human"
    log_level: str = "INFO"
    detached: bool = False
    tls: bool = False
    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    user: str = ""
    password: str | None = field(default=None, repr=False)
    debug: bool = False
    color: bool = True

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> WorkerPlan:
        values: dict[str, Any] = json.loads(text)
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(value)
        return cls(**values)
