"""Many pictures with one command: which ones, and how far it is."""

import dataclasses
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from .. import images
from ..messages import one_line

Job = tuple[Path, Path]  # input and output


@dataclasses.dataclass(frozen=True)
class Files:
    """Options of the commands that write one picture for each one they read."""

    inputs: Positional[tuple[str, ...]] = ()
    """Files, folders or patterns."""
    format: Literal["png", "jpg", "webp", "tiff", "bmp"] = "png"
    """File format of the results."""
    overwrite: bool = False
    """Replace results that exist."""
    skip_existing: bool = False
    """Pass over pictures whose result exists: continues an interrupted run."""
    shard: str = "1/1"
    """I/N: do every N-th picture, from the I-th, and leave the others to other machines."""

    def plan(self, out: Path) -> list[Job]:
        """Pairs of input and output; says how many."""
        if not self.inputs:
            raise ValueError("name at least one picture, folder or pattern (see --help)")
        if self.overwrite and self.skip_existing:
            raise ValueError("--overwrite and --skip-existing exclude each other")
        existing = "overwrite" if self.overwrite else "skip" if self.skip_existing else "refuse"
        part = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        if not part or not 1 <= int(part[1]) <= int(part[2]):
            raise ValueError(f"--shard must be I/N with I from 1 to N, not {self.shard}")
        sources = images.find(self.inputs)[int(part[1]) - 1 :: int(part[2])]
        plan = images.plan_outputs(sources, out, f".{self.format}", existing)
        skipped = len(sources) - len(plan)
        print(
            f"{len(plan)} picture{'s' * (len(plan) != 1)} to do"
            + (f", {skipped} already there" if skipped else ""),
            flush=True,
        )
        return plan


def report(plan: Sequence[Job], finished: Iterable[tuple[Job, Future, float]], out: Path) -> int:
    """Show how far the plan is and what went wrong; `finished` as from `overlapped`.

    Returns:
        Exit code: 0, or 2 if a picture failed.
    """
    from tqdm import tqdm

    failures = []
    start = time.perf_counter()
    with tqdm(finished, total=len(plan), unit="picture", disable=None) as bar:
        for (source, _), done, seconds in bar:
            try:
                line = done.result()
            # JAX raises RuntimeError where memory runs out.
            except (OSError, ValueError, MemoryError, RuntimeError) as error:
                failures.append(one_line(error, source))
                bar.set_postfix_str(f"{len(failures)} failed")
            else:
                tqdm.write(f"{line}  {seconds:.2f} s")
                sys.stdout.flush()
    done = len(plan) - len(failures)
    print(f"{done} of {len(plan)} written to {out}{os.sep} in {time.perf_counter() - start:.1f} s")
    for failure in failures:
        print(f"failed: {failure}", file=sys.stderr)
    return 2 if failures else 0
