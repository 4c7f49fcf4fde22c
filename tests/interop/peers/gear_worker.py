"""A worker program on python gear.

Arguments: host port id specification, the last one JSON:
{"functions": {name: behaviour}, "log": path}. With TLS if there is TLS_CA, TLS_CERT and TLS_KEY.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

import gear


def hold(workload: bytes) -> None:
    found = re.match(rb"wait=([^;]+);", workload)
    if found is not None:
        pathlib.Path(found[1].decode()).read_bytes()  # a FIFO: ends when the test says so


def record(job: gear.WorkerJob, log: str) -> None:
    entry = {"workload": job.arguments.decode(), "unique": (job.unique or b"").decode()}
    with open(log, "a") as file:
        file.write(json.dumps(entry) + "\n")


def run(job: gear.WorkerJob, behaviour: str, log: str) -> None:
    if behaviour == "reverse":
        job.sendWorkComplete(job.arguments[::-1])
    elif behaviour == "raise":
        job.sendWorkException(job.arguments)
    elif behaviour == "steps":
        job.sendWorkStatus(1, 4)
        hold(job.arguments)
        job.sendWorkStatus(3, 4)
        job.sendWorkComplete(b"done")
    elif behaviour == "record":
        hold(job.arguments)
        record(job, log)
        job.sendWorkComplete(job.arguments)
    else:
        raise ValueError(f"no behaviour {behaviour!r}")


def main() -> None:
    host, port, identifier, text = sys.argv[1:]
    specification = json.loads(text)
    worker = gear.Worker(identifier)
    worker.addServer(host, int(port), *map(os.environ.get, ("TLS_KEY", "TLS_CERT", "TLS_CA")))
    for name in specification["functions"]:
        worker.registerFunction(name)
    while True:
        job = worker.getJob()
        run(job, specification["functions"][job.name], specification["log"])


if __name__ == "__main__":
    main()
