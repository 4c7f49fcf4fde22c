"""A client program on python gear: one JSON request per input line, one JSON event per output line.

Arguments: host port. With TLS if there is TLS_CA, TLS_CERT and TLS_KEY.
"""

from __future__ import annotations

import json
import os
import sys
import threading

import gear

PRECEDENCE = {
    "high": gear.PRECEDENCE_HIGH,
    "normal": gear.PRECEDENCE_NORMAL,
    "low": gear.PRECEDENCE_LOW,
}


def say(event: str, **fields: object) -> None:
    # One write for the line and its end: two threads speak here.
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


class Client(gear.Client):
    """gear reports through methods to override; each becomes an event."""

    def __init__(self) -> None:
        super().__init__("gear-client")
        self.finished = threading.Event()
        self.answered = threading.Event()

    def handleJobCreated(self, packet):
        # The base class lets submitJob return, so this is said first.
        say("created", handle=packet.data.decode())
        return super().handleJobCreated(packet)

    def handleWorkData(self, packet):
        say("data", hex=packet.getArgument(1, True).hex())
        return super().handleWorkData(packet)

    def handleWorkWarning(self, packet):
        say("warning", hex=packet.getArgument(1, True).hex())
        return super().handleWorkWarning(packet)

    def handleWorkStatus(self, packet):
        job = super().handleWorkStatus(packet)
        say("status", numerator=int(job.numerator), denominator=int(job.denominator or 0))
        return job

    def handleWorkComplete(self, packet):
        job = super().handleWorkComplete(packet)
        say("complete", hex=packet.getArgument(1, True).hex())
        self.finished.set()
        return job

    def handleWorkException(self, packet):
        job = super().handleWorkException(packet)
        say("exception", hex=job.exception.hex())
        self.finished.set()
        return job

    def handleWorkFail(self, packet):
        job = super().handleWorkFail(packet)
        say("fail")
        self.finished.set()
        return job

    def handleStatusRes(self, packet):
        job = super().handleStatusRes(packet)
        say(
            "state",
            known=job.known,
            running=job.running,
            numerator=int(job.numerator),
            denominator=int(job.denominator),
        )
        self.answered.set()
        return job


def main() -> None:
    host, port = sys.argv[1:]
    client = Client()
    client.addServer(host, int(port), *map(os.environ.get, ("TLS_KEY", "TLS_CERT", "TLS_CA")))
    client.waitForServer()
    client.setOption("exceptions")
    submitted: dict[str, gear.Job] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "ask":
            job = submitted[request["handle"]]
            client.answered.clear()
            packet = gear.Packet(gear.constants.REQ, gear.constants.GET_STATUS, job.handle)
            client.sendPacket(packet, job.connection)
            client.answered.wait()
            continue
        job = gear.Job(request["function"], bytes.fromhex(request["hex"]), unique=request["unique"])
        client.finished.clear()
        client.submitJob(job, request["background"], PRECEDENCE[request["priority"]])
        submitted[job.handle.decode()] = job
        if not request["background"]:
            client.finished.wait()
        say("end")
    client.shutdown()


if __name__ == "__main__":
    main()
