"""What becomes of the image that an iteration proposes: taken, relaxed, or extrapolated.

An object given as `accelerate=` has two methods,

    start(x) -> memory                          at the first image
    mix(memory, x, proposed) -> (memory, new)   of the iterate, and of what becomes of it

Memory is a pytree of arrays whose shapes do not change. Where `proposed` equals x, `new` must too,
so that fixed points are those of the iteration alone.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..trees import pytree

Image = Inexact[Array, "n ..."]


@pytree
@dataclasses.dataclass(frozen=True)
class Plain:
    """new = proposed: the iteration as it is.

    >>> import jax.numpy as jnp, isrrescnet_jax as isr
    >>> x, proposed = jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1))
    >>> isr.Plain().mix(None, x, proposed)[1].ravel()
    Array([1., 1., 1., 1.], dtype=float32)
    """

    def start(self, x: Image) -> None:
        """Nothing to remember."""
        return None

    def mix(self, memory: None, x: Image, proposed: Image) -> tuple[None, Image]:
        """The proposal."""
        return None, proposed


@pytree
@dataclasses.dataclass(frozen=True)
class Relaxed:
    """new = x + theta (proposed - x): relaxation, or averaging (Krasnoselskii and Mann).

    With 0 < theta < 1 it makes a map that expands no distance converge wherever it has a fixed
    point. (Bauschke & Combettes, "Convex Analysis and Monotone Operator Theory", 2017, ch. 5.)

    Attributes:
        theta: in (0, 2); 1 changes nothing. May be traced, and differentiated.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> print(isr.Relaxed(0.5).mix(None, jnp.zeros(1), jnp.ones(1))[1])
        [0.5]
    """

    theta: Float[ArrayLike, ""]

    def start(self, x: Image) -> None:
        """Nothing to remember."""
        return None

    def mix(self, memory: None, x: Image, proposed: Image) -> tuple[None, Image]:
        """Between x and the proposal, or beyond it."""
        return None, x + self.theta * (proposed - x)


@pytree
@dataclasses.dataclass(frozen=True)
class Anderson:
    """Anderson acceleration: the combination of the last iterates whose residual is smallest.

        f_i = G(x_i) - x_i,   minimise |sum_i c_i f_i|^2 with sum_i c_i = 1,   new = sum c_i G(x_i)

    over the last `memory` iterates, for each image by itself. On linear maps it is as fast as
    GMRES. G must depend on the iterate alone: leave the momentum out (w = -inf). (Anderson, J. ACM
    12(4), 1965; Walker & Ni, SIAM J. Numer. Anal. 49(4), 2011.)

    Attributes:
        memory: iterates that are combined, static, at least 1; 1 is the plain iteration.
        ridge: added to the least-squares problem, relative to the size of its matrix; by default
            10 times the precision of the type.

    Raises:
        ValueError: `memory` is below 1.

    Example:
        >>> import isrrescnet_jax as isr
        >>> isr.Anderson(memory=5).memory
        5
    """

    memory: int = dataclasses.field(default=5, metadata={"static": True})
    ridge: float | None = dataclasses.field(default=None, metadata={"static": True})

    def __post_init__(self):
        if self.memory < 1:
            raise ValueError(f"memory must be at least 1, not {self.memory}")

    def start(self, x: Image) -> dict[str, Any]:
        """Room for the last iterates, and how many there are."""
        room = jnp.zeros((self.memory, *x.shape), x.dtype)
        return {"proposed": room, "residual": room, "count": jnp.int32(0)}

    def mix(
        self, memory: dict[str, Any], x: Image, proposed: Image
    ) -> tuple[dict[str, Any], Image]:
        """The best combination with the iterates before."""
        place = memory["count"] % self.memory
        put = lax.dynamic_update_index_in_dim
        ours = put(memory["proposed"], proposed, place, 0)
        residuals = put(memory["residual"], proposed - x, place, 0)
        count = memory["count"] + 1
        there = jnp.arange(self.memory) < count
        flat = residuals.reshape(self.memory, x.shape[0], -1)
        # Real coefficients, for complex images too: the projections of an iteration are not linear
        # over the complex numbers.
        gram = jnp.einsum("inp,jnp->nij", jnp.conj(flat), flat, precision="highest").real
        coefficients = jax.vmap(lambda g: self._combine(g, there))(gram)
        new = jnp.einsum("ni,in...->n...", coefficients.astype(x.dtype), ours, precision="highest")
        return {"proposed": ours, "residual": residuals, "count": count}, new

    def _combine(self, gram: Float[Array, "m m"], there: Array) -> Float[Array, " m"]:
        """c proportional to (gram + ridge)^-1 1 over the places that are filled."""
        real = gram.dtype
        ridge = 10 * jnp.finfo(real).eps if self.ridge is None else self.ridge
        # At a fixed point all residuals vanish, and any combination does.
        size = jnp.max(jnp.where(there, jnp.diagonal(gram), 0))
        unit = gram / jnp.where(size > 0, size, 1)
        filled = there[:, None] & there[None, :]
        eye = jnp.eye(self.memory, dtype=real)
        matrix = jnp.where(filled, unit, 0) + jnp.where(there, ridge, 1)[:, None] * eye
        c = jnp.linalg.solve(matrix, there.astype(real))
        return c / jnp.sum(c)
