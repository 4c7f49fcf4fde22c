"""Queues messages for the actors, and waits for the last one. One request on each line of input.

`NUMBER` queues so many messages; the answer is `queued`. `wait SECONDS` is answered by `done` when
the last one is done, or by `late`.
"""

from __future__ import annotations

import sys

from benchmarks.noop.dramatiq_jobs import DONE, broker, noop_actor, tell_actor

WORKLOAD = "." * 64


def main() -> None:
    for line in sys.stdin:
        word, _, seconds = line.strip().partition(" ")
        if word == "wait":
            told = broker.client.blpop(DONE, float(seconds))
            print("done" if told else "late", flush=True)
        else:
            for _ in range(int(word) - 1):
                noop_actor.send(WORKLOAD)
            tell_actor.send(WORKLOAD)
            print("queued", flush=True)


if __name__ == "__main__":
    main()
