"""Which picture files are meant, and which output belongs to which input."""

import dataclasses
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from .codecs import READABLE

STANDARD = Path("-")  # standard input, or standard output
_LONGEST_NAME = 255  # bytes, on nearly every file system

# Pictures that are not read, by suffix; and how files without one begin that are pictures.
_UNREAD = re.compile(
    r"\.(heics?|heif|hif|avifs|jp2|j2[kc]|jpf|jpx|jpm|jxl|jxr|pjpeg|mpo|dib|tga|psd|psb|xcf|ico|icns"
    r"|dds|exr|hdr|sgi|p[bgpn]m|pam"
    r"|pcx|qoi|svg|dng|cr2|cr3|nef|arw|orf|rw2|raf|pef)",
    re.IGNORECASE,
)
_BEGINNINGS = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\xff\x0a")
_CONTAINERS = (b"WEBP", b"ftypavi", b"ftyphei", b"ftypmif", b"ftypjp2", b"jP  ", b"JXL ")


@dataclasses.dataclass(frozen=True)
class Found:
    """Files that inputs stand for.

    Attributes:
        files: each once, in order.
        below: for each the folder, below the one that was named, that it lies in.
        overlooked: files in these folders that look like pictures, but are not read, links to
            pictures that lead nowhere, and links to folders that were to be searched.
    """

    files: tuple[Path, ...]
    below: tuple[Path, ...]
    overlooked: tuple[Path, ...]


def find(inputs: Iterable[str | os.PathLike]) -> list[Path]:
    """The image files that files, folders and patterns stand for, each once, in order.

    A folder stands for the images in it, by their suffix, sorted, without hidden files and without
    folders further down. A pattern ("holiday/*.jpg", "**" included) counts where no file has that
    very name, for shells that do not expand it. A file given by name need not have a known suffix.

    Raises:
        FileNotFoundError: a name or pattern that matches nothing.
        ValueError: a folder without images.
    """
    return list(search(inputs).files)


def search(
    inputs: Iterable[str | os.PathLike], recursive: bool = False, without: Path | None = None
) -> Found:
    """`find`, with what it passes over and where files lie.

    Args:
        inputs: as for `find`; "-" is itself.
        recursive: take folders further down, too.
        without: a folder that is not searched then, such as that of the results.
    """
    found: dict[Path, tuple[Path, Path]] = {}
    overlooked: dict[Path, None] = {}
    for name in inputs:
        if Path(name) == STANDARD:
            found[STANDARD] = (STANDARD, Path())
            continue
        paths, root = [Path(name)], None
        if not paths[0].exists():
            paths = [Path(match) for match in sorted(glob.glob(str(name), recursive=True))]
            if "**" in Path(name).parts:
                root = _before_pattern(Path(name))
        if not paths:
            raise FileNotFoundError(f"{name}: no such file or folder")
        for path in paths:
            if not path.is_dir():
                found.setdefault(path.resolve(), (path, _below(path, root or path.parent)))
                continue
            files, unread = _images_in(path, recursive, without)
            overlooked |= dict.fromkeys(unread)
            for file in files:
                found.setdefault(file.resolve(), (file, _below(file, root or path)))
    files = tuple(file for file, _ in found.values())
    below = tuple(folder for _, folder in found.values())
    return Found(files, below, tuple(path for path in overlooked if path not in files))


def _before_pattern(path: Path) -> Path:
    parts = list(path.parts)
    return Path(*parts[: next(i for i, part in enumerate(parts) if glob.has_magic(part))])


def _below(file: Path, root: Path) -> Path:
    try:
        return file.parent.relative_to(root)
    except ValueError:  # a link, or ".." in between
        return Path()


