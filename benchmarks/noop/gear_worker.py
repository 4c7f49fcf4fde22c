"""A worker on gear. Arguments: host port."""

from __future__ import annotations

import sys

import gear


def main() -> None:
    host, port = sys.argv[1:]
    worker = gear.Worker("noop")
    worker.addServer(host, int(port))
    worker.registerFunction("noop")
    while True:
        job = worker.getJob()
        job.sendWorkComplete(job.arguments)


if __name__ == "__main__":
    main()
