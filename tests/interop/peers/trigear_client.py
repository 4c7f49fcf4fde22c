"""A client program on trigear: one JSON request per input line, one JSON event per output line.

Arguments: host port.
"""

from __future__ import annotations

import json
import sys

import trio

import trigear


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


async def submit(client: trigear.Client, request: dict[str, str]) -> None:
    how = {"unique": request["unique"] or b"", "priority": request["priority"]}
    workload = bytes.fromhex(request["hex"])
    if request["background"]:
        handle = await client.submit_background(request["function"], workload, **how)
        say("created", handle=handle.decode())
        return
    async with client.open_job(request["function"], workload, keep=False, **how) as job:
        say("created", handle=job.handle.decode())
        async for update in job:
            match update:
                case trigear.Status():
                    say("status", numerator=update.numerator, denominator=update.denominator)
                case trigear.Data():
                    say("data", hex=update.data.hex())
                case trigear.Warning():
                    say("warning", hex=update.data.hex())
        try:
            say("complete", hex=(await job.result()).hex())
        except trigear.JobRaised as error:
            say("exception", hex=error.data.hex())
        except trigear.JobFailed:
            say("fail")


async def main() -> None:
    host, port = sys.argv[1:]
    async with trigear.connect(f"{host}:{port}") as client:
        async for line in trio.wrap_file(sys.stdin):
            request = json.loads(line)
            if request["op"] == "ask":
                status = await client.status(request["handle"])
                say(
                    "state",
                    known=status.known,
                    running=status.running,
                    numerator=status.numerator,
                    denominator=status.denominator,
                )
            else:
                await submit(client, request)
                say("end")


if __name__ == "__main__":
    trio.run(main)