def _images_in(
    folder: Path, recursive: bool, without: Path | None
) -> tuple[list[Path], list[Path]]:
    """Images to read, and files that look like images."""
    entries = [p for p in _files_in(folder, recursive, without) if not p.name.startswith(".")]
    visible = [path for path in entries if path.is_file()]
    lost = [
        path
        for path in entries
        if path.is_symlink()
        and (path.is_dir() if path.exists() else path.suffix.lower() in READABLE)
    ]
    files = [path for path in visible if path.suffix.lower() in READABLE]
    others = [path for path in visible if path.suffix.lower() not in READABLE]
    unread = [path for path in others if _UNREAD.fullmatch(path.suffix) or _begins_like_one(path)]
    unread += lost if recursive else [path for path in lost if not path.exists()]
    if not files:
        seen = f"; {len(unread)} look like images that are not read" if unread else ""
        raise ValueError(f"{folder}: no images ({', '.join(READABLE)}) in this folder{seen}")
    return files, unread


def _files_in(folder: Path, recursive: bool, without: Path | None) -> Iterator[Path]:
    if not recursive:
        yield from sorted(folder.iterdir())
        return
    left_out = without and without.resolve()
    for here, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".") and Path(here, name).resolve() != left_out
        ]
        linked = [name for name in folders if Path(here, name).is_symlink()]  # not followed
        yield from (Path(here, name) for name in sorted([*names, *linked]))


def _raise(error: OSError) -> None:
    raise error


def _begins_like_one(path: Path) -> bool:
    """Whether a file begins like a picture."""
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    bitmap = start.startswith(b"BM") and start[6:10] == bytes(4)
    return bitmap or start.startswith(_BEGINNINGS) or any(mark in start for mark in _CONTAINERS)


Existing = Literal["refuse", "overwrite", "skip"]


def plan_outputs(
    inputs: Iterable[str | os.PathLike],
    out_dir: str | os.PathLike,
    suffix: str = ".png",
    existing: Existing = "refuse",
    below: Sequence[Path] | None = None,
    others: Iterable[Path] = (),
) -> list[tuple[Path, Path]]:
    """Pairs of input file and output file, `out_dir / below / (stem of the input + suffix)`.

    A name that gets longer than file systems allow is cut before the suffix.

    Args:
        inputs: existing files, as `find` gives them.
        out_dir: need not exist yet.
        existing: whether an output file that exists is an error, replaced, or left out of the plan.
        below: for each input a folder in `out_dir`, as `search` gives them.
        others: more files that count as inputs where these are not to be overwritten.

    Raises:
        ValueError: two inputs have the same output (also if only upper and lower case differ, which
            many file systems do not tell apart), an output is one of the inputs or a folder, or
            exists and `existing` is "refuse".
    """
    inputs, out_dir = [Path(path) for path in inputs], Path(out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise ValueError(f"{out_dir}: exists, but is not a folder")
    folders = below or [Path()] * len(inputs)
    return checked_plan(
        [
            (source, out_dir / folder / result_name(_stem(source), suffix))
            for source, folder in zip(inputs, folders, strict=True)
        ],
        existing,
        others,
    )


def _stem(source: Path) -> str:
    return "stdin" if source == STANDARD else source.stem


def checked_plan(
    plan: list[tuple[Path, Path]], existing: Existing = "refuse", others: Iterable[Path] = ()
) -> list[tuple[Path, Path]]:
    """Pairs of input and output, less those that are left out; raises as `plan_outputs`."""
    # The system's identity of a file sees through links and through case.
    inputs = [path for path in (*(source for source, _ in plan), *others) if path != STANDARD]
    identities = {(status.st_dev, status.st_ino) for status in map(os.stat, inputs)}
    owner: dict[str, Path] = {}
    for source, target in plan:
        other = owner.setdefault(str(target).casefold(), source)
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


def result_name(stem: str, suffix: str) -> str:
    """`stem` + `suffix`, cut before the suffix where it is longer than file systems allow.

    >>> result_name("holiday/beach", "_x4.png")
    'holiday/beach_x4.png'

    Raises:
        ValueError: nothing would be left of the stem.
    """
    while len(os.fsencode((stem + suffix).rpartition("/")[2])) > _LONGEST_NAME:
        if len(stem.rpartition("/")[2]) < 2:
            raise ValueError(f"{suffix[:20]}...: too long for a name, which ends at 255 bytes")
        stem = stem[:-1]
    return stem + suffix
