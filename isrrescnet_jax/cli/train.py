"""`isrrescnet train`."""

import dataclasses

from tyro.conf import Positional

from .startup import uncollected


@dataclasses.dataclass(frozen=True)
class Train:
    """Train from a recipe: `isrrescnet train RECIPE.py --help` shows its fields."""

    arguments: Positional[tuple[str, ...]] = ()
    """What follows `train`; which options there are, the recipe says."""

    def run(self) -> int:
        """Train; 0, or 1 if the run diverged."""
        with uncollected():
            from ..train import run_recipe

        return run_recipe(list(self.arguments))
