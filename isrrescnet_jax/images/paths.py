"""Which picture files are meant, and which output belongs to which input."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from .codecs import FORMATS


def find(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The image files that files, folders and patterns stand for, each once, in order.

    A folder stands for the images in it, by their suffix, sorted, without hidden files and without
    folders further down. A pattern ("holiday/*.jpg", "**" included) counts where no file has that
    very name, for shells that do not expand it. A file given by name need not have a known suffix.

    Raises:
        FileNotFoundError: a name or pattern that matches nothing.
        ValueError: a folder without images.
    """
    found: dict[Path, Path] = {}
    for name in inputs:
        paths = [Path(name)]
        if not paths[0].exists():
            paths = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
        if not paths:
            raise FileNotFoundError(f"{name}: no such file or folder")
        for path in paths:
            for file in _images_in(path) if path.is_dir() else [path]:
                found.setdefault(file.resolve(), file)
    return list(found.values())


def _images_in(folder: Path) -> list[Path]:
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in FORMATS and not path.name.startswith(".") and path.is_file()
    ]
    if not files:
        raise ValueError(f"{folder}: no images ({', '.join(FORMATS)}) in this folder")
    return files


def plan_outputs(
    inputs: Iterable[str | os.PathLike],
    out_dir: str | os.PathLike,
    suffix: str = ".png",
    existing: Literal["refuse", "overwrite", "skip"] = "refuse",
) -> list[tuple[Path, Path]]:
    """Pairs of input file and output file, `out_dir / (stem of the input + suffix)`.

    Args:
        inputs: existing files, as `find` gives them.
        out_dir: need not exist yet.
        existing: whether an output file that exists is an error, replaced, or left out of the plan.

    Raises:
        ValueError: two inputs have the same output (also if only upper and lower case differ, which
            many file systems do not tell apart), an output is one of the inputs or a folder, or
            exists and `existing` is "refuse".
    """
    inputs, out_dir = [Path(path) for path in inputs], Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"{out_dir}: exists, but is not a folder")
    plan = [(source, out_dir / (source.stem + suffix)) for source in inputs]

    # The system's identity of a file sees through links and through case.
    identities = {(status.st_dev, status.st_ino) for status in map(os.stat, inputs)}
    owner: dict[str, Path] = {}
    for source, target in plan:
        other = owner.setdefault(target.name.casefold(), source)
        if other is not source:
            raise ValueError(f"{other} and {source} would both become {target}: rename one")
        if target.is_dir():
            raise ValueError(f"{target}: a folder is in the way of the output")
        if target.exists() and (target.stat().st_dev, target.stat().st_ino) in identities:
            raise ValueError(f"{target}: would overwrite an input; choose another output folder")

    if existing == "refuse":
        taken = [str(target) for _, target in plan if target.exists()]
        if taken:
            names = ", ".join(taken[:3]) + (f" and {len(taken) - 3} more" if taken[3:] else "")
            raise ValueError(f"{names}: already there; use --overwrite or --skip-existing")
    elif existing == "skip":
        plan = [(source, target) for source, target in plan if not target.exists()]
    return plan
