"""`reconstruct`: the iterations of `iteration`, unrolled, and differentiable in every way."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact, Num, PyTree, Real, Shaped

from ..physics.noise import noise_level
from ..physics.operators import Bicubic, for_weights
from ..prior.network import LearnedPrior
from ..protocols import Backward, DataTerm, Prior
from ..representation import in_one_line
from ..trees import pytree
from ..weights import Weights
from .acceleration import Plain
from .backward import Full
from .constraint import Box
from .state import Iteration, State, inexact


@pytree
@dataclasses.dataclass(frozen=True)
class Solution:
    """What the iterations found; a pytree.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x = jnp.zeros((1, 8, 8, 3))
    >>> isr.Solution(image=x, iterates=None, initial=x, sigma=jnp.ones(1)).initial.shape
    (1, 8, 8, 3)

    Attributes:
        image: the last iterate, within the constraint.
        iterates: x_1 ... x_K with `trace=True`, else None.
        initial: x_0.
        sigma: the noise level of each image that was used.
        observed: what `observe` made of x_1 ... x_K, stacked, else None.
        state: the last one, from which iterations can go on.
        iterations: how many were run to get there.
        residual: |x_K - x_(K-1)| / |x_K| of each image.
        converged: whether that is at most the tolerance of the way back, or 1e-4 where it has none.
    """

    # Of JAX or NumPy, or what JAX puts in their place that only has a shape.
    image: Inexact[Any, "*n H W c"]
    iterates: Inexact[Any, "K *n H W c"] | None
    initial: Inexact[Any, "*n H W c"] | None
    sigma: Float[Any, "*n"] | float
    observed: PyTree = dataclasses.field(default=None, repr=False)
    state: State | None = dataclasses.field(default=None, repr=False)
    iterations: Shaped[Any, ""] | None = None
    residual: Float[Any, " n"] | None = None
    converged: Shaped[Any, " n"] | None = None

    __repr__ = in_one_line


for _kind in (Solution, State):  # which have no static fields
    export.register_pytree_node_serialization(
        _kind,
        serialized_name=f"isrrescnet_jax.{_kind.__name__}",
        serialize_auxdata=lambda static: b"",
        deserialize_auxdata=lambda data: (),
    )


@dataclasses.dataclass(frozen=True)
class _Step:
    """The step of `backward`: what is no array, as functions are, apart from the context."""

    structure: Any
    rest: tuple[Any, ...]
    trace: bool
    observe: Callable[[Array], PyTree] | None

    def iteration(self, context: Sequence[Any]) -> Iteration:
        """With the arrays of the context in their places."""
        arrays = iter(context)
        leaves = [next(arrays) if leaf is _ARRAY else leaf for leaf in self.rest]
        return jax.tree.unflatten(self.structure, leaves)

    def __call__(self, context: Sequence[Any], state: State, schedule: Any) -> tuple[State, Any]:
        new = self.iteration(context).step(state, *schedule)
        seen = None if self.observe is None else self.observe(new.image)
        return new, (new.image if self.trace else None, seen)

    @property
    def plain(self) -> Callable[[list[Any], State, Any], tuple[State, Any]]:
        """Without acceleration, which has the same fixed points."""

        def step(context: Sequence[Any], state: State, schedule: Any) -> tuple[State, Any]:
            plain = dataclasses.replace(self.iteration(context), accelerate=Plain())
            return plain.step(dataclasses.replace(state, memory=None), *schedule), (None, None)

        return step


_ARRAY = object()  # the place of an array among the leaves of an iteration


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def _run(
    iteration: Iteration,
    start: Any,
    alpha: Float[ArrayLike, " K"],
    w: Float[ArrayLike, " K"],
    backward: Any,
    observe: Callable[[Array], PyTree] | None,
    trace: bool,
) -> Solution:
    if jnp.shape(alpha) != jnp.shape(w):
        shapes = f"{jnp.shape(alpha)} and {jnp.shape(w)}"
        raise ValueError(f"alpha and w must be of one length, not {shapes}")
    state = _remembering(iteration, start) if isinstance(start, State) else iteration.start(start)
    leaves, structure = jax.tree.flatten(iteration)
    rest = tuple(_ARRAY if _is_array(leaf) else leaf for leaf in leaves)
    context = [leaf for leaf in leaves if _is_array(leaf)]
    step = _Step(structure, rest, trace, observe)
    end, outputs = backward.run(step, context, state, (alpha, w))
    iterates, observed = outputs or (None, None)
    residual = end.residual()
    sigma = jnp.asarray(iteration.sigma)
    return Solution(
        end.image,
        iterates,
        state.image,
        jnp.broadcast_to(sigma, end.image.shape[:1]),
        observed,
        end,
        end.count - state.count,
        residual,
        residual <= getattr(backward, "tolerance", 1e-4),
    )


def _remembering(iteration: Iteration, state: State) -> State:
    """A state with the memory of this acceleration, begun anew after another one."""
    fresh = jax.eval_shape(iteration.accelerate.start, state.image)
    shapes = jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), state.memory)
    if shapes == jax.tree.map(lambda a: (a.shape, a.dtype), fresh):
        return state
    return dataclasses.replace(state, memory=iteration.accelerate.start(state.image))


_compiled = jax.jit(_run, static_argnames="trace")


def _in_a_program(leaf: Any) -> bool:
    """Whether a program around is being traced, and not values differentiated or batched alone.

    As a call of its own in it, the iterations would compute again on the way back what it could
    keep: on a GPU a training step with one iteration moved a fifth more bytes.
    """
    while isinstance(leaf, Tracer):
        inner = getattr(leaf, "primal", None)
        if inner is None and hasattr(leaf, "batch_dim"):
            inner = getattr(leaf, "val", None)
        if inner is None:
            return True
        leaf = inner
    return False


def unroll(
    y: Inexact[ArrayLike, "n ..."],
    operator: DataTerm,
    prior: Prior,
    *,
    alpha: Float[ArrayLike, " K"],
    w: Float[ArrayLike, " K"],
    sigma: Float[ArrayLike, "#n"],
    step: Float[ArrayLike, ""] = 1.0,
    trace: bool = False,
    backward: Backward = Full(),  # noqa: B008 (frozen)
    constraint: Callable[[Array], Array] = Box(),  # noqa: B008
    accelerate: Any = Plain(),  # noqa: B008
    observe: Callable[[Array], PyTree] | None = None,
    start: State | Inexact[ArrayLike, "n H W c"] | None = None,
) -> Solution:
    """Run the iterations with any operator and any prior.

        v_k     = x_k + exp(w_k) (x_k - x_(k-1))
        z_k     = v_k - step operator.gradient(v_k, y)
        x_(k+1) = constraint(z_k - prior(z_k, sigma, alpha_k))

    Without a prior and with no momentum, iterative back projection (Irani & Peleg, 1991):

    >>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
    >>> y = jax.random.uniform(jax.random.key(0), (1, 5, 6, 3), minval=100, maxval=150)
    >>> operator = isr.Bicubic(2, reference=False)
    >>> none = jax.tree_util.Partial(lambda z, sigma, alpha: jnp.zeros_like(z))
    >>> options = {"alpha": jnp.zeros(9), "w": jnp.full(9, -jnp.inf), "sigma": jnp.ones(1)}
    >>> image = isr.unroll(y, operator, none, step=4.0, **options).image
    >>> bool(jnp.abs(operator.forward(image) - y).mean() < 0.1)
    True

    The prior is not multiplied by the step: fixed points depend on the weight of the one to the
    other, and with it on the step.

    Where operator, prior and all other values are pytrees of arrays the program is compiled once
    and kept, also outside of `jit` and under an eager `grad`. A lambda, a closure, or an object of
    a class that JAX does not know may stand for another computation tomorrow: they work, and are
    compiled at each call outside of `jit`.

    Args:
        y: the observations, images in [0, 255] or anything the operator makes, one for each image.
            Of the types of `state.inexact`: integers and half precision become float32, complex
            numbers stay.
        operator: offers `initial(y)` and `gradient(v, y)`; a pytree (see `operators`).
        prior: N, called as prior(z, sigma, alpha_k); a pytree (see `network.LearnedPrior`), or
            `jax.tree_util.Partial` of a function and its parameters.
        alpha, w: log radius and log momentum of each iteration; their length is the number of
            iterations. w[0] has no effect.
        sigma: noise level of each image, in grey levels.
        step: length of the gradient step; below 2 / |D^T D| the iterations converge without prior.
        trace: keep every iterate.
        backward: how gradients flow (see `backward`), and when the iterations end.
        constraint: where iterates lie, `Box()`, `NonNegative()`, `Unconstrained()` or a function;
            complex images need one without an order.
        accelerate: `Plain()`, `Relaxed(theta)` or `Anderson(memory)` (see `acceleration`).
        observe: a function of each iterate whose results are stacked in `Solution.observed`, where
            keeping the iterates would take too much memory; `jax.tree_util.Partial` of a function
            and its arrays keeps the compiled program.
        start: an image to start from, or the state of another solution to go on from; the
            operator's initial image by default.

    Raises:
        ValueError: the constraint, or the way back with `trace` or `observe`, cannot be had.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> shrink = jax.tree_util.Partial(lambda weight, z, sigma, alpha: weight * z, 0.1)
        >>> y, mask = jnp.full((1, 8, 8, 1), 90.0), isr.Mask(jnp.ones((8, 8, 1)))
        >>> quiet = {"alpha": jnp.zeros(9), "w": jnp.full(9, -jnp.inf), "sigma": jnp.ones(1)}
        >>> solution = isr.unroll(y, mask, shrink, observe=jnp.mean, **quiet)
        >>> solution.observed.shape, bool(solution.converged[0]), round(float(solution.image.max()))
        ((9,), True, 81)
    """
    y = inexact(y)
    real = y.real.dtype
    sigma, alpha, w = (jnp.asarray(a, real) for a in (sigma, alpha, w))
    iteration = Iteration(y, operator, prior, sigma, step, constraint, accelerate)
    if start is not None and not isinstance(start, State):
        start = inexact(start)
    arguments = (iteration, start, alpha, w, backward, observe)
    leaves, structure = jax.tree.flatten(arguments)
    kept = all(map(_is_array, leaves)) and _is_hashable(structure)
    kept = kept and not any(map(_in_a_program, leaves))
    return (_compiled if kept else _run)(*arguments, trace=trace)


def _is_hashable(structure: Any) -> bool:
    try:
        hash(structure)
    except TypeError:
        return False
    return True


def schedule(
    weights: Weights, iterations: int | None = None, start: State | None = None
) -> tuple[Float[Array | np.ndarray, " K"], Float[Array | np.ndarray, " K"]]:
    """(alpha, w) of the first `iterations`; beyond the trained K the last pair is repeated.

    From a state on it is that of the `iterations` after it.
    """
    iterations = weights.config.iterations if iterations is None else iterations
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    if start is not None:
        count = jnp.asarray(start.count)
        index = jnp.minimum(count + jnp.arange(iterations), weights.config.iterations - 1)
        alpha, w = (jnp.asarray(weights.params[name])[index] for name in ("alpha", "w"))
        return alpha, w
    index = np.minimum(np.arange(iterations), weights.config.iterations - 1)
    return weights.params["alpha"][index], weights.params["w"][index]


def reconstruct(
    weights: Weights,
    lr: Num[ArrayLike, "n h w c"],
    *,
    operator: DataTerm | None = None,
    noise: Literal["estimate"] | Real[ArrayLike, ""] | Real[ArrayLike, "#n"] = "estimate",
    iterations: int | None = None,
    trace: bool = False,
    backward: Backward = Full(),  # noqa: B008 (frozen)
    prior: Prior | None = None,
    dtype: Any = None,
    precision: Any = "highest",
    constraint: Callable[[Array], Array] = Box(),  # noqa: B008
    accelerate: Any = Plain(),  # noqa: B008
    observe: Callable[[Array], PyTree] | None = None,
    start: State | Inexact[ArrayLike, "n H W c"] | None = None,
) -> Solution:
    """Super-resolve a batch of images; works under `jit`, `grad` and `vmap`.

    The iterations of `unroll`, with the operator, prior and schedule of the weights (Umer, Foresti
    & Micheloni, "Deep Iterative Residual Convolutional Network for Single Image Super-Resolution",
    ICPR 2020).

    >>> import jax, isrrescnet_jax as isr
    >>> config = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
    >>> weights = isr.init_weights(config, jax.random.key(0))
    >>> lr = jax.random.uniform(jax.random.key(1), (1, 8, 9, 3), maxval=255)
    >>> isr.reconstruct(weights, lr, trace=True).iterates.shape
    (2, 1, 16, 18, 3)

    The gradient with respect to `lr` leaves out the path through the noise level where that is
    estimated: sigma is taken for a constant, as in the reference. The full one is that with
    noise=noise_level(lr, differentiable=True).

    Args:
        weights: a pytree, so gradients may be taken with respect to it.
        lr: low-resolution images with values in [0, 255]; integers, float16 and bfloat16 become
            float32. Complex observations stay, for operators of complex or real images.
        operator: how they came about; `Bicubic` at the scale of the weights by default. Of the
            physics of the weights, unless it was made with another `reference` (with a warning).
        noise: "estimate" (see `noise.noise_level`), or a known level in grey levels, one number or
            one for each image. No gradient flows through an estimate.
        iterations: how many to run; all that were trained by default. Beyond those the last
            (alpha, w) is repeated, which makes images worse: the last one was trained to be that.
        trace: keep every iterate in the solution.
        backward: `Full()`, `Checkpointed()`, `Truncated(k1, k2)`, `Window(end, k2)`,
            `Random(k2, key)`, `Implicit()`, `Until()` or one's own (see `backward`).
        prior: takes the place of the learned one; alpha and w still come from the weights.
        dtype: of the features, "bfloat16" for speed; image arithmetic stays in the type of `lr`.
        precision: of convolutions. GPU and TPU would else run float32 in TF32 or bfloat16.
        constraint, accelerate, observe, start: as in `unroll`. From a state the schedule goes on.

    Raises:
        ValueError: shapes that do not fit, or neither an operator nor a scale to make one of.
    """
    lr = inexact(lr)
    if lr.ndim != 4 or lr.shape[3] != weights.config.channels or 0 in lr.shape:
        raise ValueError(
            f"images must be (n, h, w, {weights.config.channels}) for these weights, "
            f"not {tuple(lr.shape)}"
        )
    if operator is None:
        if weights.config.scale is None:
            raise ValueError("these weights name no scale: give operator=Bicubic(scale)")
        operator = Bicubic(weights.config.scale)
    physics: Any = for_weights(operator, weights.config)
    if isinstance(noise, str):
        if noise != "estimate":
            raise ValueError(f"noise must be 'estimate' or a number, not {noise!r}")
        sigma = noise_level(lr)
    else:
        sigma = jnp.broadcast_to(jnp.asarray(noise, lr.real.dtype), lr.shape[:1])
    prior = LearnedPrior.from_weights(weights, dtype, precision) if prior is None else prior
    alpha, w = schedule(weights, iterations, start if isinstance(start, State) else None)
    return unroll(
        lr,
        physics,
        prior,
        alpha=alpha,
        w=w,
        sigma=sigma,
        step=weights.config.step,
        trace=trace,
        backward=backward,
        constraint=constraint,
        accelerate=accelerate,
        observe=observe,
        start=start,
    )
