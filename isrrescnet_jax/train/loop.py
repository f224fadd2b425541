"""The training run, told from top to bottom."""

import contextlib
import dataclasses
import functools
import json
import tempfile
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from .. import images, metrics
from ..data import train_batches
from ..degrade import degrade, modcrop
from ..network import init_weights
from ..unroll import schedule
from ..upscale import Upscaler
from ..weights import Weights, load_weights, save_weights
from . import parallel
from .checkpoint import Checkpoints, as_dict
from .report import Report, explained
from .state import TrainConfig, init_state
from .step import train_step

Pair = dict[str, UInt8[np.ndarray, "h w 3"]]

SAMPLES = 4  # images shown at every validation


def train(
    config: TrainConfig,
    workdir: epath.PathLike,
    strategy: Literal["pmap", "shard_map"] = "pmap",
) -> Weights | None:
    """Train, or go on training, in `workdir`.

    Where a run begins: at the last checkpoint in `workdir`; where there is none, from the weights
    that `config.init` names; without these, fresh. A run that was killed and is started again ends
    with the parameters of one that was not, to the bit (float32 on CPU; elsewhere as far as the
    device's own arithmetic repeats itself).

    Args:
        config: the recipe.
        workdir: a local folder or gs://BUCKET/FOLDER, made if it does not exist. Gets
            `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and, at the end,
            `weights.safetensors`.
        strategy: how the step runs on several devices.

    Returns:
        The weights that were written, or None if the run was asked to stop before the end. It then
        has saved a checkpoint.

    Raises:
        ValueError: images that cannot be used, weights that do not fit, or `workdir` holds a run of
            another configuration (every differing field is named).
        FloatingPointError: the loss or its gradient is not finite. Step and last checkpoint are
            named; the last checkpoint is from before it.
        OSError: `workdir` cannot be written to. Checkpoints already there are not touched.
    """
    workdir = epath.Path(workdir)
    devices = parallel.STRATEGIES[strategy]()
    validation = read_validation(config)
    batches = train_batches(
        config.data, process_index=jax.process_index(), process_count=jax.process_count()
    )

    @functools.cache
    def compiled(iterations: int):
        step = functools.partial(
            train_step, config=config, iterations=iterations, axis_name=parallel.AXIS
        )
        return devices.compile(step)

    with contextlib.closing(batches), Checkpoints(workdir, config) as checkpoints:
        if checkpoints.latest() is None:
            state = init_state(config, initial_weights(config).params)
        else:
            shapes = jax.eval_shape(lambda: init_state(config, fresh_weights(config).params))
            state, position = checkpoints.restore(shapes)
            batches.set_state(position)
        first = int(state.step)
        state = devices.replicate(state)
        if jax.process_index() == 0:
            with explained(workdir):
                (workdir / "config.json").write_text(json.dumps(as_dict(config), indent=2) + "\n")

        with (
            Report(workdir, first, config.steps, config.data.batch) as report,
            parallel.preemption() as preemption,
        ):

            def check(step: int, what: str, values: Any) -> None:
                """Stop if any of these is not finite."""
                if not all(np.isfinite(value).all() for value in jax.tree.leaves(values)):
                    raise FloatingPointError(
                        f"{what} not finite in step {step} ({checkpoints.describe_latest()}): "
                        "lower learning_rate or set clip_norm"
                    )

            def note(step: int, metrics: Any) -> None:
                """Report the metrics of a step."""
                metrics = devices.gather(metrics)
                check(step, "loss or gradient", (metrics["loss"], metrics["grad_norm"]))
                report.step(metrics)

            pending = None
            for done in range(first + 1, config.steps + 1):
                batch = next(batches)
                program = compiled(config.iterations_at(done - 1))
                state, new = program(state, devices.shard(batch))
                # Numbers are read one step late: the device has its next step before we wait.
                if pending is not None:
                    note(*pending)
                pending = done, new

                stop = preemption.agreed(done)
                last = stop or done == config.steps
                log = last or done % config.log_every == 0
                validate = done % config.validate_every == 0 or done == config.steps
                save = last or validate or done % config.checkpoint_every == 0
                if log or save:
                    note(*pending)
                    pending = None
                if log:
                    report.log(done)
                if save:
                    now, psnr = devices.gather(state), None
                    check(done, "parameters", now.params)
                    if validate:
                        weights = Weights(now.ema, config.model)
                        psnr = show(report, done, config, weights, validation, batch)
                    checkpoints.save(done, now, batches.get_state(), psnr)
                    report.restart_clock()
                if stop and done < config.steps:
                    return None

            weights = Weights(devices.gather(state).ema, config.model)
            if jax.process_index() == 0:
                write_weights(workdir, config, weights, report)
            return weights


