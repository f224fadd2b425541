"""Options of the commands that can run on Ray, and how they say how far they are."""

import contextlib
import dataclasses
import functools
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from .. import cluster, images, remote
from ..cluster.destinations import Into

_NAMED = 20  # failures, of however many; the manifest has all


@dataclasses.dataclass(frozen=True)
class Nodes:
    """Options of the commands that can run on many machines."""

    ray: tuple[str, ...] | None = None
    """Run on Ray: on this machine, or with an ADDRESS (auto, HOST:PORT) on a cluster. Inputs and
    results of `upscale` and `degrade` may then be addresses (s3://, gs://, ...), tar shards and
    Parquet files; what is there already is passed over, unless with --overwrite."""
    workers: int | None = None
    """With --ray: how many compute; one for each GPU or TPU, else for each CPU, by default."""

    def check_nodes(self) -> None:
        """Raise ValueError if these options make no sense."""
        if len(self.ray or ()) > 1:
            raise ValueError(f"--ray takes one address, not {' '.join(self.ray or ())}")
        if self.ray is None and self.workers is not None:
            raise ValueError(f"--workers {self.workers} is for --ray")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"--workers must be at least 1, not {self.workers}")

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Ray. Before JAX has threads, which a fork would not take along."""
        ray = cluster.connect(*(self.ray or ()))
        try:
            yield ray
        finally:
            ray.shutdown()


@dataclasses.dataclass(frozen=True)
class Fleet(Nodes):
    """Options of the commands that write on many machines."""

    into: Into = "files"
    """With --ray: a file for each result, or shards of many (WebDataset, or a column `image`)."""
    column: str = "image"
    """With --ray: the column of Parquet files that has the pictures."""

    def check_nodes(self) -> None:
        """Raise ValueError if these options make no sense."""
        super().check_nodes()
        if self.ray is None and self.into != "files":
            raise ValueError(f"--into {self.into} is for --ray")
        if self.ray is None and self.column != Fleet.column:
            raise ValueError(f"--column {self.column} is for --ray")


def on_ray(options: Any, out: str, make: Callable[[], cluster.Work]) -> int:
    """Do what a command with `Files` and `Fleet` does, on Ray; 0, or 2 if a picture failed."""
    names, mine = options.checked()
    if options.json is not None:
        raise ValueError(f"--json is not for --ray: see {out}/{cluster.manifest.FOLDER}")
    if str(images.STANDARD) in (*names, out):
        raise ValueError("standard input and output are not for --ray")
    # Other machines, and Ray where it runs already, have working folders of their own.
    names, out = tuple(map(remote.absolute, names)), remote.absolute(out)
    if out.lower().endswith(tuple(images.READABLE)) and not os.path.isdir(out):
        raise ValueError(f"--out {out}: with --ray a folder, not a picture")
    pieces = cluster.find(names, options.recursive, options.ending, options.column, out)
    pieces = cluster.sources.part(pieces, mine)
    destination = cluster.Destination(out, options.into, options.overwrite)
    _check_inputs(pieces, destination)
    done = destination.done()
    every = sum(len(piece.jobs) for piece in pieces)
    pieces = cluster.sources.left(pieces, done)
    total = sum(len(piece.jobs) for piece in pieces)
    shards = sum(bool(piece.shard) for piece in pieces)
    there = f", {every - total} already there" if every > total else ""
    in_shards = f", and those of {shards} shard{'s' * (shards != 1)}" if shards else ""
    print(f"{total} picture{'s' * (total != 1)} to do{there}{in_shards}", flush=True)
    if options.dry_run or not pieces:
        return 0
    run = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    manifest = cluster.Manifest(out, run)
    manifest.begin()
    with options.connected() as ray:
        return _report(
            cluster.run(ray, make(), pieces, destination, options.workers),
            manifest,
            destination,
            None if shards else total,
        )


def _check_inputs(pieces: list[cluster.Piece], destination: cluster.Destination) -> None:
    """Raise ValueError if a result would take the place of an input, its own or another."""

    @functools.cache
    def real(folder: str) -> str:
        return folder if remote.is_remote(folder) else os.path.realpath(folder)

    jobs = [job for piece in pieces for job in piece.jobs if destination.into == "files"]
    targets = [_split(remote.join(destination.address, job.name)) for job in jobs]
    folders = {real(folder) for folder, _ in targets}
    sources = ((*_split(job.source), job.source) for job in jobs)
    inputs = {(real(f), name): source for f, name, source in sources if real(f) in folders}
    for folder, name in targets:
        if source := inputs.get((real(folder), name)):
            raise ValueError(f"{source}: would be overwritten; choose another --out")


def _split(address: str) -> tuple[str, str]:
    folder, _, name = address.rpartition("/")
    return folder, name


def _report(
    finished: Any, manifest: cluster.Manifest, destination: cluster.Destination, total: int | None
) -> int:
    from tqdm import tqdm

    start = time.perf_counter()
    written, failed, notes = 0, 0, 0
    named: list[str] = []
    try:
        with tqdm(total=total, unit="picture", disable=None) as bar:
            for records in finished:
                bad = [record for record in records if record.error]
                named += [record.error for record in bad][: max(0, _NAMED - len(named))]
                failed += len(bad)
                written += len(records) - len(bad)
                notes += sum(bool(record.note) for record in records)
                # Shards bring their part of the manifest along.
                manifest.add(records if destination.into == "files" else bad)
                bar.update(len(records))
    finally:
        manifest.flush()
    took = time.perf_counter() - start
    print(f"{written} written to {destination.address} in {took:.1f} s")
    where = remote.join(manifest.folder, cluster.manifest.FOLDER)
    if notes:
        print(f"note: {notes} results lack something of the input, see {where}", file=sys.stderr)
    for failure in named:
        print(f"failed: {failure}", file=sys.stderr)
    if failed > len(named):
        print(f"failed: {failed - len(named)} more, see {where}", file=sys.stderr)
    return 2 if failed else 0
