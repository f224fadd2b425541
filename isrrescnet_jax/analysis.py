"""Instruments for research on unrolled iterations: what a gradient is, and how far to trust it.

Maps are functions from a pytree of arrays to one like it, such as `Iteration.as_map(alpha, w)`:

    iteration = isr.Iteration(y, operator, prior, sigma)
    step = iteration.as_map(alpha[-1])
    spectral_norm(step, x, key)        by how much one iteration can stretch a change
    step, at = iteration.as_map(alpha[-1], w[-1]), (x, previous)
    spectral_radius(step, at, key)     below 1 there is a fixed point near by, and it attracts

Of a map that is known:

>>> import jax, jax.numpy as jnp, isrrescnet_jax as isr
>>> halve = lambda x: x / 2
>>> round(float(isr.analysis.spectral_norm(halve, jnp.ones(8), jax.random.key(0))), 3)
0.5

Complex numbers count as pairs of real ones throughout.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact, Key, PyTree

from .solver.backward import Full
from .solver.implicit import solve_linear, split
from .solver.state import Iteration, State
from .trees import pytree

Map = Callable[[PyTree], PyTree]


def spectral_norm(f: Map, x: PyTree, key: Key[Array, ""], steps: int = 50) -> Float[Array, ""]:
    """|J|, the largest singular value of the Jacobian of f at x; a bound from below.

    By power iteration on J^T J, with one `jvp` and one `vjp` in each step. Below 1 at every x, f
    contracts. (Golub & Van Loan, "Matrix Computations", 2013, section 8.2.)

    Args:
        f: a map of pytrees.
        x: where.
        key: of the direction to start from.
        steps: of the power iteration.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> f = lambda x: jnp.array([3.0, 1.0]) * x
        >>> round(float(analysis.spectral_norm(f, jnp.ones(2), jax.random.key(0))), 3)
        3.0
    """
    point, flat = _flat(f, x)

    def step(_, u):
        u = jax.vjp(flat, point)[1](jax.jvp(flat, (point,), (u,))[1])[0]
        return u / jnp.maximum(jnp.linalg.norm(u), jnp.finfo(u.dtype).tiny)

    u = lax.fori_loop(0, steps, step, _direction(key, point))
    return jnp.linalg.norm(jax.jvp(flat, (point,), (u,))[1])


def spectral_radius(f: Map, x: PyTree, key: Key[Array, ""], krylov: int = 30) -> float:
    """Largest modulus of an eigenvalue of the Jacobian of f at x, by Arnoldi iteration.

    Below 1 a fixed point at x attracts; above it iterations leave it. The estimate is the largest
    Ritz value of a Krylov space, exact where that is the whole space. (Arnoldi, Quart. Appl. Math.
    9(1), 1951.) Not to be called under `jit`: eigenvalues are NumPy's.

    Args:
        f: a map of pytrees, whose value is like its argument.
        x: where.
        key: of the direction to start from.
        krylov: dimensions of the space, at most.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> turn = jnp.array([[0.0, -2.0], [2.0, 0.0]])  # eigenvalues 2i and -2i
        >>> f = lambda x: turn @ x
        >>> round(analysis.spectral_radius(f, jnp.ones(2), jax.random.key(0)), 3)
        2.0
    """
    point, flat = _flat(f, x)
    size = min(krylov, point.size)

    @jax.jit
    def arnoldi(point, u):
        basis = jnp.zeros((size + 1, point.size), point.dtype).at[0].set(u)

        def step(loop, k):
            basis, alive = loop
            u = jax.jvp(flat, (point,), (basis[k],))[1]
            length = jnp.linalg.norm(u)
            column = basis @ u
            u = u - column @ basis
            again = basis @ u  # twice is enough to be orthogonal
            u, column = u - again @ basis, column + again
            rest = jnp.linalg.norm(u)
            # Where the space is invariant there is nothing left but rounding.
            going = alive & (rest > 10 * jnp.finfo(u.dtype).eps * length)
            new = jnp.where(going, u / jnp.where(rest > 0, rest, 1), 0)
            column = jnp.where(alive, column.at[k + 1].set(jnp.where(going, rest, 0)), 0)
            return (basis.at[k + 1].set(new), going), column

        return lax.scan(step, (basis, jnp.array(True)), jnp.arange(size))[1]

    hessenberg = np.asarray(arnoldi(point, _direction(key, point))).T[:size]
    return float(np.abs(np.linalg.eigvals(hessenberg)).max())


def lipschitz(f: Map, trajectory: PyTree) -> Float[Array, " pairs"]:
    """|f(x_(k+1)) - f(x_k)| / |x_(k+1) - x_k| along a trajectory; its largest bounds L from below.

    Args:
        f: a map, such as a prior, from one iterate.
        trajectory: iterates, stacked along the first axis, as `Solution.iterates`.

    Returns:
        One ratio for each pair of neighbours; 0 where they are the same.

    Example:
        >>> import jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> print(analysis.lipschitz(jnp.square, jnp.array([0.0, 1.0, 3.0])))
        [1. 4.]
    """
    values = lax.map(f, trajectory)

    def moves(tree):
        rows = jax.vmap(lambda leaves: split(leaves)[0])(tree)
        return jnp.linalg.norm(rows[1:] - rows[:-1], axis=1)

    before, after = moves(trajectory), moves(values)
    return jnp.where(before > 0, after / jnp.where(before > 0, before, 1), 0)


def adjoint_states(
    iteration: Iteration,
    loss: Callable[[Array], Float[Array, ""]],
    alpha: Float[Array, " K"],
    w: Float[Array, " K"],
    start: State | None = None,
) -> Inexact[Array, "K+1 n H W c"]:
    """d loss(x_K) / d x_k for k = 0 ... K, x_0 first: what is left of the gradient k iterations in.

    Their norms show where a gradient vanishes or explodes, and what truncation leaves out. Each is
    the derivative with respect to a change of x_k alone, not of the momentum that came with it.

    Args:
        iteration: what is run.
        loss: of the last iterate.
        alpha, w: the schedule.
        start: the state to start from; the operator's initial image by default.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> y, half = jnp.ones((1, 2, 2, 1)), jax.tree_util.Partial(lambda z, s, a: z / 2)
        >>> iteration = isr.Iteration(y, isr.Mask(0 * y[0]), half, jnp.ones(1))
        >>> states = analysis.adjoint_states(iteration, jnp.sum, jnp.zeros(2), jnp.full(2, -99.0))
        >>> print(states[:, 0, 0, 0, 0])
        [0.25 0.5  1.  ]
    """
    first = iteration.start() if start is None else start

    def moved(state, change):
        return dataclasses.replace(state, image=state.image + change)

    def last(changes):
        def step(state, x):
            alpha_k, w_k, change = x
            return moved(iteration.step(state, alpha_k, w_k), change), None

        start = moved(first, changes[0])
        # Before the first iteration x_0 moves as one, without a momentum.
        before = jnp.where(jnp.asarray(first.count) == 0, start.image, start.previous)
        start = dataclasses.replace(start, previous=before)
        state, _ = lax.scan(step, start, (jnp.asarray(alpha), jnp.asarray(w), changes[1:]))
        return loss(state.image)

    count = len(jnp.asarray(alpha)) + 1
    return jax.grad(last)(jnp.zeros((count, *first.image.shape), first.image.dtype))


def sensitivity(
    solve: Callable[[Array], Array],
    y: Inexact[Array, "*shape"],
    key: Key[Array, ""],
    probes: int = 16,
) -> Float[Array, "*shape"]:
    """|d x / d y_i|: how much the result moves, as a whole, with each measurement.

        |J e_i|^2 = E[(J^T v)_i^2],    v of independent signs

    (Hutchinson, Comm. Stat. 18(3), 1989.) The relative error is about 1 / sqrt(probes). Through
    `Implicit` it is that of the fixed point. Of complex measurements it is that of both parts.

    Args:
        solve: y -> x.
        y: measurements.
        key: of the probes.
        probes: backward passes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> print(analysis.sensitivity(lambda y: 3 * y, jnp.ones(2), jax.random.key(0)))
        [3. 3.]
    """
    point, rebuild = split(y)
    value, back = jax.vjp(lambda point: split(solve(rebuild(point)))[0], point)

    def square(key):
        return jnp.square(back(jax.random.rademacher(key, value.shape, value.dtype))[0])

    squares = jnp.mean(lax.map(square, jax.random.split(key, probes)), 0)
    parts = squares.reshape(2, *y.shape).sum(0) if jnp.iscomplexobj(y) else squares
    return jnp.sqrt(parts).reshape(y.shape)


@pytree
@dataclasses.dataclass(frozen=True)
class FixedPointGradient:
    """A gradient, and how well the two equations behind it are solved; a pytree.

    Attributes:
        gradient: with respect to theta, a pytree like it.
        forward: |f(theta, x) - x| / |x|: whether x is a fixed point.
        backward: |(I - J^T) u - g| / |g|: whether the adjoint u is its own.
    """

    gradient: PyTree
    forward: Float[Array, ""]
    backward: Float[Array, ""]


def fixed_point_gradient(
    f: Callable[[PyTree, PyTree], PyTree],
    theta: PyTree,
    x: PyTree,
    loss: Callable[[PyTree], Float[Array, ""]],
    solver: Any = None,
    tolerance: float = 1e-4,
) -> FixedPointGradient:
    """d loss(x) / d theta where x = f(theta, x), with its residuals; never an error.

        (I - J^T) u = d loss / d x,    gradient = (d f / d theta)^T u

    `Implicit` gives the same gradient inside of `grad`, and refuses it where a residual is too
    large: here they are what is looked at.

    Args:
        f: one iteration.
        theta: all that it depends on.
        x: the fixed point, or what is taken for it.
        loss: of the fixed point.
        solver: of the linear equation, as in `Implicit`: `Neumann(n)`, or one of Lineax.
        tolerance: which the default solver, Lineax's GMRES, aims at.

    Raises:
        ImportError: a solver of Lineax without the extra `implicit`.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> f = lambda theta, x: x / 2 + theta  # x = 2 theta
        >>> found = analysis.fixed_point_gradient(
        ...     f, jnp.ones(3), 2 * jnp.ones(3), jnp.sum, isr.Neumann(20))
        >>> print(found.gradient.round(3), float(found.forward), float(found.backward) < 1e-6)
        [2. 2. 2.] 0.0 True
    """
    point, rebuild = split(x)
    value, back = jax.vjp(lambda theta, point: split(f(theta, rebuild(point)))[0], theta, point)
    g = jax.grad(lambda point: loss(rebuild(point)))(point)
    u, backward, _ = solve_linear(solver, tolerance, lambda u: u - back(u)[1], g)
    forward = jnp.linalg.norm(value - point) / jnp.linalg.norm(point)
    return FixedPointGradient(back(u)[0], forward, backward)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One way to differentiate, beside the reference.

    Attributes:
        name: of the way.
        cosine: of the angle between its gradient and the reference's.
        error: |gradient - reference| / |reference|.
        seconds: one gradient, the best of several, compiled.
        bytes: of memory for what the compiled program keeps in between, as the compiler plans it.
    """

    name: str
    cosine: float
    error: float
    seconds: float
    bytes: int


