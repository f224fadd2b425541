"""What a training run is configured with: numbers, and the values that take their place."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np
import optax

from ..config import SCALES, ModelConfig
from ..data import DataConfig, Measure
from ..solver.backward import Checkpointed, Full, Random, Truncated, Window
from ..trained import Solve
from ..weights import Weights
from . import losses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The numbers and names of a training recipe.

    A curriculum is a tuple of pairs (step, value), in any order: from this step on, counted from 0,
    this value holds. Before the first pair, and with none, the plain field does.

    Attributes:
        model: the network; its scale must be given, unless a recipe brings its own model.
        data: what it is trained on, in which batches.
        scales: train on several scales, a batch of each in turn, all made from the same images;
            `model.scale`, which the written weights name, must be one of them. Only `model.scale`
            if empty.
        init: weights to start from: a shipped name, a .safetensors file or the workdir of a run
            (the average in its last checkpoint), of any scale, physics, step, feedback steps and
            number of iterations (further ones start like the last), with or without the noise
            input of a model that has it; fresh ones if None.
        seed: of fresh weights.
        steps: optimiser steps of the whole run.
        loss: l1 or charbonnier in grey levels, l2 in squared grey levels.
        charbonnier_epsilon: grey levels, where the Charbonnier loss turns from quadratic to linear.
        iterate_weights: weights in the loss of the last iterates, the last one last: 1 is the loss
            on the last iterate alone, ten ones are a loss on each of ten.
        backward: full (fastest), checkpointed (memory hardly depends on the iterations), truncated
            (backpropagation through k2 iterations after every k1) or random (a number k of
            iterations is drawn for each step, with a probability in proportion to 1/k, and
            backpropagation goes through the last k2 of them: the cheapest, with a small k2).
        k1: iterations between two losses, for backward = truncated.
        k2: iterations that each loss goes back through, for backward = truncated or random.
        intermediate_weight: weight of the losses before the last, for backward = truncated.
        curriculum: of the iterations that are run, at most those of the model.
        feedback_curriculum: of the feedback steps in an iteration, at most those of the model. The
            parameters do not depend on their number.
        patch_curriculum: of the side of the patches.
        window_curriculum: of k2, for backward = truncated or random.
        dtype: of the features of the network; images and parameters stay float32.
        precision: of float32 products on GPU and TPU: default (TF32 or bfloat16), high or highest.
        optimizer: muon (for the directions v of the convolutions, Adam for the rest), adam, amsgrad
            (Adam with AMSGrad, as PyTorch computes it), adamw or sgd.
        learning_rate: its peak.
        beta1: decay of the gradient's moving average; the momentum of sgd. Not that of v in muon.
        beta2: decay of the moving average of the squared gradient.
        weight_decay: for adamw, of the lengths g of the convolutions, the scale of their weights.
        schedule: constant, stepped (by `milestone_factor` at each of `milestones`) or cosine (to
            zero at the last step).
        warmup_steps: steps over which the learning rate first rises linearly from zero.
        milestones: steps at which the stepped schedule lowers the learning rate.
        milestone_factor: by which it is then multiplied.
        train_schedule: False leaves alpha and w, radius and momentum of each iteration, as they
            start.
        clip_norm: the norm to which larger gradients are scaled down (they are in units of the
            loss); no limit if None.
        ema_decay: per step, of the moving average of the weights, which is what is validated and
            written at the end; 0 for none.
        log_every: steps between two lines of metrics, means since the last; checkpoints have one
            too.
        validation: a folder of high-resolution images to validate on, if any.
        validate_every: steps between two validations.
        checkpoint_every: steps between two checkpoints; validation makes one too.
        keep: so many of the last checkpoints are kept, and the one of the best validation.
    """

    model: ModelConfig = ModelConfig(scale=4)
    data: DataConfig = DataConfig(scale=4)
    scales: tuple[int, ...] = ()
    init: str | None = None
    seed: int = 0
    steps: int = 300_000
    # the objective
    loss: Literal["l1", "l2", "charbonnier"] = "l1"
    charbonnier_epsilon: float = 0.255
    iterate_weights: tuple[float, ...] = (1.0,)
    backward: Literal["full", "checkpointed", "truncated", "random"] = "checkpointed"
    k1: int = 5
    k2: int = 5
    intermediate_weight: float = 0.5
    curriculum: tuple[tuple[int, int], ...] = ()
    feedback_curriculum: tuple[tuple[int, int], ...] = ()
    patch_curriculum: tuple[tuple[int, int], ...] = ()
    window_curriculum: tuple[tuple[int, int], ...] = ()
    # numbers
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "default"
    # the optimiser
    optimizer: Literal["muon", "adam", "amsgrad", "adamw", "sgd"] = "muon"
    learning_rate: float = 2e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-4
    schedule: Literal["constant", "stepped", "cosine"] = "cosine"
    warmup_steps: int = 0
    milestones: tuple[int, ...] = (100_000, 200_000)
    milestone_factor: float = 0.1
    train_schedule: bool = True
    clip_norm: float | None = None
    ema_decay: float = 0.999
    # what one sees
    log_every: int = 100
    validation: str | None = None
    validate_every: int = 5_000
    checkpoint_every: int = 1_000
    keep: int = 3

    def __post_init__(self):
        if self.model.scale is None and self.data.scale != 1:
            raise ValueError("model.scale must be given to train")
        if self.data.scale != (self.model.scale or 1):
            raise ValueError(
                f"data.scale is {self.data.scale} and model.scale {self.model.scale}: set both"
            )
        for name in ("steps", "log_every", "validate_every", "checkpoint_every", "keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay must be in [0, 1), not {self.ema_decay}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm must be positive, not {self.clip_norm}")
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(f"warmup_steps must be from 0 to steps, not {self.warmup_steps}")
        if not any(self.iterate_weights) or min(self.iterate_weights) < 0:
            raise ValueError("iterate_weights must be non-negative, at least one of them positive")
        if self.backward == "truncated" and self.iterate_weights != (1.0,):
            raise ValueError("iterate_weights have no effect on truncated: use intermediate_weight")
        if self.backward == "random" and self.iterate_weights != (1.0,):
            raise ValueError("iterate_weights have no effect on random: the last one run counts")
        Truncated(self.k1, self.k2)  # which checks them
        self._check_curricula()
        self._check_scales()

    def _check_curricula(self) -> None:
        most = {"curriculum": self.model.iterations}
        most["feedback_curriculum"] = self.model.feedback_steps
        for name in ("curriculum", "feedback_curriculum", "patch_curriculum", "window_curriculum"):
            pairs = getattr(self, name)
            for step, value in pairs:
                if step < 0 or not 1 <= value <= most.get(name, value):
                    limit = f"1 to {most[name]}" if name in most else "at least 1"
                    raise ValueError(f"{name}: ({step}, {value}) is not a step and {limit}")
            if len(dict(pairs)) < len(pairs):
                raise ValueError(f"{name}: a step appears twice")
        if self.window_curriculum and self.backward not in ("truncated", "random"):
            raise ValueError(f"window_curriculum has no effect on backward = {self.backward}")

    def _check_scales(self) -> None:
        if self.scales and self.model.scale not in self.scales:
            raise ValueError(f"scales {self.scales} must have model.scale {self.model.scale}")
        if len(set(self.all_scales)) > 1 and (self.data.lr or self.data.hr.startswith("tfds:")):
            raise ValueError("scales: low-resolution images must be made here, not given")
        for scale in self.all_scales:
            if self.scales and scale not in SCALES:
                raise ValueError(f"scales must be some of {SCALES}, not {self.scales}")
            for patch in self.all_patches:
                if patch % scale:
                    raise ValueError(f"patches must be multiples of the scale {scale}: {patch}")

    def backward_rule(
        self, iterations: int, step: jax.Array | None = None
    ) -> Full | Checkpointed | Truncated | Window:
        """The `backward=` of `reconstruct`, in this step (the last iterate if None)."""
        if self.backward == "truncated":
            return Truncated(self.k1, self.k2)
        if self.backward == "random":
            if step is None:
                return Window(iterations, self.k2)
            key = jax.random.fold_in(jax.random.key(self.seed), step)
            return Random(self.k2, key).window(iterations)
        return Full() if self.backward == "full" else Checkpointed()

    @property
    def all_scales(self) -> tuple[int, ...]:
        """The scales of the batches, in turn."""
        return self.scales or (self.data.scale,)

    @property
    def all_patches(self) -> tuple[int, ...]:
        """The sides that patches have in some step."""
        return (self.data.patch, *(patch for _, patch in self.patch_curriculum))

    def scale_at(self, step: int) -> int:
        """Scale of the batch of this step (counted from 0)."""
        return self.all_scales[step % len(self.all_scales)]

    def iterations_at(self, step: int) -> int:
        """Iterations that are run in this step (counted from 0)."""
        return _reached(self.curriculum, step, self.model.iterations)

    def feedback_steps_at(self, step: int) -> int:
        """Feedback steps of the network in this step (counted from 0)."""
        return _reached(self.feedback_curriculum, step, self.model.feedback_steps)

    def patch_at(self, step: int) -> int:
        """Side of the patches of this step (counted from 0)."""
        return _reached(self.patch_curriculum, step, self.data.patch)

    def window_at(self, step: int) -> int:
        """k2 in this step (counted from 0)."""
        return _reached(self.window_curriculum, step, self.k2)

    def loss_weights(self, iterations: int) -> np.ndarray:
        """Weight (K,) of each iterate in the loss."""
        if self.backward == "truncated":
            rule = Truncated(self.k1, self.k2)
            return losses.truncated_weights(rule, self.intermediate_weight, iterations)
        return losses.last_weights(self.iterate_weights, iterations)


