"""Files that take the place of nothing else; among them reports of what a command has done."""

import codecs
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from .. import images
from ..files import atomic_path, check_possible, is_file
from .streams import STANDARD

# How those of all commands begin.
_OURS = (
    b'{\n  "version": "',
    b'{\n  "model": "',
    b"dataset,scale,image,protocol",
    b"| PSNR/SSIM on Y |",
)


def check_reports(
    reports: Mapping[str, Path | None],
    overwrite: bool,
    inputs: Iterable[Path] = (),
    results: Iterable[Path] = (),
) -> None:
    """Raise ValueError or OSError unless these can be written, before the work and not after it.

    A file that is there is replaced if it is a report, or another text and `overwrite`; never a
    picture, weights or a kernel.

    Args:
        reports: option of the command line -> file, or "-"; None where it is not wanted.
        overwrite: see above.
        inputs, results: files of the command that are not to be replaced, either.
    """
    taken = {os.path.realpath(path): "that of a result" for path in results}
    for option, path in reports.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in taken:
            raise ValueError(f"{option} {path} is {taken[real]}: name another file")
        taken[real] = "another report"
        if path == STANDARD:
            continue
        check_possible(path)
        if path.exists() and any(s != STANDARD and path.samefile(s) for s in inputs):
            raise ValueError(f"{option} {path} is one of the pictures: name another file")
        if is_file(path) and (start := _start(path)):
            if path.suffix.lower() in images.READABLE or not _is_text(start):
                raise ValueError(f"{option} {path}: there is one that is no report: name another")
            if not overwrite and not start.startswith(_OURS):
                raise ValueError(f"{option} {path}: already there, and no report; use --overwrite")


def check_out(path: Path, overwrite: bool, inputs: Iterable[Path | None] = ()) -> None:
    """Raise ValueError or OSError if a result cannot be written there, or must not be."""
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: already there; use --overwrite")
    if path.resolve() in {input.resolve() for input in inputs if input}:
        raise ValueError(f"{path}: would overwrite an input")
    check_possible(path)


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(4096)


def _is_text(start: bytes) -> bool:
    try:
        return "\0" not in codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False


def write_report(path: Path, text: str) -> None:
    """Write it to a file, whole or not at all, or to standard output where the name is "-"."""
    if path == STANDARD:
        print(text, end="", flush=True)
        return
    with atomic_path(path) as temporary:
        # Names that are no text become escapes, which JSON has as well.
        temporary.write_text(text, "utf-8", "backslashreplace")
