"""trigear: a Gearman job server, client and worker on Trio.

It speaks gearmand's protocol, so that existing Gearman programs keep working. It is not a workflow
engine and it keeps no results: a job goes to one worker, at least once, and its answer to whoever
waits for it.
"""

# The house. A module imports from lower floors and from its own room, never upwards and never from
# another room on its floor; tests/test_layers.py reads every import and enforces it.
#
#   6  faces        cli/ · web/ · testing/    what people and programs touch
#   5  runtime/     hub, listeners, timer     of floors 0 to 5 the only room that knows Trio
#   4  engine/      the server without I/O    connections, sessions, admin, configuration
#   3  broker/      jobs, queues, workers     a pure model: the time is an argument
#      stores/      durable records           synchronous, one batch at a time
#   2  protocol/    one machine per connection: client, worker and server columns
#      security/    who is this, and what may they do
#   1  wire/        bytes and packets         the one packet table, the one command table
#   0  errors.py · model.py                   words that every floor shares
#
# This file is the front door. It imports nothing until a name is asked for, so that one-shot
# commands and `trigear --version` do not pay for Trio.

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trigear.errors import (
        ConfigError,
        ConnectionLost,
        JobError,
        JobFailed,
        JobLost,
        JobRaised,
        LocalProtocolError,
        LoginFailed,
        LoginRefused,
        ProtocolError,
        Refused,
        RemoteProtocolError,
        StoreError,
        TrigearError,
        TrigearInternalError,
    )
    from trigear.model import Priority
    from trigear.protocol.dead_talks import DeadLetterDetails, DeadLetterStatus
    from trigear.protocol.events import Data, Status, Warning
    from trigear.protocol.schedule_talks import ScheduleDetails, ScheduleStatus
    from trigear.protocol.session_talks import SessionStatus, TenantQuota, WhoAmI
    from trigear.protocol.talks import (
        ConnectionStatus,
        FunctionSetting,
        FunctionStatus,
        ListedJob,
        PriorityStatus,
    )
    from trigear.runtime.admin import Admin, connect_admin
    from trigear.runtime.aio import AsyncioJob
    from trigear.runtime.batch import Batch, Outcome
    from trigear.runtime.blocking import BlockingClient, BlockingJob, connect_blocking
    from trigear.runtime.blocking_admin import BlockingAdmin, connect_admin_blocking
    from trigear.runtime.client import Client, connect
    from trigear.runtime.job import ThreadJob, WorkerJob
    from trigear.runtime.program import program
    from trigear.runtime.result import Result
    from trigear.runtime.values import JobStatus
    from trigear.runtime.waiting import Job
    from trigear.runtime.worker import Worker, WorkerStatistics
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientTLS

__version__ = "0.1.0"

__all__ = [
    "Admin",
    "AsyncioJob",
    "Auth",
    "Batch",
    "BlockingAdmin",
    "BlockingClient",
    "BlockingJob",
    "Client",
    "ClientTLS",
    "ConfigError",
    "ConnectionLost",
    "ConnectionStatus",
    "Data",
    "DeadLetterDetails",
    "DeadLetterStatus",
    "FunctionSetting",
    "FunctionStatus",
    "Job",
    "JobError",
    "JobFailed",
    "JobLost",
    "JobRaised",
    "JobStatus",
    "ListedJob",
    "LocalProtocolError",
    "LoginFailed",
    "LoginRefused",
    "Outcome",
    "Priority",
    "PriorityStatus",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "Result",
    "ScheduleDetails",
    "ScheduleStatus",
    "SessionStatus",
    "Status",
    "StoreError",
    "TenantQuota",
    "ThreadJob",
    "TrigearError",
    "TrigearInternalError",
    "Warning",
    "WhoAmI",
    "Worker",
    "WorkerJob",
    "WorkerStatistics",
    "__version__",
    "connect",
    "connect_admin",
    "connect_admin_blocking",
    "connect_blocking",
    "program",
]

# Public name -> module that defines it. Type checkers read the imports above instead; a test keeps
# the two and __all__ in step.
_HOME = {
    "Admin": "trigear.runtime.admin",
    "AsyncioJob": "trigear.runtime.aio",
    "Auth": "trigear.security.sasl_client",
    "Batch": "trigear.runtime.batch",
    "BlockingAdmin": "trigear.runtime.blocking_admin",
    "BlockingClient": "trigear.runtime.blocking",
    "BlockingJob": "trigear.runtime.blocking",
    "Client": "trigear.runtime.client",
    "ClientTLS": "trigear.security.tls",
    "ConfigError": "trigear.errors",
    "ConnectionLost": "trigear.errors",
    "ConnectionStatus": "trigear.protocol.talks",
    "Data": "trigear.protocol.events",
    "DeadLetterDetails": "trigear.protocol.dead_talks",
    "DeadLetterStatus": "trigear.protocol.dead_talks",
    "FunctionSetting": "trigear.protocol.talks",
    "FunctionStatus": "trigear.protocol.talks",
    "Job": "trigear.runtime.waiting",
    "JobError": "trigear.errors",
    "JobFailed": "trigear.errors",
    "JobLost": "trigear.errors",
    "JobRaised": "trigear.errors",
    "JobStatus": "trigear.runtime.values",
    "ListedJob": "trigear.protocol.talks",
    "LocalProtocolError": "trigear.errors",
    "LoginFailed": "trigear.errors",
    "LoginRefused": "trigear.errors",
    "Outcome": "trigear.runtime.batch",
    "Priority": "trigear.model",
    "PriorityStatus": "trigear.protocol.talks",
    "ProtocolError": "trigear.errors",
    "Refused": "trigear.errors",
    "RemoteProtocolError": "trigear.errors",
    "Result": "trigear.runtime.result",
    "ScheduleDetails": "trigear.protocol.schedule_talks",
    "ScheduleStatus": "trigear.protocol.schedule_talks",
    "SessionStatus": "trigear.protocol.session_talks",
    "Status": "trigear.protocol.events",
    "StoreError": "trigear.errors",
    "TenantQuota": "trigear.protocol.session_talks",
    "ThreadJob": "trigear.runtime.job",
    "TrigearError": "trigear.errors",
    "TrigearInternalError": "trigear.errors",
    "Warning": "trigear.protocol.events",
    "WhoAmI": "trigear.protocol.session_talks",
    "Worker": "trigear.runtime.worker",
    "WorkerJob": "trigear.runtime.job",
    "WorkerStatistics": "trigear.runtime.worker",
    "connect": "trigear.runtime.client",
    "connect_admin": "trigear.runtime.admin",
    "connect_admin_blocking": "trigear.runtime.blocking_admin",
    "connect_blocking": "trigear.runtime.blocking",
    "program": "trigear.runtime.program",
}


def __getattr__(name: str) -> object:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next access finds it without asking again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
