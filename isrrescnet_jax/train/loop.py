"""The training run, told from top to bottom."""

import contextlib
import dataclasses
import functools
import json
import time
import warnings
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
from etils import epath
from jaxtyping import UInt8

from .. import images
from ..data import Streams
from ..evaluation import metrics
from ..evaluation.degrade import degrade, modcrop
from ..physics.operators import Bicubic
from ..prior.network import init_weights
from ..solver.unroll import reconstruct, schedule
from ..supervision import WAIT, tell
from ..upscaler import Upscaler, fastest_dtype
from ..weights import Weights, as_bytes, load_weights, with_noise_input
from . import parallel, speed
from .agreement import opened
from .checkpoint import Checkpoints, as_dict
from .config import Recipe, TrainConfig, as_recipe
from .optimizer import check_optimizer, make_optimizer
from .report import Profile, Report, explained
from .state import init_state
from .step import train_step

Pair = dict[str, UInt8[np.ndarray, "h w 3"]]

SAMPLES = 4  # images shown at every validation


def train(
    recipe: Recipe | TrainConfig,
    workdir: epath.PathLike,
    strategy: Literal["pmap", "shard_map"] = "pmap",
    profile: int = 0,
    *,
    take_over: bool = False,
    wait: float = WAIT,
) -> Weights | None:
    """Train, or go on training, in `workdir`.

    Where a run begins: at the last checkpoint in `workdir`; where there is none, from the weights
    that `config.init` names; without these, fresh. A run that was killed and is started again ends
    with the parameters of one that was not, to the bit (float32 on CPU; elsewhere as far as the
    device's own arithmetic repeats itself).

    Args:
        recipe: or a bare configuration.
        workdir: a local folder or gs://BUCKET/FOLDER, made if it does not exist. Gets
            `config.json`, `checkpoints/`, `metrics.jsonl`, `tensorboard/` and, at the end,
            `weights.safetensors`.
        strategy: how the step runs on several devices.
        profile: so many steps, from the third on, are traced to `profile/`, for TensorBoard and
            https://ui.perfetto.dev.
        take_over: train in `workdir` though a process on another host has it.
        wait: seconds in which all processes must have come to see that they see the same.

    Returns:
        The weights that were written, or None if the run was asked to stop before the end. It then
        has saved a checkpoint.

    Raises:
        ValueError: images that cannot be used, weights or an optimizer that do not fit, `workdir`
            holds a run of another recipe (all that differs is named), another process trains there,
            or the processes of this run do not see the same.
        FloatingPointError: the loss or its gradient is not finite. Step and last checkpoint are
            named; the last checkpoint is from before it.
        OSError: `workdir` cannot be written to. Checkpoints already there are not touched.
    """
    recipe = as_recipe(recipe)
    # The run's own configuration stays, so that it can go on where bfloat16 is faster.
    dtype = fastest_dtype(recipe.config.dtype)
    computed = dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, dtype=dtype))
    config, workdir = recipe.config, epath.Path(workdir)
    devices = parallel.STRATEGIES[strategy]()
    fresh = jax.eval_shape(lambda: fresh_weights(config).params)
    try:
        check_optimizer(make_optimizer(recipe), fresh)
    except ValueError as error:
        raise ValueError(f"{recipe.file or 'recipe'}: {error}") from error

    @functools.cache
    def compiled(iterations: int, feedback_steps: int, k2: int):
        model = dataclasses.replace(config.model, feedback_steps=feedback_steps)
        now = dataclasses.replace(computed.config, model=model, k2=k2, feedback_curriculum=())
        step = functools.partial(
            train_step,
            recipe=dataclasses.replace(recipe, config=now),
            iterations=iterations,
            axis_name=parallel.AXIS,
        )
        return devices.compile(step)

    with contextlib.ExitStack() as stack:
        stack.enter_context(opened(workdir, recipe, take_over, wait))
        validation = read_validation(config)
        process = {"process_index": jax.process_index(), "process_count": jax.process_count()}
        batches = Streams(config.data, config.all_scales, config.all_patches, **process)
        stack.enter_context(contextlib.closing(batches))
        checkpoints = stack.enter_context(Checkpoints(workdir, recipe))
        if checkpoints.latest() is None:
            state = init_state(recipe, initial_weights(config).params)
        else:
            shapes = jax.eval_shape(lambda params: init_state(recipe, params), fresh)
            state, position, changed = checkpoints.restore(shapes)
            batches.set_state(position)
            for line in changed if jax.process_index() == 0 else ():
                print(line, flush=True)
        first = int(state.step)
        state = devices.replicate(state)
        if jax.process_index() == 0:
            with explained(workdir):
                temporary = workdir / ".config.json"
                temporary.write_text(json.dumps(as_dict(config), indent=2) + "\n")
                temporary.replace(workdir / "config.json")

        known = speed.peak(jax.devices()[0])
        if known is None and jax.process_index() == 0 and jax.default_backend() != "cpu":
            kind = jax.devices()[0].device_kind
            print(f"the peak of {kind} is not known: no model_flop_utilisation", flush=True)
        flops = 3 * speed.network_flops(config.model)  # a pixel and iteration, forward and back
        with (
            Report(
                workdir,
                first,
                config.steps,
                config.data.batch,
                None if known is None else known * jax.device_count(),
                batches.counts,
            ) as report,
            Profile(workdir / "profile", first + 3, profile) as traced,
            parallel.stop_signals() as asked,
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
                pixels = config.data.batch * config.patch_at(step - 1) ** 2
                report.step(metrics, pixels, pixels * flops * config.iterations_at(step - 1))

            pending = None
            tell(step=first)
            for done in range(first + 1, config.steps + 1):
                now = done - 1  # steps made
                traced.before(done)
                began = time.perf_counter()
                batch = batches.next(config.scale_at(now), config.patch_at(now))
                report.waited(time.perf_counter() - began)
                program = compiled(
                    config.iterations_at(now),
                    config.feedback_steps_at(now),
                    config.window_at(now),
                )
                state, new = program(state, devices.shard(batch))
                # Numbers are read one step late: the device has its next step before we wait.
                if pending is not None:
                    note(*pending)
                pending = done, new
                tell(step=done)

                stop = checkpoints.reached_preemption(done) or asked.is_set()
                last = stop or done == config.steps
                validate = done % config.validate_every == 0 or done == config.steps
                save = last or validate or done % config.checkpoint_every == 0
                # A run that goes on from here has no part of a mean to go on with.
                if save or done % config.log_every == 0:
                    note(*pending)
                    pending = None
                    report.log(done)
                if save:
                    now, psnr = devices.gather(state), None
                    check(done, "parameters", now.params)
                    if validate:
                        weights = Weights(now.ema, config.model)
                        psnr = show(report, done, computed, weights, validation, batch)
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
    """The weights `config.init`, made to fit `config.model`; fresh ones if it is None.

    Tensors are the same for any scale, physics, step and feedback steps. Iterations beyond theirs
    start with their last (alpha, w), as in `reconstruct`, and a noise input that they lack with
    zeros.

    Raises:
        ValueError: they are of another network.
    """
    if config.init is None:
        return fresh_weights(config)
    weights, model = load_weights(config.init), config.model
    for name in ("physics", "step"):
        theirs, ours = getattr(weights.config, name), getattr(model, name)
        if theirs != ours:
            warnings.warn(
                f"{config.init} was trained with {name} {theirs}, and goes on with {ours}",
                stacklevel=2,
            )
    if model.noise_input:
        weights = with_noise_input(weights)
    theirs, ours = dataclasses.asdict(weights.config), dataclasses.asdict(model)
    different = [
        f"{name} is {theirs[name]}, not {ours[name]}"
        for name in ("channels", "features", "depth", "noise_input")
        if theirs[name] != ours[name]
    ]
    if different:
        raise ValueError(f"{config.init} does not fit the model: {', '.join(different)}")
    alpha, w = schedule(weights, model.iterations)
    return Weights(weights.params | {"alpha": alpha, "w": w}, model)


# --- validation and samples -----------------------------------------------------------------------


def read_validation(config: TrainConfig) -> dict[int, list[Pair]]:
    """This process's share of the validation images, by scale, with LR images made of them."""
    if config.validation is None:
        return {}
    pairs: dict[int, list[Pair]] = {scale: [] for scale in sorted(set(config.all_scales))}
    for path in images.find([config.validation])[jax.process_index() :: jax.process_count()]:
        image = images.read_rgb(path)
        for scale, of_scale in pairs.items():
            hr = modcrop(image, scale)
            of_scale.append({"lr": degrade(hr, scale), "hr": hr})
    return pairs


def show(
    report: Report,
    step: int,
    recipe: Recipe,
    weights: Weights,
    validation: dict[int, list[Pair]],
    batch: dict[str, np.ndarray],
) -> float | None:
    """Report the PSNR on the validation images, and samples: these or patches of the batch.

    Returns:
        The mean over the scales, and for each over the images of all processes, of their PSNR on
        Y, in dB, without a border as wide as the scale; None if there are none.
    """
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
    data = as_bytes(weights, metadata)
    # In the workdir, which may be in a cloud, under its own name only when whole.
    with explained(workdir):
        temporary = workdir / ".weights.safetensors"
        temporary.write_bytes(data)
        temporary.replace(workdir / "weights.safetensors")
