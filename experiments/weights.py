"""How the weights in `isrrescnet_jax/assets` were made.

    python -m convert starter.pth starter.safetensors
    python -m experiments.weights start starter.safetensors start.safetensors
    export XLA_FLAGS=--xla_force_host_platform_device_count=2
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=1
    options="--data train/ --data.skip-bad --data.patch 96 --data.batch 2 --curriculum 0 1 \\
        --backward full --precision highest --optimizer adam --schedule cosine --ema-decay 0.98"
    isrrescnet train experiments/x3.py --workdir runs/x3 --init start.safetensors \\
        --steps 1200 --warmup-steps 50 --learning-rate 1e-3 $options
    isrrescnet train experiments/x4.py --workdir runs/x4 --init runs/x3/weights.safetensors \\
        --steps 520 --warmup-steps 20 --learning-rate 1e-3 $options
    isrrescnet train experiments/x2.py --workdir runs/x2 --init runs/x3/weights.safetensors \\
        --steps 520 --warmup-steps 20 --learning-rate 1e-3 $options
    python -m experiments.weights finish runs/x3/weights.safetensors x3.safetensors --about "..."

and so for x2 and x4; then with twice as many, smaller patches:

    python -m experiments.weights crops kodak/ crops/
    options="--data train/ --data.skip-bad --data.batch 4 --model.iterations 1 \\
        --backward full --precision highest --optimizer adam --schedule cosine --warmup-steps 50 \\
        --learning-rate 1e-3 --ema-decay 0.99 --validation crops/ --validate-every 200"
    isrrescnet train experiments/x2.py --workdir runs/x2b --init x2.safetensors \\
        --data.seed 11 --data.patch 64 --steps 2200 $options
    isrrescnet train experiments/x3.py --workdir runs/x3b --init runs/x2b/weights.safetensors \\
        --data.seed 11 --data.patch 66 --steps 600 $options
    isrrescnet train experiments/x4.py --workdir runs/x4c --init runs/x3b/weights.safetensors \\
        --data.seed 21 --data.patch 64 --steps 2600 $options
    isrrescnet train experiments/x3.py --workdir runs/x3d --init runs/x3b/weights.safetensors \\
        --data.seed 22 --data.patch 66 --steps 1800 $options
    isrrescnet train experiments/x2.py --workdir runs/x2d --init runs/x2b/weights.safetensors \\
        --data.seed 23 --data.patch 64 --steps 1800 $options
    isrrescnet train experiments/x4.py --workdir runs/x4e --init runs/x4c/weights.safetensors \\
        --data.seed 51 --data.patch 64 --steps 3400 --clip-norm 20 $options
    isrrescnet train experiments/x3.py --workdir runs/x3f --init runs/x3d/weights.safetensors \\
        --data.seed 52 --data.patch 66 --steps 850 --clip-norm 20 $options --learning-rate 7e-4
    isrrescnet train experiments/x2.py --workdir runs/x2g --init runs/x2d/weights.safetensors \\
        --data.seed 71 --data.patch 64 --steps 2200 --clip-norm 20 $options
    isrrescnet train experiments/x3.py --workdir runs/x3g --init runs/x3f/weights.safetensors \\
        --data.seed 72 --data.patch 66 --steps 650 --clip-norm 20 $options --learning-rate 7e-4 \\
        --validate-every 130
    isrrescnet train experiments/x4.py --workdir runs/x4h --init runs/x4e/weights.safetensors \\
        --data.seed 91 --data.patch 64 --steps 3800 --clip-norm 20 $options
    isrrescnet train experiments/x2.py --workdir runs/x2h --init runs/x2g/weights.safetensors \\
        --data.seed 92 --data.patch 64 --steps 3800 --clip-norm 20 $options

Then on a GPU (NVIDIA H200, jax 0.11.2), the three scales side by side, first one iteration and from
its weights all ten; INIT is `weights.safetensors` of the last run above, x3g, x4h or x2h:

    options="--data train/ --data.skip-bad --data.repeats 64 --data.patch 120 --data.batch 10 \\
        --backward full --dtype bfloat16 --optimizer adam --schedule cosine --clip-norm 20 \\
        --validation crops/"
    isrrescnet train experiments/x4.py --workdir runs/x4_1 --init INIT $options \\
        --model.iterations 1 --data.seed 101 --steps 5000 --warmup-steps 100 \\
        --learning-rate 1e-3 --ema-decay 0.999 --validate-every 1000
    python -m experiments.weights lengthen runs/x4_1/weights.safetensors x4_start.safetensors \\
        --log-radius -1
    isrrescnet train experiments/x4.py --workdir runs/x4_2 --init x4_start.safetensors $options \\
        --model.iterations 10 --data.seed 102 --steps 797 --warmup-steps 31 \\
        --learning-rate 5e-4 --ema-decay 0.99 --validate-every 160
    python -m experiments.weights finish runs/x4_1/weights.safetensors x4.safetensors --about "..."
    python -m experiments.weights finish runs/x4_2/weights.safetensors x4_k10.safetensors \\
        --iterations 10 --about "..."

and so for x3 (second stage `--steps 987 --warmup-steps 39 --validate-every 198`) and x2 (985
instead of 987). That took ten minutes in all. When they were up, SIGTERM ended the last two after
891 and 895 steps, and their weights are those of the checkpoints:

    python -m experiments.weights stopped runs/x3_2 runs/x3_2/weights.safetensors

The data are T91, BSDS500 (train and test) and 46 photographs. What counted in the beginning was to
make the projection inactive: the residual of the first weights is so much larger than the ball that
it always ends on its surface, and then no gradient says how large it should be. `start` widens the
ball of the first iteration and shrinks the residual to a size that helps.
"""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro
from PIL import Image
from tyro.conf import Positional, subcommand

