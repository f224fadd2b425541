"""`isrrescnet compare`."""

import dataclasses
import sys
from pathlib import Path

from tyro.conf import Positional

from .. import images
from ..messages import say
from .reports import check_out


@dataclasses.dataclass(frozen=True)
class Compare:
    """Draw two pictures side by side, a part of each enlarged, as papers do."""

    a: Positional[Path]
    """The picture on the left."""
    b: Positional[Path]
    """The picture on the right; the smaller of the two is enlarged."""
    out: Path
    """The figure: .png, .pdf or .svg."""
    truth: Path | None = None
    """The high-resolution picture, for the PSNR in the captions."""
    crop: tuple[int, int, int, int] | None = None
    """x y width height of the part that is enlarged, in the larger picture; chosen by default."""
    overwrite: bool = False
    """Replace the figure if it exists."""

    def run(self) -> int:
        """Draw it."""
        from ..evaluation.figures import compare

        check_out(self.out, self.overwrite, (self.a, self.b, self.truth))
        a, b = images.read_rgb(self.a), images.read_rgb(self.b)
        truth = None if self.truth is None else images.read_rgb(self.truth)
        titles = shortest_names(self.a, self.b)
        compare(a, b, self.out, truth=truth, titles=titles, crop=self.crop)
        say(str(self.out), sys.stdout)
        return 0


def shortest_names(a: Path, b: Path) -> tuple[str, str]:
    """What tells the two apart: the names, with suffixes or folders where they must be.

    >>> shortest_names(Path("in/a.png"), Path("out/b.png"))
    ('a', 'b')
    >>> shortest_names(Path("in/a.png"), Path("out/a.png"))
    ('in/a.png', 'out/a.png')
    """
    pairs = [(a.stem, b.stem), (a.name, b.name)]
    pairs += [(str(Path(*a.parts[-n:])), str(Path(*b.parts[-n:]))) for n in (2, len(b.parts))]
    return next((pair for pair in pairs if pair[0] != pair[1]), pairs[-1])
