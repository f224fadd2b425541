"""What a training run is configured with, and what it carries from step to step."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..backward import Checkpointed, Full, Truncated, Window
from ..config import ModelConfig
from ..data import DataConfig
from . import losses


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """A training recipe.

    The defaults of the optimiser are those of the authors' own recipe: L1, Adam with AMSGrad,
    learning rate 3e-3 lowered in steps of 0.1.

    Attributes:
        model: the network; its scale must be given.
        data: what it is trained on, in which batches.
        init: weights to start from: a shipped name or a .safetensors file, of any scale and number
            of iterations (further ones start like the last); fresh ones if None.
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
        curriculum: pairs (step, iterations): from this step on, that many iterations are run;
            before the first pair, and with none, all of the model.
        dtype: of the features of the network; images and parameters stay float32.
        precision: of float32 products on GPU and TPU: default (TF32 or bfloat16), high or highest.
        optimizer: adam, amsgrad (Adam with AMSGrad, as PyTorch computes it), adamw or sgd.
        learning_rate: its peak.
        beta1: decay of the gradient's moving average; the momentum of sgd.
        beta2: decay of the moving average of the squared gradient.
        weight_decay: for adamw, of the lengths g of the convolutions, the scale of their weights.
        schedule: constant, stepped (by `milestone_factor` at each of `milestones`) or cosine (to
            zero at the last step).
        warmup_steps: steps over which the learning rate first rises linearly from zero.
        milestones: steps at which the stepped schedule lowers the learning rate.
        milestone_factor: by which it is then multiplied.
        clip_norm: the norm to which larger gradients are scaled down (they are in units of the
            loss); no limit if None.
        ema_decay: per step, of the moving average of the weights, which is what is validated and
            written at the end; 0 for none.
        log_every: steps between two lines of metrics.
        validation: a folder of high-resolution images to validate on, if any.
        validate_every: steps between two validations.
        checkpoint_every: steps between two checkpoints; validation makes one too.
        keep: so many of the last checkpoints are kept, and the one of the best validation.
    """

    model: ModelConfig = ModelConfig(scale=4)
    data: DataConfig = DataConfig(scale=4)
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
    # numbers
    dtype: Literal["float32", "bfloat16"] = "float32"
    precision: Literal["default", "high", "highest"] = "default"
    # the optimiser
    optimizer: Literal["adam", "amsgrad", "adamw", "sgd"] = "amsgrad"
    learning_rate: float = 3e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-4
    schedule: Literal["constant", "stepped", "cosine"] = "stepped"
    warmup_steps: int = 0
    milestones: tuple[int, ...] = (100_000, 200_000)
    milestone_factor: float = 0.1
    clip_norm: float | None = None
    ema_decay: float = 0.999
    # what one sees
    log_every: int = 100
    validation: str | None = None
    validate_every: int = 5_000
    checkpoint_every: int = 1_000
    keep: int = 3

    def __post_init__(self):
        if self.model.scale is None:
            raise ValueError("model.scale must be given to train")
        if self.data.scale != self.model.scale:
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
        for step, iterations in self.curriculum:
            if step < 0 or not 1 <= iterations <= self.model.iterations:
                raise ValueError(
                    f"curriculum: ({step}, {iterations}) is not a step and 1 to "
                    f"{self.model.iterations} iterations"
                )
        Truncated(self.k1, self.k2)  # which checks them

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
            likelihood = -np.log(np.arange(1, iterations + 1, dtype=np.float32))
            return Window(1 + jax.random.categorical(key, jnp.asarray(likelihood)), self.k2)
        return Full() if self.backward == "full" else Checkpointed()

    def iterations_at(self, step: int) -> int:
        """Iterations that the curriculum says to run in this step (counted from 0)."""
        reached = [iterations for start, iterations in sorted(self.curriculum) if start <= step]
        return reached[-1] if reached else self.model.iterations

    def loss_weights(self, iterations: int) -> np.ndarray:
        """Weight (K,) of each iterate in the loss."""
        if self.backward == "truncated":
            rule = Truncated(self.k1, self.k2)
            return losses.truncated_weights(rule, self.intermediate_weight, iterations)
        return losses.last_weights(self.iterate_weights, iterations)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes; a pytree.

    Attributes:
        step: optimiser steps made so far, int32.
        params: of `Weights`.
        opt_state: of Optax.
        ema: moving average of `params`.
    """

    step: jax.Array
    params: dict[str, Any]
    opt_state: Any
    ema: dict[str, Any]


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """Learning rate of each step: linear warm-up, then constant, stepped or cosine."""
    peak = config.learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(peak, max(config.steps - config.warmup_steps, 1))
    elif config.schedule == "stepped":
        # Milestones count from the first step of the run, the schedule from the end of the warm-up.
        drops = {m - config.warmup_steps: config.milestone_factor for m in config.milestones}
        after = optax.piecewise_constant_schedule(peak, drops)
    else:
        after = optax.constant_schedule(peak)
    if not config.warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def _amsgrad(b1: float, b2: float, eps: float = 1e-8) -> optax.GradientTransformation:
    """AMSGrad as PyTorch computes it, m_hat / (sqrt(max_t v_t / (1 - b2^t)) + eps).

    The maximum is over the v before their bias is corrected. Optax by default corrects first, and
    the large v_hat of the first steps then hold the steps down for good.
    (Reddi, Kale & Kumar, "On the convergence of Adam and beyond", ICLR 2018.)
    """
    moments = optax.scale_by_amsgrad(b1, b2, bias_correction_nu=False)

    def update(grads, state, params=None):
        _, state = moments.update(grads, state, params)
        m = optax.tree.bias_correction(state.mu, b1, state.count)
        v = optax.tree.bias_correction(state.nu_max, b2, state.count)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), m, v), state

    return optax.GradientTransformation(moments.init, update)


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Clipping, then the optimiser, then the learning rate."""
    parts = []
    if config.clip_norm is not None:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    if config.optimizer == "sgd":
        parts.append(optax.trace(config.beta1) if config.beta1 else optax.identity())
    elif config.optimizer == "amsgrad":
        parts.append(_amsgrad(config.beta1, config.beta2))
    else:
        parts.append(optax.scale_by_adam(config.beta1, config.beta2))
    if config.optimizer == "adamw":
        # w = g v / |v|: only g scales the weight, shrinking v would but raise its learning rate.
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=_lengths))
    return optax.chain(*parts, optax.scale_by_learning_rate(learning_rate(config)))


def _lengths(params: dict[str, Any]) -> dict[str, Any]:
    """True where a leaf is a length g of a weight-normalised convolution."""
    return {k: _lengths(v) if isinstance(v, dict) else k == "g" for k, v in params.items()}


def init_state(config: TrainConfig, params: dict[str, Any]) -> TrainState:
    """The state before the first step."""

    def copy(tree):
        # Never weakly typed (a step compiled for that would be compiled again for its own result),
        # and no two leaves one buffer (a step may be given the whole state to use up).
        return jax.tree.map(lambda a: jnp.array(a, a.dtype), tree)

    params = copy(params)
    return TrainState(jnp.int32(0), params, make_optimizer(config).init(params), copy(params))
