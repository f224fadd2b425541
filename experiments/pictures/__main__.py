"""All pictures of the README and of the documentation, with one command.

    python -m experiments.pictures [--only docs/pictures/iterates.png ...]

Photographs are those that come with scikit-image. Figures are of the numbers in the repository
(`training_x4.json`, by `python -m experiments.weights log`, and `quality_speed.json`, by `python -m
experiments.quality_speed`); nothing is measured here but the PSNR in the captions. Those of studies
are made by the studies.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import tyro

from . import curves, page, photographs, physics

ROOT = Path(__file__).parents[2]
PUBLISHED = {"x2": 37.67, "x3": 34.08, "x4": 31.63}  # Set5, in the paper


@dataclasses.dataclass(frozen=True)
class Options:
    """What is made.

    Attributes:
        only: these, by their paths; all by default.
        out: where the paths begin.
        side: of the crops, in high-resolution pixels.
    """

    only: tuple[str, ...] = ()
    out: Path = ROOT
    side: int = 96


def _numbers(name: str) -> Any:
    return json.loads((ROOT / "experiments" / name).read_text())


def _training(path: Path) -> None:
    curves.training(path, {"x4": _numbers("training_x4.json")["rows"]})


def _quality_speed(path: Path) -> None:
    curves.quality_speed(path, _numbers("quality_speed.json"), PUBLISHED)


def _demo(path: Path) -> None:
    from ..demo_screenshot import screenshot

    screenshot(path)


def pictures(side: int) -> Mapping[str, Callable[[Path], None]]:
    """What makes each of them, by its path in the repository."""
    return {
        "examples/astronaut.png": photographs.example,
        "examples/before_after.png": partial(photographs.crops, side=side),
        "docs/pictures/iterates.png": partial(photographs.iterates, side=side),
        "docs/pictures/training.png": _training,
        "docs/pictures/quality_speed.png": _quality_speed,
        "docs/pictures/borders.png": physics.borders,
        "docs/pictures/fractions.png": physics.fractions,
        "docs/pictures/adjoints.png": physics.adjoints,
        "docs/pictures/minutes.png": page.minutes,
        "docs/pictures/demo.png": _demo,
    }


def main(options: Options) -> None:
    """Make them."""
    known = pictures(options.side)
    if unknown := set(options.only) - set(known):
        raise SystemExit(f"no such picture: {', '.join(sorted(unknown))}")
    for name in options.only or known:
        known[name](options.out / name)
        print(name, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
