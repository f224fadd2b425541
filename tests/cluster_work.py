"""Work for a cluster that needs no network, with pictures that end the process they are in."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

from isrrescnet_jax import cluster


def end() -> None:
    """As a decoder does that reads where it must not."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


@dataclasses.dataclass(frozen=True)
class Turning:
    """The bytes of a file, backwards, and a line in a log for each time that they are computed.

    A file says what happens to it: "read" or "compute" end the process there, "raise" and "fail"
    are errors of the one and of the other.
    """

    log: Path
    accelerated: bool = True
    seconds: float = 0.0

    def read(self, job):
        data = job.load()
        if data.startswith(b"read"):
            end()
        if data.startswith(b"raise"):
            raise RuntimeError("what\never")
        return data

    def ready(self):
        return "ready"

    def compute(self, ready, values):
        assert ready == ("ready" if self.accelerated else None)
        for value in values:
            if value.startswith(b"compute"):
                end()
            if value.startswith(b"fail"):
                raise RuntimeError("never")
            time.sleep(self.seconds)
            with open(self.log, "ab") as file:
                file.write(b"%d %s\n" % (os.getpid(), value[:12]))
            yield self.seconds, value[::-1]

    def encode(self, job, result):
        return result, cluster.Record(job.source, job.name, width=len(result), height=1)


def main(folder: str, out: str, log: str) -> None:
    """Do the files in a folder, on Ray on this machine."""
    destination = cluster.Destination(out)
    pieces = cluster.sources.left(cluster.find([folder]), destination.done())
    ray = cluster.connect()
    print("ready", flush=True)
    for _ in cluster.run(ray, Turning(Path(log), seconds=0.05), pieces, destination, 1):
        print("some", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