# --- where a run begins ---------------------------------------------------------------------------


def fresh_weights(config: TrainConfig) -> Weights:
    """Random weights."""
    return jax.jit(init_weights, static_argnums=0)(config.model, jax.random.key(config.seed))


def initial_weights(config: TrainConfig) -> Weights:
    """The weights `config.init`, of any scale and number of iterations; fresh ones if it is None.

    Iterations beyond theirs start with their last (alpha, w), as in `reconstruct`.

    Raises:
        ValueError: they are of another network.
    """
    if config.init is None:
        return fresh_weights(config)
    weights, model = load_weights(config.init), config.model
    theirs, ours = dataclasses.asdict(weights.config), dataclasses.asdict(model)
    different = [
        f"{name} is {theirs[name]}, not {ours[name]}"
        for name in ours
        if name not in ("scale", "iterations") and theirs[name] != ours[name]
    ]
    if different:
        raise ValueError(f"{config.init} does not fit the model: {', '.join(different)}")
    alpha, w = schedule(weights, model.iterations)
    return Weights(weights.params | {"alpha": alpha, "w": w}, model)


# --- validation and samples -----------------------------------------------------------------------


def read_validation(config: TrainConfig) -> list[Pair]:
    """This process's share of the validation images, with low-resolution images made of them."""
    if config.validation is None:
        return []
    pairs = []
    for path in images.find([config.validation])[jax.process_index() :: jax.process_count()]:
        hr = np.atleast_3d(images.to_uint8(images.read(path).color))
        hr = np.broadcast_to(hr, (*hr.shape[:2], 3))
        hr = modcrop(hr, config.model.scale)
        pairs.append({"lr": degrade(hr, config.model.scale), "hr": hr})
    return pairs


def show(
    report: Report,
    step: int,
    config: TrainConfig,
    weights: Weights,
    validation: list[Pair],
    batch: dict[str, np.ndarray],
) -> float | None:
    """Report the PSNR on the validation images, and samples: these or patches of the batch.

    Returns:
        The mean over the images of all processes of their PSNR on Y, in dB, without a border as
        wide as the scale; None if there are none.
    """
    upscaler = Upscaler(weights, dtype=config.dtype)
    patches = [{"lr": batch["lr"][i], "hr": batch["hr"][i]} for i in range(len(batch["lr"]))]
    scores = []
    for i, pair in enumerate(validation or patches[:SAMPLES]):
        sr = images.to_uint8(upscaler(pair["lr"]))
        if i < SAMPLES:
            report.image(step, f"lr_sr_hr/{i}", beside(pair["lr"], sr, pair["hr"]))
        if validation:
            scores.append(psnr_y(sr, pair["hr"], crop=config.model.scale))
    if config.validation is None:
        return None
    psnr = parallel.mean_over_processes(sum(scores), len(scores))
    report.scalars(step, {"validation_psnr": psnr})
    return psnr


def psnr_y(a: UInt8[np.ndarray, "h w 3"], b: UInt8[np.ndarray, "h w 3"], crop: int) -> float:
    """PSNR on Y, in dB."""
    return metrics.psnr(metrics.luma(a), metrics.luma(b), crop)


def beside(
    lr: UInt8[np.ndarray, "h w 3"], sr: UInt8[np.ndarray, "H W 3"], hr: UInt8[np.ndarray, "H W 3"]
) -> UInt8[np.ndarray, "H W3 3"]:
    """One image of three: enlarged pixels, the result, the truth."""
    scale = hr.shape[0] // lr.shape[0]
    return np.concatenate([lr.repeat(scale, 0).repeat(scale, 1), sr, hr], axis=1)


# --- the result -----------------------------------------------------------------------------------


def write_weights(
    workdir: epath.Path, config: TrainConfig, weights: Weights, report: Report
) -> None:
    """`weights.safetensors`, with the configuration and the last figures in its metadata."""
    figures: dict[str, Any] = {}
    for line in report.history:
        figures |= line
    scores = [line["validation_psnr"] for line in report.history if "validation_psnr" in line]
    if scores:
        figures["best_validation_psnr"] = max(scores)
    metadata = {"training": json.dumps(as_dict(config)), "figures": json.dumps(figures)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "weights.safetensors")
        save_weights(weights, file, metadata)
        # In the workdir, which may be in a cloud, under its own name only when whole.
        with explained(workdir):
            temporary = workdir / ".weights.safetensors"
            temporary.write_bytes(file.read_bytes())
            temporary.replace(workdir / file.name)