class Agreements(tuple[Agreement, ...]):
    """A tuple of `Agreement` that prints as a table."""

    def __str__(self) -> str:
        head = f"{'way':32} {'cosine':>9} {'error':>9} {'seconds':>9} {'MiB':>9}"
        rows = (
            f"{a.name:32} {a.cosine:9.5f} {a.error:9.1e} {a.seconds:9.4f} {a.bytes / 2**20:9.2f}"
            for a in self
        )
        return "\n".join([head, *rows])


def agreement(
    loss: Callable[[PyTree, Any], Float[Array, ""]],
    theta: PyTree,
    ways: Mapping[str, Any],
    reference: Any = Full(),  # noqa: B008 (frozen)
    repeats: int = 3,
) -> Agreements:
    """How ways to differentiate agree with one of them, and what they cost.

    Args:
        loss: (theta, way) -> loss, with the way given to `reconstruct` or `unroll` as `backward`.
        theta: what the gradient is with respect to.
        ways: by name.
        reference: the way to compare with.
        repeats: of the time measurement.

    Returns:
        One row for each way, in their order; `print` shows a table.

    Example:
        >>> import isrrescnet_jax as isr, jax, jax.numpy as jnp
        >>> from isrrescnet_jax import analysis
        >>> y, pull = jnp.ones((1, 4, 4, 1)), lambda p, z, s, a: p * z
        >>> quiet = {"alpha": jnp.zeros(4), "w": jnp.zeros(4), "sigma": jnp.ones(1)}
        >>> def loss(p, way):
        ...     prior = jax.tree_util.Partial(pull, p)
        ...     return isr.unroll(y, isr.Mask(y[0]), prior, backward=way, **quiet).image.sum()
        >>> table = analysis.agreement(loss, 0.1, {"last": isr.Truncated(4, 1)})
        >>> round(table[0].cosine, 3)
        1.0
    """
    expected, *_ = _measured(loss, theta, reference, 1)
    rows = []
    for name, way in ways.items():
        gradient, seconds, memory = _measured(loss, theta, way, repeats)
        size = np.linalg.norm(gradient) * np.linalg.norm(expected)
        cosine = float(gradient @ expected / size) if size else float("nan")
        error = float(np.linalg.norm(gradient - expected) / np.linalg.norm(expected))
        rows.append(Agreement(name, cosine, error, seconds, memory))
    return Agreements(rows)


def _measured(loss: Any, theta: PyTree, way: Any, repeats: int) -> tuple[np.ndarray, float, int]:
    compiled = jax.jit(jax.grad(lambda theta: loss(theta, way))).lower(theta).compile()
    memory = compiled.memory_analysis()
    times, gradient = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        gradient = jax.block_until_ready(compiled(theta))
        times.append(time.perf_counter() - begin)
    peak = 0 if memory is None else memory.temp_size_in_bytes
    return np.asarray(split(gradient)[0], float), min(times), peak


def _flat(f: Map, x: PyTree) -> tuple[Float[Array, " m"], Callable[[Array], Array]]:
    point, rebuild = split(x)
    return point, lambda point: split(f(rebuild(point)))[0]


def _direction(key: Array, like: Array) -> Array:
    u = jax.random.normal(key, like.shape, like.dtype)
    return u / jnp.linalg.norm(u)
