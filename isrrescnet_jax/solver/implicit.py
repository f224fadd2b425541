"""Gradients of a fixed point, without the iterations that led to it.

Where x = F(x, theta), the derivatives of x are those of the implicit function theorem,

    dx = (I - J)^-1 (dF / dtheta) dtheta,    J = dF / dx at the fixed point,

and forwards or backwards take one linear solve with J or J^T, whatever the number of iterations
was. (Bai, Kolter & Koltun, "Deep equilibrium models", NeurIPS 2019; Gilton, Ongie & Willett, "Deep
equilibrium architectures for inverse problems in imaging", IEEE TCI 7, 2021.)
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from ..trees import pytree
from .backward import Step, Until, at, change, length_of
from .state import State

Linear = Callable[[PyTree], PyTree]


@dataclasses.dataclass(frozen=True)
class Neumann:
    """(I - J)^-1 b as the series b + J b + J^2 b + ... + J^n b, cut after n terms.

    n = 0 takes b itself: Jacobian-free backpropagation (Fung et al., "JFB: Jacobian-free
    backpropagation for implicit networks", AAAI 2022). The residual, J^(n+1) b, is what the name
    says: it counts as an error only where it is not smaller than that of n = 0, which means that
    the series does not converge, or where a tolerance is given.

    Attributes:
        terms: n, at least 0.
        tolerance: of the residual relative to b; None accepts any that the series has.

    Raises:
        ValueError: `terms` is negative.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> float(isr.Neumann(30).solve(lambda u: u - 0.5 * u, jnp.ones(())))  # 1 / (1 - 1/2)
        2.0
    """

    terms: int
    tolerance: float | None = None

    def __post_init__(self):
        if self.terms < 0:
            raise ValueError(f"terms must be at least 0, not {self.terms}")

    def solve(self, matvec: Linear, b: PyTree) -> PyTree:
        """u with matvec(u) about b, where matvec is I - J."""

        def more(_, u):
            return jax.tree.map(lambda b, u, au: b + u - au, b, u, matvec(u))

        return lax.fori_loop(0, self.terms, more, b)

    def limit(self, first: Float[Array, ""]) -> Float[Array, ""]:
        """The relative residual that is accepted; `first` is that of n = 0."""
        if self.tolerance is not None:
            return jnp.full_like(first, self.tolerance)
        if self.terms == 0:
            return jnp.full_like(first, jnp.inf)
        return first * (1 - 1e-3) + 10 * jnp.finfo(first.dtype).eps


@pytree
@dataclasses.dataclass(frozen=True)
class Implicit:
    """Iterate to a fixed point, and differentiate it by the implicit function theorem.

    Forwards as `Until`: all (alpha, w) of the schedule, then the last pair until nothing changes.
    Backwards a linear solve at the fixed point of the last pair, which gets all the gradient of the
    schedule; memory does not depend on the number of iterations, and the initial image has no
    gradient. Forward mode too. Complex images are differentiated by their real and imaginary parts.

    Without a fixed point there is no such gradient. So where the relative change does not fall
    below the tolerance, or the linear solve's residual does not, an error says so, with the size of
    the residual: also under `jit`, where the environment variable EQX_ON_ERROR=nan makes it NaN.

    Attributes:
        solver: of the linear equations; static. `Neumann(terms)`, a solver of Lineax, or anything
            that is hashable with `solve(matvec, b)` and `limit(first)` as `Neumann` has them.
            Lineax is given b of norm 1; by default its GMRES, to half the tolerance.
        steps: iterations forwards at most; static.
        tolerance: of the relative change forwards, and of the residual of the linear solve; static.
        throw: False computes the image all the same, says so in `Solution.converged`, and gives
            gradients that are NaN; static.

    Raises:
        ImportError: on use, without the extra `implicit`.
        ValueError: on use, with `trace` or `observe`, or fewer steps than the schedule has.
        RuntimeError: when run, there is no fixed point, or the solve fails (`throw`).

    Example:
        >>> import isrrescnet_jax as isr
        >>> way = isr.Implicit(isr.Neumann(30), steps=500, tolerance=1e-5)
        >>> way.tolerance
        1e-05
    """

    solver: Any = dataclasses.field(default=None, metadata={"static": True})
    steps: int = dataclasses.field(default=1000, metadata={"static": True})
    tolerance: float = dataclasses.field(default=1e-4, metadata={"static": True})
    throw: bool = dataclasses.field(default=True, metadata={"static": True})

    def run(self, step: Step, context: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
        """A loop, and a root of x - F(x) where it ends."""
        checks()  # imports, or says what to install
        if self.steps < length_of(xs):
            raise ValueError(f"steps must be at least the {length_of(xs)} of the schedule")
        frozen = lax.stop_gradient((context, carry, xs))
        _, end, residual = Until(self.tolerance, self.steps).iterate(self, step, *frozen)
        plain, last = getattr(step, "plain", step), at(xs, length_of(xs) - 1)
        bare = dataclasses.replace(end, memory=None) if _is_state(end) else end
        # A relaxed or accelerated iteration may hardly move where the plain one would. Half of what
        # that would, as it need not shrink evenly.
        after, _ = plain(frozen[0], bare, at(frozen[2], length_of(xs) - 1))
        residual = jnp.maximum(residual, change(after, bare) / 2)
        end, bare, residual = lax.stop_gradient((end, bare, residual))
        reals, rebuild = split(bare)
        if not self.throw:  # a bound that an image has reached would make zeros of NaN
            context = jax.tree.map(functools.partial(_doubted, residual <= self.tolerance), context)

        def defect(reals):
            new, _ = plain(context, rebuild(reals), last)
            return reals - split(new)[0]

        tangent_solve = functools.partial(self.tangent_solve, residual)
        root = lax.custom_root(defect, reals, lambda _, x: x, tangent_solve)
        root = self._checked_forward(root, residual) if self.throw else root
        found = rebuild(root)
        return (dataclasses.replace(found, memory=end.memory) if _is_state(end) else found), None

    def tangent_solve(
        self, forward: Float[Array, ""], matvec: Linear, b: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """u with matvec(u) = b, differentiable in both modes, checked both ways.

        Args:
            forward: residual of the iterations, without which a derivative has no meaning. It is
                looked at here too: the program of a gradient alone may leave the image out.
            matvec: I - J, or its transpose.
            b: right side.
        """

        def solve(matvec: Linear, b: Array) -> Array:
            u, residual, limit = solve_linear(self.solver, self.tolerance, matvec, b)
            if not self.throw:
                return jnp.where((residual <= limit) & (forward <= self.tolerance), u, jnp.nan)
            u = raised(u, residual, limit, "the linear solve of Implicit fails: its residual")
            return self._checked_forward(u, forward)

        return lax.custom_linear_solve(matvec, b, solve, solve)

    def _checked_forward(self, x: Array, residual: Float[Array, ""]) -> Array:
        what = f"the iterations reach no fixed point in {self.steps} steps: their relative change"
        return raised(x, residual, jnp.asarray(self.tolerance, residual.dtype), what)


@jax.custom_jvp
def _doubted(sure: Bool[Array, ""], x: Any) -> Any:
    """x, with a derivative that is NaN unless we are sure."""
    return x


@_doubted.defjvp
def _(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    (sure, x), (_, change) = primals, tangents
    if change.dtype == jax.dtypes.float0:
        return x, change
    return x, change * jnp.where(sure, 1, jnp.nan).astype(change.dtype)


def raised(x: PyTree, residual: Float[Array, ""], limit: Float[Array, ""], what: str) -> PyTree:
    """x, with an error when it is computed unless the residual is within its limit.

    A message under `jit` is a constant: there is one for each size of the residual.
    """
    advice = "the prior may not contract: take more steps, or Full() or Truncated(k1, k2)"
    sizes = ["not a number", *(f"about 1e{k}" for k in range(-16, 17))]
    messages = [f"{what} is {size}, above the tolerance; {advice}" for size in sizes]
    decade = jnp.clip(jnp.rint(jnp.log10(jnp.maximum(residual, 1e-30))), -16, 16)
    index = jnp.where(jnp.isnan(residual), 0, decade.astype(jnp.int32) + 17)
    return checks()(x, ~(residual <= limit), index, messages)


def solve_linear(
    solver: Any, tolerance: float, matvec: Linear, b: PyTree
) -> tuple[PyTree, Float[Array, ""], Float[Array, ""]]:
    """(u, residual, limit): u with matvec(u) = b, |matvec(u) - b| / |b|, and what is accepted."""
    size = _norm(b)
    scale = jnp.where(size > 0, size, 1)
    unit = jax.tree.map(lambda a: a / scale, b)

    def residual(u):
        return _norm(jax.tree.map(jnp.subtract, matvec(u), unit))

    if hasattr(solver, "limit"):
        u, limit = solver.solve(matvec, unit), solver.limit(residual(unit))
    else:
        import lineax

        if solver is None:
            solver = lineax.GMRES(rtol=0.0, atol=tolerance / 2, norm=_norm, max_steps=1000)
        structure = jax.eval_shape(lambda: unit)
        operator = lineax.FunctionLinearOperator(matvec, structure)
        # Checked here, by the residual, and the same for all solvers.
        u = lineax.linear_solve(operator, unit, solver, throw=False).value
        limit = jnp.asarray(tolerance)
    return jax.tree.map(lambda a: a * scale, u), residual(u), limit


def split(tree: PyTree) -> tuple[Float[Array, " m"], Callable[[Array], PyTree]]:
    """The numbers of a tree as one real vector, and the way back; integers are kept aside."""
    leaves, treedef = jax.tree.flatten(tree)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    real = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    pairs = [jnp.iscomplexobj(leaf) for leaf in leaves]

    def parts(a):
        return jnp.stack([a.real, a.imag]) if jnp.iscomplexobj(a) else a

    # One vector, as JAX cannot transpose a solve whose right side is in parts known to be zero.
    vector, unravel = ravel_pytree(
        [parts(leaf) for leaf, kept in zip(leaves, real, strict=True) if kept]
    )

    def rebuild(vector: Array) -> PyTree:
        rest = iter(unravel(vector))
        new = [
            lax.complex(*next(rest)) if pair else next(rest) if kept else leaf
            for leaf, kept, pair in zip(leaves, real, pairs, strict=True)
        ]
        return jax.tree.unflatten(treedef, new)

    return vector, rebuild


def checks() -> Callable[..., PyTree]:
    """Equinox's `branched_error_if`, which raises also under `jit`; comes with Lineax."""
    try:
        import equinox
        import lineax  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Implicit needs Lineax: pip install 'isrrescnet-jax[implicit]'"
        ) from error
    return equinox.branched_error_if


def _is_state(carry: Any) -> bool:
    return isinstance(carry, State)


def _norm(tree: PyTree) -> Float[Array, ""]:
    return jnp.sqrt(sum(jnp.sum(jnp.square(a)) for a in jax.tree.leaves(tree)))