from isrrescnet_jax import ModelConfig, Weights, load_weights, save_weights
from isrrescnet_jax.weights import load_weights_and_metadata

SHRINK = {"encoder": 0.3, "compress": 0.5, "decoder": 0.3}
LOG_RADIUS = 3.5


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to start from."""

    source: Positional[Path]
    """Weights of any kind."""
    target: Positional[Path]
    """File to write."""

    def run(self) -> None:
        """Write them."""
        weights = load_weights(self.source)
        network = dict(weights.params["network"])
        for name, factor in SHRINK.items():
            network[name] = network[name] | {"g": network[name]["g"] * np.float32(factor)}
        alpha = np.full(weights.config.iterations, -5, np.float32)
        alpha[0] = LOG_RADIUS
        params = weights.params | {"network": network, "alpha": alpha}
        save_weights(Weights(params, weights.config), self.target)


@dataclasses.dataclass(frozen=True)
class Finish:
    """Keep the iterations that were trained, and say what the weights are."""

    source: Positional[Path]
    """`weights.safetensors` of a run."""
    target: Positional[Path]
    """File to write."""
    about: str
    """For the metadata, which `isrrescnet info` shows."""
    iterations: int = 1
    """So many, from the first."""

    def run(self) -> None:
        """Write them."""
        weights, metadata = load_weights_and_metadata(self.source)
        kept = {k: weights.params[k][: self.iterations] for k in ("alpha", "w")}
        params = weights.params | kept
        config = dataclasses.replace(weights.config, iterations=self.iterations)
        figures = json.loads(metadata["figures"])
        data = json.loads(metadata["training"])["data"]
        about = {
            "about": self.about,
            "recipe": f"{figures['step']} steps of {data['batch']} patches of {data['patch']}x"
            f"{data['patch']} and what went before, see experiments/weights.py",
            "data": "T91, BSDS500 (train and test), 46 free photographs; see MODEL_CARD.md",
        }
        save_weights(Weights(params, config), self.target, about)


@dataclasses.dataclass(frozen=True)
class Stopped:
    """The weights of a run that was stopped: the average in its last checkpoint."""

    workdir: Positional[Path]
    """WORKDIR of the run."""
    target: Positional[Path]
    """File to write."""

    def run(self) -> None:
        """Write them."""
        import orbax.checkpoint as ocp

        config = json.loads((self.workdir / "config.json").read_text())
        steps = [f for f in (self.workdir / "checkpoints").iterdir() if f.name.isdigit()]
        last = max(steps, key=lambda folder: int(folder.name))
        state = ocp.StandardCheckpointer().restore(last.absolute() / "state")
        params = jax.tree.map(np.asarray, state["ema"])
        figures = {}
        for line in (self.workdir / "metrics.jsonl").read_text().splitlines():
            figures |= json.loads(line)
        figures["step"] = int(last.name)
        metadata = {"training": json.dumps(config), "figures": json.dumps(figures)}
        save_weights(Weights(params, ModelConfig(**config["model"])), self.target, metadata)


@dataclasses.dataclass(frozen=True)
class Lengthen:
    """Put iterations that move little before the trained one: a start for training all of them.

    Bicubic interpolation U goes through its samples, D U = 1. So z_0 = x_0 - U (D x_0 - y) has
    D z_0 = y, the data term leaves it as it is, and if N moves little, the trained iteration at the
    end sees what it was trained on. (Repeated instead, it meets its own results and spoils them.)
    """

    source: Positional[Path]
    """Weights; only their first iteration is kept."""
    target: Positional[Path]
    """File to write."""
    iterations: int = 10
    """In all."""
    log_radius: float = -3.0
    """Of the new ones. With -3 nothing is lost, but they open slowly in training; with -1 each
    brings x4 nearer to the truth from the beginning, and the last has to adapt to that."""
    log_momentum: float = -5.0
    """Of all."""

    def run(self) -> None:
        """Write them."""
        weights = load_weights(self.source)
        alpha = np.repeat(weights.params["alpha"][:1], self.iterations)
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
    """Draw the validation PSNR of runs."""

    target: Positional[Path]
    """Picture to write."""
    runs: Positional[tuple[Path, ...]]
    """Their WORKDIRs."""

    def run(self) -> None:
        """Draw it."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(3 * len(self.runs), 2.6), layout="constrained")
        all_axes = figure.subplots(1, len(self.runs), squeeze=False)[0]
        for axes, folder in zip(all_axes, self.runs, strict=True):
            lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
            points = [(a["step"], a["validation_psnr"]) for a in lines if "validation_psnr" in a]
            scale = json.loads((folder / "config.json").read_text())["model"]["scale"]
            axes.plot(*zip(*points, strict=True), marker="o", markersize=4)
            axes.set(title=f"x{scale}", xlabel="step")
            axes.grid(alpha=0.3)
        all_axes[0].set_ylabel("PSNR on Y, dB")
        figure.savefig(self.target, dpi=120)


if __name__ == "__main__":
    command = tyro.cli(
        Annotated[Start, subcommand("start")]
        | Annotated[Lengthen, subcommand("lengthen")]
        | Annotated[Crops, subcommand("crops")]
        | Annotated[Curve, subcommand("curve")]
        | Annotated[Stopped, subcommand("stopped")]
        | Annotated[Finish, subcommand("finish")],
        description=__doc__,
    )
    command.run()
