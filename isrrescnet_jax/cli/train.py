"""`isrrescnet train`."""

import argparse
import dataclasses
import os

from tyro.conf import Positional

from ..supervision import LOST_AFTER, supervised
from .startup import uncollected


@dataclasses.dataclass(frozen=True)
class Train:
    """Train from a recipe: `isrrescnet train RECIPE.py --help` shows its fields."""

    arguments: Positional[tuple[str, ...]] = ()
    """What follows `train`; which options there are, the recipe says."""

    def run(self) -> int:
        """Train; 0, 1 if the run diverged, 3 if a process of several was lost."""
        arguments = list(self.arguments)
        options = watched(arguments)
        if options is None:
            return _train(arguments)
        # Longer than the others need to notice that this process is gone.
        return supervised(lambda: _train(arguments), options.retries, options.lost_after + 10)


def watched(arguments: list[str]) -> argparse.Namespace | None:
    """What a parent must know, if the run should have one: of several processes, or with retries.

    >>> watched(["r.py", "--workdir", "w", "--coordinator", "a:1", "--retries=2"]).retries
    2
    >>> watched(["r.py", "--workdir", "w"])
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    known.add_argument("--distributed", action="store_true")
    known.add_argument("--coordinator")
    known.add_argument("--processes")
    known.add_argument("--retries", type=int, default=0)
    known.add_argument("--lost-after", "--lost_after", type=float, default=LOST_AFTER)
    try:
        options = known.parse_known_args(arguments)[0]
    except argparse.ArgumentError:
        return None  # the recipe's own parser explains it
    several = options.distributed or options.coordinator or options.processes
    wanted = (several or options.retries) and not {"-h", "--help"} & set(arguments)
    return options if wanted and hasattr(os, "fork") else None


def _train(arguments: list[str]) -> int:
    with uncollected():
        from ..train import run_recipe

    return run_recipe(arguments)
