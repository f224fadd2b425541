"""What a run is measured by between its steps, and the samples that it shows."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from .. import images
from ..evaluation import metrics
from ..evaluation.degrade import degrade, modcrop
from ..physics.operators import Bicubic
from ..solver.unroll import reconstruct
from ..upscaler import Upscaler
from ..weights import Weights
from . import parallel
from .config import Batch, Params, Recipe
from .report import Report
from .step import psnr

Example = dict[str, np.ndarray]

SAMPLES = 4  # images shown at every validation


def read_validation(recipe: Recipe) -> dict[int, list[Example]]:
    """This process's share of the validation examples, by scale; without scale they are 1.

    Raises:
        ValueError: a recipe's own are fewer than the processes, or cannot be scored.
    """
    config = recipe.config
    if recipe.init is not None:
        return {1: _held_out(recipe)}
    if config.validation is None:
        return {}
    pairs: dict[int, list[Example]] = {scale: [] for scale in sorted(set(config.all_scales))}
    for path in images.find([config.validation])[jax.process_index() :: jax.process_count()]:
        image = images.read_rgb(path)
        for scale, of_scale in pairs.items():
            hr = modcrop(image, scale)
            of_scale.append({"lr": degrade(hr, scale), "hr": hr})
    return pairs


def _held_out(recipe: Recipe) -> list[Example]:
    """What a recipe of its own model is validated on, always the same."""
    items: Any = recipe.held_out
    if items is None:
        folder = recipe.config.validation
        items = [] if folder is None else images.find([folder])
    this, count = jax.process_index(), jax.process_count()
    if 0 < len(items) < count:
        raise ValueError(f"{len(items)} validation examples for {count} processes: give more")
    found = []
    for i in range(this, len(items), count):
        item = items[i]
        if recipe.held_out is None:
            item = images.read_rgb(item)
        if recipe.measure is not None:
            item = recipe.measure(item, np.random.default_rng(i))
        elif recipe.held_out is None:
            item = {"lr": item, "hr": item}  # as in training
        found.append(item)
    if found and recipe.score is None and "hr" not in found[0]:
        raise ValueError(f"{recipe.file}: validation examples need an hr, or a function score")
    return found


def validate(
    report: Report,
    step: int,
    recipe: Recipe,
    params: Params,
    validation: dict[int, list[Example]],
    batch: Batch,
) -> float | None:
    """Report the figures of the validation examples, and samples: these or parts of the batch.

    Returns:
        The mean over the scales, and for each over the images of all processes, of their PSNR on
        Y, in dB, without a border as wide as the scale; the mean "psnr" of a recipe's own model.
        None if there are no examples.
    """
    if recipe.init is not None:
        return _validate_own(report, step, recipe, params, validation[1], batch)
    weights = Weights(params, recipe.config.model)
    scales = sorted(set(recipe.config.all_scales))
    shown, measured = validation, any(validation.values())
    if not measured:
        patches = [{"lr": batch["lr"][i], "hr": batch["hr"][i]} for i in range(len(batch["lr"]))]
        shown = {batch["hr"].shape[1] // batch["lr"].shape[1]: patches[:SAMPLES]}
    scores: dict[int, list[float]] = {scale: [] for scale in scales}
    for scale, pairs in shown.items():
        upscale = upscaler(recipe, weights, scale)
        name = "lr_sr_hr" if len(scales) == 1 else f"lr_sr_hr_x{scale}"
        for i, pair in enumerate(pairs):
            sr = images.to_uint8(upscale(pair["lr"]))
            if i < SAMPLES:
                report.image(step, f"{name}/{i}", beside(pair["lr"], sr, pair["hr"]))
            if measured:
                scores[scale].append(metrics.luma_psnr(sr, pair["hr"], crop=scale))
    if recipe.config.validation is None:
        return None
    means = {s: parallel.mean_over_processes(sum(x), len(x)) for s, x in scores.items()}
    psnr = float(np.mean(list(means.values())))
    each = {f"validation_psnr_x{scale}": mean for scale, mean in means.items()}
    report.scalars(step, (each if len(scales) > 1 else {}) | {"validation_psnr": psnr})
    return psnr


def _validate_own(
    report: Report,
    step: int,
    recipe: Recipe,
    params: Params,
    examples: list[Example],
    batch: Batch,
) -> float | None:
    assert recipe.solve is not None
    solve = jax.jit(recipe.solve)
    some = min(SAMPLES, len(jax.tree.leaves(batch)[0]))
    shown = examples or [{name: array[i] for name, array in batch.items()} for i in range(some)]
    scores: dict[str, list[float]] = {}
    for i, example in enumerate(shown):
        found = None
        if i < SAMPLES or recipe.score is None:
            found = solve(params, {name: array[None] for name, array in example.items()})
        if i < SAMPLES and found is not None and "hr" in example:
            _show(report, f"found_hr/{i}", step, found[0], example["hr"])
        if not examples:
            continue
        if recipe.score is not None:
            figures = recipe.score(params, example)
        else:
            assert found is not None
            figures = {"psnr": float(psnr(found, example["hr"][None])[0])}
        for name, value in figures.items():
            scores.setdefault(name, []).append(float(value))
    means = {k: parallel.mean_over_processes(sum(x), len(x)) for k, x in scores.items()}
    if means:
        report.scalars(step, {f"validation_{name}": mean for name, mean in means.items()})
    return means.get("psnr")


def _show(report: Report, name: str, step: int, found: jax.Array, hr: np.ndarray) -> None:
    """Magnitudes of what was found and of the truth, if they are pictures."""
    if found.shape == hr.shape and found.shape[-1] in (1, 3):
        both = np.abs(np.concatenate([found, hr], axis=1)).astype(np.float32)
        report.image(step, name, images.to_uint8(both).repeat(3 // found.shape[-1], axis=2))


def upscaler(recipe: Recipe, weights: Weights, scale: int) -> Callable[[np.ndarray], np.ndarray]:
    """What makes a picture (h, w, 3) larger, with the recipe's operator and prior."""
    dtype = recipe.config.dtype
    make_prior = recipe.prior
    if make_prior is None:
        return Upscaler(weights, scale, recipe.operator, dtype=dtype)

    @jax.jit
    def run(weights: Weights, lr: jax.Array) -> jax.Array:
        operator = Bicubic(scale) if recipe.operator is None else recipe.operator
        prior = make_prior(weights)
        return reconstruct(weights, lr[None], operator=operator, prior=prior).image[0]

    return lambda lr: np.asarray(run(weights, np.asarray(lr, np.float32)))


def beside(
    lr: UInt8[np.ndarray, "h w 3"], sr: UInt8[np.ndarray, "H W 3"], hr: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W3 3"]:
    """One image of three: enlarged pixels, the result, the truth."""
    scale = hr.shape[0] // lr.shape[0]
    return np.concatenate([lr.repeat(scale, 0).repeat(scale, 1), sr, hr], axis=1)
