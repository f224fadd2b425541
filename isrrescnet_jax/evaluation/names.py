"""Which low-resolution file belongs to which high-resolution one."""

import re
from collections.abc import Sequence
from pathlib import Path


def match(
    hr: Sequence[Path], lr: Sequence[Path], scale: int
) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pair HR and LR files by name, in the order of the HR files.

    Equal names belong together. Of the rest, those do that are equal without what people append to
    them: "butterfly" and "butterflyx4" or "butterfly_LRBI_x4", "img_003_SRF_4_HR" and
    "img_003_SRF_4_LR"; at scale 4, that is. Case and file format do not matter.

    Returns:
        The pairs, and one line about each file that is left over.
    """
    left = [hr, lr]
    pairs: list[tuple[Path, Path]] = []
    for name in (lambda path: path.stem.casefold(), lambda path: _plain_name(path.stem, scale)):
        groups: dict[str, tuple[list[Path], list[Path]]] = {}
        for side, paths in enumerate(left):
            for path in paths:
                groups.setdefault(name(path), ([], []))[side].append(path)
        pairs += [(high[0], low[0]) for high, low in groups.values() if len(high) == len(low) == 1]
        paired = {path for pair in pairs for path in pair}
        left = [[path for path in paths if path not in paired] for paths in left]
    problems = []
    for high, low in groups.values():
        if high and low and len(high + low) > 2:
            names = ", ".join(map(str, high + low))
            problems.append(f"{names}: which belong together? Their names are too alike")
        elif not (high and low):
            missing = "LR" if high else "HR"
            problems += [f"{path}: no {missing} image of that name" for path in high + low]
    order = {path: place for place, path in enumerate(hr)}
    return sorted(pairs, key=lambda pair: order[pair[0]]), problems


def _plain_name(stem: str, scale: int) -> str:
    """The stem without the parts that tell resolution, scale or the way of degradation."""
    parts = rf"x{scale}|{scale}x|srf_?{scale}|hr|gt|lr|lrbi|lrbicubic|bi|bicubic"
    # Parts follow a separator; the scale may do without.
    ending = re.compile(rf"(?<=.)[ ._-]+({parts})$|(?<=[^ ._-])x{scale}$")
    name = stem.casefold()
    while (shorter := ending.sub("", name)) != name:
        name = shorter
    return name