def _reached(curriculum: tuple[tuple[int, int], ...], step: int, before: int) -> int:
    """The value of the last pair that has begun, or the one before all."""
    reached = [value for start, value in sorted(curriculum) if start <= step]
    return reached[-1] if reached else before


Optimizer = optax.GradientTransformation | Callable[[TrainConfig], optax.GradientTransformation]
Params = dict[str, Any]
Batch = dict[str, Any]
Objective = Callable[[Params, Batch], tuple[Any, dict[str, Any]]]

# What a recipe file may define besides `config`.
VALUES = ("optimizer", "operator", "prior", "loss", "init", "solve", "objective")
VALUES += ("measure", "examples", "held_out", "score")
# Fields that decide how the network of the library is run.
_OF_OUR_MODEL = ("iterate_weights", "curriculum", "feedback_curriculum", "window_curriculum")
_OF_OUR_MODEL += ("backward", "dtype")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that decides a run: its configuration, and values instead of what that has names for.

    In a recipe file these are variables or functions of the same names. What is None is made from
    the fields of `config`.

    Attributes:
        config: numbers and names.
        optimizer: of Optax, or a function of the configuration that makes it, so that fields
            changed on the command line reach it. It is all of it, with the learning rate;
            `clip_norm` comes before it, and `train_schedule` holds.
        operator: as `reconstruct` takes it, with `scale`, `initial` and `gradient`. The images stay
            those of `config.data`, and the validation images are made by `degrade`.
        prior: makes the prior N of the weights, a pytree called as N(z, sigma, alpha) (see
            `unroll`); the projected network, `LearnedPrior`, if None.
        loss: distance of images from targets, (n, h, w, c) both -> (n,) (see `losses`).
        init: key -> parameters of a model of one's own, nested dictionaries of arrays. Such a
            recipe has `config.data.scale` 1, and a function `solve`.
        solve: (params, batch) -> images (n, h, w, c), of that model, from what was measured. The
            batch is a dictionary of arrays, each with n as its first axis. How the gradient goes
            back, and through how many iterations, is its own affair.
        objective: (params, batch) -> (loss, metrics), where the distance of `solve` from
            `batch["hr"]` is not what is wanted; metrics are a dictionary of numbers.
        measure: (hr, rng) -> example, what is trained on as a dictionary of NumPy arrays, made of a
            patch (p, p, 3) of bytes; all that is random in it comes from `rng`. Arrays have the
            same shape for every patch of one size.
        examples: in place of the images of `config.data`, anything with a length and items, which
            `measure` is given if there is one; an item may depend on nothing but its number.
        held_out: the same for validation, in place of the images in `config.validation`.
        score: (params, example) -> figures of one validation example, a dictionary of numbers. By
            "psnr", if it is among them, the best checkpoint is chosen; by default the PSNR of
            `solve` beside `hr`.
        text: of the recipe file. A run with values of its own is resumed only by the same text.
        file: its name, for messages.

    Raises:
        ValueError: a value is of another kind, or does not suit the configuration.
    """

    config: TrainConfig
    optimizer: Optimizer | None = None
    operator: Any = None
    prior: Callable[[Weights], Any] | None = None
    loss: losses.Loss | None = None
    init: Callable[[jax.Array], Params] | None = None
    solve: Solve | None = None
    objective: Objective | None = None
    measure: Measure | None = None
    examples: Any = None
    held_out: Any = None
    score: Callable[[Params, Batch], dict[str, float]] | None = None
    text: str = ""
    file: str = ""

    def __post_init__(self):
        if not isinstance(self.config, TrainConfig):
            raise ValueError(f"config must be a TrainConfig, not {_shown(self.config)}")
        kinds = {
            "optimizer": "an optax.GradientTransformation, or a function of the config",
            "prior": "a function of the weights",
            "loss": "a function of images and targets",
            "init": "a function of a key",
            "solve": "a function of parameters and a batch",
            "objective": "a function of parameters and a batch",
            "measure": "a function of an image and a random generator",
            "score": "a function of parameters and an example",
        }
        for name, kind in kinds.items():
            value = getattr(self, name)
            fits = value is None or callable(value)
            if name == "optimizer":
                fits |= isinstance(value, optax.GradientTransformation)
            if not fits or isinstance(value, type):
                raise ValueError(f"{name} must be {kind}, not {_shown(value)}")
        for name in ("examples", "held_out"):
            value = getattr(self, name)
            if value is not None and not (hasattr(value, "__len__") and len(value)):
                raise ValueError(f"{name} must have a length and items, not {_shown(value)}")
        if self.operator is not None:
            self._check_operator()
        self._check_own_model()

    def _check_operator(self) -> None:
        if not all(hasattr(self.operator, name) for name in ("scale", "initial", "gradient")):
            raise ValueError(
                "operator must have a scale and methods initial and gradient, unlike "
                + _shown(self.operator)
            )
        scales = sorted(set(self.config.all_scales))
        if scales != [self.operator.scale]:
            names = ", ".join(map(str, scales))
            raise ValueError(f"operator is of scale {self.operator.scale}, the training of {names}")

    def _check_own_model(self) -> None:
        config, own = self.config, self.init is not None
        of_it = ("solve", "objective", "measure", "examples", "held_out", "score")
        if not own and (given := [name for name in of_it if getattr(self, name) is not None]):
            raise ValueError(f"{given[0]} is of a model of one's own, which needs a function init")
        if own != (config.data.scale == 1):
            reason = "data.scale = 1 is for a recipe with a function init"
            if own:
                reason = "a recipe with init takes images as they are: set data.scale = 1"
            raise ValueError(reason)
        if not own:
            return
        if self.solve is None:
            raise ValueError("a recipe with init needs a function solve(params, batch)")
        for name in ("operator", "prior"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect beside init: use it in solve")
        without = TrainConfig()
        for name in _OF_OUR_MODEL:
            if getattr(config, name) != getattr(without, name):
                raise ValueError(f"{name} has no effect on a model of one's own")

    @property
    def has_values(self) -> bool:
        """Whether anything is not made from the configuration."""
        return any(getattr(self, name) is not None for name in VALUES)


def as_recipe(recipe: Recipe | TrainConfig) -> Recipe:
    """A bare configuration as a recipe."""
    return recipe if isinstance(recipe, Recipe) else Recipe(recipe)


def _shown(value: Any) -> str:
    """For messages, in a line of bounded length."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:80]}..."
