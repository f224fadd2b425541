"""Commands around the shipped weights: what comes before a training run, and after it.

The weights in `isrrescnet_jax/assets` are those of two recipes, `exact.py` (x2, x3, x4) and
`ten.py` (x2_k10, x3_k10, x4_k10), which say how they are run; what each file went through until
then, and how good it is, is in MODEL_CARD.md beside them. For every scale:

    python -m experiments.weights crops kodak/ crops/
    isrrescnet train experiments/exact.py --scale 4 --data train/ --validation crops/ \\
        --workdir runs/x4
    python -m experiments.weights finish runs/x4/weights.safetensors x4.safetensors --about "..."
    python -m experiments.weights curve curves.png runs/x2 runs/x3 runs/x4
    python -m experiments.weights log runs/x4 experiments/training_x4.json --before 27.4244
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional, subcommand

from isrrescnet_jax import Weights, load_weights, save_weights
from isrrescnet_jax.weights import load_weights_and_metadata

from . import harness


@dataclasses.dataclass(frozen=True)
class Finish:
    """Keep the iterations that were trained, and say what the weights are."""

    source: Positional[Path]
    """`weights.safetensors` of a run."""
    target: Positional[Path]
    """File to write."""
    about: str
    """For the metadata, which `isrrescnet info` shows."""
    data: str = "T91, BSDS500 (train and test), 46 free photographs; see MODEL_CARD.md"
    """What they were trained on."""
    iterations: int = 1
    """So many, from the first."""

    def run(self) -> None:
        """Write them."""
        weights, metadata = load_weights_and_metadata(self.source)
        kept = {k: weights.params[k][: self.iterations] for k in ("alpha", "w")}
        params = weights.params | kept
        config = dataclasses.replace(weights.config, iterations=self.iterations)
        figures = json.loads(metadata["figures"])
        batches = json.loads(metadata["training"])["data"]
        recipe = (
            f"{figures['step']} steps of {batches['batch']} patches of {batches['patch']}x"
            f"{batches['patch']} and what went before, see MODEL_CARD.md"
        )
        about = {"about": self.about, "recipe": recipe, "data": self.data}
        save_weights(Weights(params, config), self.target, about)


@dataclasses.dataclass(frozen=True)
class Lengthen:
    """Put iterations that move little before the trained one: a start for training all of them.

    On reference physics, where bicubic interpolation U goes through its samples, D U = 1: so
    z_0 = x_0 - U (D x_0 - y) has D z_0 = y, the data term leaves it as it is, and if N moves
    little, the trained iteration at the end sees what it was trained on. (Repeated instead, it
    meets its own results and spoils them.)
    """

    source: Positional[Path]
    """Weights; only their first iteration is kept."""
    target: Positional[Path]
    """File to write."""
    iterations: int = 10
    """In all."""
    log_radius: float = -1.0
    """Of the new ones. With -1 each brings x4 nearer to the truth from the beginning, and the last
    has to adapt to that; with -3 nothing is lost, but they open slowly in training."""
    log_momentum: float = -5.0
    """Of all."""

    def run(self) -> None:
        """Write them."""
        weights = load_weights(str(self.source))
        if weights.config.physics != "reference":
            raise ValueError(f"{self.source}: this is for reference physics, where D U = 1")
        alpha = np.repeat(np.asarray(weights.params["alpha"][:1]), self.iterations)
        alpha[:-1] = self.log_radius
        params = weights.params | {"alpha": alpha, "w": np.full_like(alpha, self.log_momentum)}
        config = dataclasses.replace(weights.config, iterations=self.iterations)
        save_weights(Weights(params, config), self.target)


@dataclasses.dataclass(frozen=True)
class Crops:
    """The middle of each validation image: all of Kodak takes minutes on a CPU, each time."""

    source: Positional[Path]
    """Folder of images."""
    target: Positional[Path]
    """Folder to write to."""
    side: int = 192
    """Of the crops, in pixels; a multiple of all scales."""

    def run(self) -> None:
        """Write them."""
        self.target.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.source.glob("*.png")):
            image = Image.open(path)
            left, top = ((length - self.side) // 2 for length in image.size)
            image.crop((left, top, left + self.side, top + self.side)).save(self.target / path.name)


@dataclasses.dataclass(frozen=True)
class Curve:
    """Draw validation PSNR and loss of runs."""

    target: Positional[Path]
    """Picture to write."""
    runs: Positional[tuple[Path, ...]]
    """Their WORKDIRs."""

    def run(self) -> None:
        """Draw it."""
        from .pictures.curves import training

        runs = {}
        for folder in self.runs:
            scale = json.loads((folder / "config.json").read_text())["model"]["scale"]
            runs[f"x{scale}"] = _lines(folder)
        training(self.target, runs)


@dataclasses.dataclass(frozen=True)
class Log:
    """Keep the curves of a run, without what its machine makes of them."""

    source: Positional[Path]
    """Its WORKDIR."""
    target: Positional[Path]
    """JSON to write."""
    before: float | None = None
    """Validation PSNR of the weights that it went on from."""

    def run(self) -> None:
        """Write it."""
        names = ("step", "loss", "learning_rate", "validation_psnr")
        rows = [{n: line[n] for n in names if n in line} for line in _lines(self.source)]
        if self.before is not None:
            rows.insert(0, {"step": 0, "validation_psnr": self.before})
        rounded = [{n: round(value, 6) for n, value in row.items()} for row in rows]
        harness.write_json(self.target, rounded, "jax", "optax")


def _lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Lengthen, subcommand("lengthen")]
        | Annotated[Crops, subcommand("crops")]
        | Annotated[Curve, subcommand("curve")]
        | Annotated[Log, subcommand("log")]
        | Annotated[Finish, subcommand("finish")],
        description=__doc__,
    )
    command.run()
