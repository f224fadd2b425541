"""The recipes for other problems, beside what one would do without them.

    python -m experiments.recipes --deblur W1/weights.safetensors --mri W2/weights.safetensors \
        --inpaint W3/weights.safetensors --kodak FOLDER [--json experiments/recipes/results.json]

PSNR over all channels, in dB: the mean over held-out images, the middle 192 pixels of those in
FOLDER, and forty phantoms. Each baseline has its parameter, if it has one, chosen on the very
images that it is measured on.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import isrrescnet_jax as isr
from isrrescnet_jax import images
from isrrescnet_jax.evaluation.metrics import psnr
from isrrescnet_jax.tensors import read
from isrrescnet_jax.trained import run_file

from .. import harness

FOLDER = Path(__file__).parent
BALANCES = np.geomspace(1e-4, 1e-1, 10)
Example = dict[str, np.ndarray]
Baseline = Callable[[Example], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Recipes:
    """Whose weights are measured."""

    kodak: Path
    """Folder of photographs that none was trained on."""
    deblur: Path | None = None
    """Weights of the recipe of this name, as the others."""
    mri: Path | None = None
    inpaint: Path | None = None
    photographs: int = 24
    """How many of them."""
    json: Path | None = None
    """File for the numbers."""


def wiener(strengths: np.ndarray, balance: float) -> Callable[[int, Example], np.ndarray]:
    """scikit-image's, told how strong the blur of each image is."""
    from skimage.restoration import wiener as of_channel

    def restore(index: int, example: Example) -> np.ndarray:
        side = np.arange(-15, 16)
        kernel = np.exp(-0.5 * np.add.outer(side**2, side**2) / strengths[index] ** 2)
        kernel /= kernel.sum()
        y = example["y"] / 255
        channels: Any = (of_channel(y[..., c], kernel, balance, clip=False) for c in range(3))
        return 255 * np.stack(list(channels), -1)

    return restore


def best(
    make: Callable[[float], Callable[[int, Example], np.ndarray]], examples: list[Example]
) -> Baseline:
    """Of the baselines with these parameters, the one that is best on these examples."""
    indices = {id(example): i for i, example in enumerate(examples)}

    def mean(restore: Callable[[int, Example], np.ndarray]) -> float:
        found = (psnr(restore(i, e), e["hr"]) for i, e in enumerate(examples))
        return float(np.mean(list(found)))

    chosen = max(map(make, BALANCES), key=mean)
    return lambda example: chosen(indices[id(example)], example)


def of_deblurring(examples: list[Example]) -> Mapping[str, Baseline]:
    """What is seen; Wiener's filter for the mean strength; and for the true one."""
    true = np.array([float(example["strength"]) for example in examples])
    return {
        "blurred": lambda example: example["y"],
        "Wiener, mean strength": best(
            lambda balance: wiener(np.full(len(true), true.mean()), balance), examples
        ),
        "Wiener, told the strength": best(lambda balance: wiener(true, balance), examples),
    }


def of_mri(examples: list[Example]) -> Mapping[str, Baseline]:
    """Zeros where nothing was measured."""
    return {"zero-filled": lambda e: np.fft.ifft2(e["y"], axes=(0, 1), norm="ortho")}


def of_inpainting(examples: list[Example]) -> Mapping[str, Baseline]:
    """The solution of the biharmonic equation that has the pixels that are seen."""
    from skimage.restoration import inpaint_biharmonic

    return {
        "biharmonic": lambda example: (
            255
            * inpaint_biharmonic(example["y"] / 255, example["seen"][..., 0] == 0, channel_axis=-1)
        )
    }


BASELINES = {"deblur": of_deblurring, "mri": of_mri, "inpaint": of_inpainting}


def held_out(recipe: Mapping[str, Any], kodak: Path, count: int) -> list[Example]:
    """Examples with noise and masks that depend on their number alone."""
    items: Any = recipe.get("held_out")
    if items is None:
        paths = images.find([str(kodak)])[:count]
        items = [harness.middle(images.read_rgb(path), 192) for path in paths]
    measured = (recipe["measure"](items[i], np.random.default_rng(i)) for i in range(len(items)))
    return list(measured)


def measure(options: Recipes) -> dict[str, Any]:
    """PSNR of each method on each problem."""
    results: dict[str, Any] = {"on": harness.environment("isrrescnet-jax", "jax", "scikit-image")}
    for name, baselines in BASELINES.items():
        path = getattr(options, name)
        if path is None:
            continue
        file = FOLDER / f"{name}.py"
        recipe, _ = run_file(file)
        examples = held_out(recipe, options.kodak, options.photographs)
        restore = isr.load_weights(path, recipe=file)
        methods = dict(baselines(examples))
        methods["ours"] = lambda e, restore=restore: np.asarray(
            restore({key: value[None] for key, value in e.items()})[0]
        )
        scores = {
            label: float(np.mean([psnr(method(e), e["hr"]) for e in examples]))
            for label, method in methods.items()
        }
        figures = json.loads(read(path)[1]["figures"])
        results[name] = {"psnr": scores, "images": len(examples), "steps": figures["step"]}
        print(f"{name}, {len(examples)} images: ", end="", flush=True)
        print(", ".join(f"{label} {value:.2f}" for label, value in scores.items()), flush=True)
    return results


def main(options: Recipes) -> None:
    """Measure, print, and write."""
    results = measure(options)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Recipes, description=__doc__))
