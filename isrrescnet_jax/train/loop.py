"""The training run, told from top to bottom."""

import contextlib
import dataclasses
import functools
import json
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from etils import epath

from .. import trained
from ..data import Streams
from ..supervision import WAIT, tell
from ..trained import Trained, digest
from ..upscaler import fastest_dtype
from ..weights import Weights, as_bytes
from . import parallel, speed
from .agreement import opened
from .checkpoint import Checkpoints, as_dict
from .config import Params, Recipe, TrainConfig, as_recipe
from .optimizer import check_optimizer, make_optimizer
from .report import Profile, Report, explained
from .start import fresh_params, initial_params
from .state import init_state
from .step import train_step
from .validation import read_validation, validate


def train(
    recipe: Recipe | TrainConfig,
    workdir: epath.PathLike,
    strategy: Literal["pmap", "shard_map"] = "pmap",
    profile: int = 0,
    *,
    take_over: bool = False,
    wait: float = WAIT,
) -> Weights | Trained | None:
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
        What was written: `Weights`, or what a recipe's own model has learned. None if the run was
        asked to stop before the end; it then has saved a checkpoint.

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
    try:
        fresh = jax.eval_shape(lambda: fresh_params(recipe))
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
        validation = read_validation(recipe)
        batches = Streams(
            config.data,
            config.all_scales,
            config.all_patches,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            examples=recipe.examples,
            measure=recipe.measure,
        )
        stack.enter_context(contextlib.closing(batches))
        checkpoints = stack.enter_context(Checkpoints(workdir, recipe))
        if checkpoints.latest() is None:
            state = init_state(recipe, initial_params(recipe))
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
        # A pixel and iteration, forward and back; unknown of a recipe's own model.
        flops = 0 if recipe.init else 3 * speed.network_flops(config.model)
        with (
            Report(
                workdir,
                first,
                config.steps,
                config.data.batch,
                None if known is None or recipe.init else known * jax.device_count(),
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
                        "go on gentler in another workdir, with --init of this one, a lower "
                        "learning_rate or a clip_norm"
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
                due = done % config.validate_every == 0 or done == config.steps
                save = last or due or done % config.checkpoint_every == 0
                # A run that goes on from here has no part of a mean to go on with.
                if save or done % config.log_every == 0:
                    note(*pending)
                    pending = None
                    report.log(done)
                if save:
                    now, psnr = devices.gather(state), None
                    check(done, "parameters", now.params)
                    if due:
                        psnr = validate(report, done, computed, now.ema, validation, batch)
                    checkpoints.save(done, now, batches.get_state(), psnr)
                    report.restart_clock()
                if stop and done < config.steps:
                    return None

            params = devices.gather(state).ema
            if jax.process_index() == 0:
                write_weights(workdir, recipe, params, report)
            if recipe.solve is not None:
                return Trained(params, recipe.solve, Path(recipe.file).name)
            return Weights(params, config.model)


# --- the result -----------------------------------------------------------------------------------


def write_weights(workdir: epath.Path, recipe: Recipe, params: Params, report: Report) -> None:
    """`weights.safetensors`, with configuration, recipe and last figures in its metadata."""
    figures: dict[str, Any] = {}
    for line in report.history:
        figures |= line
    scores = [line["validation_psnr"] for line in report.history if "validation_psnr" in line]
    if scores:
        figures["best_validation_psnr"] = max(scores)
    metadata = {"training": json.dumps(as_dict(recipe.config)), "figures": json.dumps(figures)}
    if recipe.text:
        metadata |= {"recipe_file": Path(recipe.file).name, "recipe_sha256": digest(recipe.text)}
    if recipe.init is None:
        data = as_bytes(Weights(params, recipe.config.model), metadata)
    else:
        data = trained.as_bytes(params, metadata)
    # In the workdir, which may be in a cloud, under its own name only when whole.
    with explained(workdir):
        temporary = workdir / ".weights.safetensors"
        temporary.write_bytes(data)
        temporary.replace(workdir / "weights.safetensors")
