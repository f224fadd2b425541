"""Many pictures with one command: which ones, and how far it is."""

import dataclasses
import gc
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from .. import __version__, images, remote
from ..files import check_possible
from ..messages import one_line, printable, say
from .reports import check_reports, write_report
from .streams import STANDARD

Job = tuple[Path, Path]  # input and output


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one command is to do.

    Attributes:
        jobs: inputs and outputs.
        out: the folder or file of the results.
        overlooked: files in its folders that look like pictures, but are not read.
        messages: the stream on which it says how far it is.
        json: file for what was done to each.
        records: what it will say of those that are not to be done.
        figures: input -> figure that is to be drawn of it.
    """

    jobs: list[Job]
    out: Path
    overlooked: tuple[Path, ...]
    messages: Any
    json: Path | None = None
    records: tuple[dict[str, Any], ...] = ()
    figures: Mapping[Path, Path] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done to one picture.

    Attributes:
        line: for people.
        details: for the JSON file.
        note: what the result lacks of the input, or nothing.
    """

    line: str
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Files:
    """Options of the commands that write one picture for each one they read."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders or patterns; - is standard input."""
    input: Annotated[tuple[str, ...], arg(aliases=["-i"])] = ()
    """The same, as an option."""
    recursive: Annotated[bool, arg(aliases=["-r"])] = False
    """Take the folders in folders, too; the results lie in folders of the same names."""
    format: Literal["png", "jpg", "webp", "tiff", "bmp"] | None = None
    """File format of the results; png, or that of --out FILE, by default."""
    suffix: str = ""
    """What the results' names have after the stem, such as _x4."""
    overwrite: bool = False
    """Replace results that exist."""
    skip_existing: bool = False
    """Pass over pictures whose result exists: continues an interrupted run."""
    shard: str = "1/1"
    """I/N: do every N-th picture, from the I-th, and leave the others to other machines."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    json: Path | None = None
    """Write what was done to each picture to this file; - is standard output. One that is there is
    replaced if it is such a report, or with --overwrite."""

    def plan(
        self, destination: str | None, default: Path | None = None, figures: Path | None = None
    ) -> Batch:
        """Inputs and outputs; says how many. Without pictures to do there are no jobs.

        Args:
            destination, default: folder or file of the results.
            figures: folder for a figure of each picture.
        """
        names, mine = self.checked()
        for name in (*names, destination or ""):
            if remote.is_remote(name):
                raise ValueError(f"{name}: an address is for --ray")
        out = default if destination is None else Path(destination)
        if destination is None and str(STANDARD) in names:
            out = STANDARD
        if out is None:
            raise ValueError("name a folder for the results: --out DIR")
        found = images.search(names, self.recursive, without=out)
        sources = found.files[mine]
        below = found.below[mine]
        jobs = self._jobs(sources, below, out, found.files)
        drawn: list[Job] = []
        if figures is not None:
            of = dict(zip(sources, below, strict=True))
            todo = [source for source, _ in jobs]
            ways = (self._existing, [of[source] for source in todo], found.files)
            drawn = images.plan_outputs(todo, figures, "_iterates.png", *ways)
        results = _targets(jobs)
        if both := {*results} & {*_targets(drawn)}:
            raise ValueError(f"{min(both)}: both a result and a figure; choose another --trace")
        check_reports({"--json": self.json}, self.overwrite, found.files, results + _targets(drawn))
        for path in results[:1] + _targets(drawn)[:1]:
            if path != STANDARD:
                check_possible(path)
        messages = sys.stderr if STANDARD in (out, *sources, self.json) else sys.stdout
        left = set(sources) - {source for source, _ in jobs}
        done = tuple(_record(source, None, "already there") for source in sources if source in left)
        batch = Batch(jobs, out, found.overlooked, messages, self.json, done, dict(drawn))
        skipped = len(left)
        say(
            f"{len(jobs)} picture{'s' * (len(jobs) != 1)} to do"
            + (f", {skipped} already there" if skipped else ""),
            messages,
        )
        if self.dry_run:
            for source, target in jobs:
                say(f"{source} -> {target}", messages)
        if self.dry_run or not jobs:
            name_overlooked(batch.overlooked)
            if self.json and not self.dry_run:
                _write_json(batch, [])
        return dataclasses.replace(batch, jobs=[]) if self.dry_run else batch

    def checked(self) -> tuple[tuple[str, ...], slice]:
        """What is named, and which of the pictures are for this process.

        Raises:
            ValueError: nothing is, or options make no sense.
        """
        names = self.inputs + self.input
        if not names:
            raise ValueError("name at least one picture, folder or pattern (see --help)")
        if self.overwrite and self.skip_existing:
            raise ValueError("--overwrite and --skip-existing exclude each other")
        if self.suffix != Path(self.suffix).name and self.suffix:
            raise ValueError(f"--suffix must be a part of a name, not {self.suffix}")
        part = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not part or not 1 <= int(part[1]) <= int(part[2]):
            raise ValueError(f"--shard must be I/N with I from 1 to N, not {self.shard}")
        return names, slice(int(part[1]) - 1, None, int(part[2]))

    @property
    def ending(self) -> str:
        """Of the names of results in a folder."""
        return f"{self.suffix}.{self.format or 'png'}"

    def appeared(self, job: Job) -> Done:
        """What is done where the result was not there at first, and is now.

        Raises:
            ValueError: it is not to be passed over.
        """
        source, target = job
        if not self.skip_existing:
            raise ValueError(f"{target}: appeared since; use --overwrite or --skip-existing")
        return Done(f"{source}: {target} is already there", {"status": "already there"})

    @property
    def _existing(self) -> Literal["overwrite", "skip", "refuse"]:
        return "overwrite" if self.overwrite else "skip" if self.skip_existing else "refuse"

    def _jobs(
        self, sources: Sequence[Path], below: Sequence[Path], out: Path, others: Sequence[Path]
    ) -> list[Job]:
        existing = self._existing
        one = out == STANDARD or (not out.is_dir() and out.suffix.lower() in images.READABLE)
        if not one:
            return images.plan_outputs(sources, out, self.ending, existing, below, others)
        if len(sources) != 1:
            raise ValueError(f"--out {out} is for one picture, not {len(sources)}: name a folder")
        if self.suffix:
            raise ValueError(f"--suffix is for results in a folder, not for --out {out}")
        if out == STANDARD:
            return [(sources[0], out)]
        format = images.format_of(out)
        if self.format and images.format_of(f"x.{self.format}") != format:
            raise ValueError(f"--out {out} and --format {self.format} contradict each other")
        return images.checked_plan([(sources[0], out)], existing, others)


def report(batch: Batch, finished: Iterable[tuple[Job, Future, float]]) -> int:
    """Show how far the batch is and what went wrong; `finished` as from `overlapped`.

    Returns:
        Exit code: 0, or 2 if a picture failed.
    """
    from tqdm import tqdm

    failures, notes, records = [], [], []
    start = time.perf_counter()
    total = len(batch.jobs)
    with tqdm(finished, total=total, unit="picture", disable=None) as bar:
        for (source, target), future, seconds in bar:
            record = _record(source, target, "written")
            try:
                done = future.result()
            # JAX raises RuntimeError where memory runs out.
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                failures.append(one_line(error, source))
                record |= {"status": "failed", "error": failures[-1]}
                bar.set_postfix_str(f"{len(failures)} failed")
                future = None
                gc.collect()  # all that was read hangs on the error, in a circle
            else:
                record |= {"seconds": round(seconds, 3), **done.details}
                if done.note:
                    notes.append(f"{source}: {done.note}")
                    record["note"] = done.note
                tqdm.write(printable(f"{done.line}  {seconds:.2f} s"), file=batch.messages)
                batch.messages.flush()
            records.append(record)
    took = time.perf_counter() - start
    where = "standard output" if batch.out == STANDARD else batch.out
    folder = os.sep if where == batch.out and batch.out.is_dir() else ""
    done = total - len(failures)
    say(f"{done} of {total} written to {where}{folder} in {took:.1f} s", batch.messages)
    for note in notes:
        say(f"note: {note}", sys.stderr)
    for failure in failures:
        say(f"failed: {failure}", sys.stderr)
    name_overlooked(batch.overlooked)
    if batch.json:
        _write_json(batch, records)
    return 2 if failures else 0


def _record(source: Path, target: Path | None, status: str) -> dict[str, Any]:
    there = {} if target is None else {"output": str(target)}
    return {"input": str(source), **there, "status": status}


def _targets(jobs: Sequence[Job]) -> list[Path]:
    return [target for _, target in jobs]


def name_overlooked(paths: Sequence[Path]) -> None:
    """Say which files in folders look like pictures, and were not read."""
    names = [str(path) for path in paths]
    if names:
        say(
            f"{len(names)} not read, though {'it looks' if len(names) == 1 else 'they look'} like "
            "images (save as PNG, give one without suffix or behind a link by its name): "
            + ", ".join(names),
            sys.stderr,
        )


def _write_json(batch: Batch, records: list[dict[str, Any]]) -> None:
    content = {
        "version": __version__,
        "pictures": [*batch.records, *records],
        "not_read": [str(path) for path in batch.overlooked],
    }
    assert batch.json is not None
    write_report(batch.json, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
