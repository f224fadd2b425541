"""What an operator is: any linear map A from an image to what is observed of it.

`forward` suffices. The rest follows from it, for real and complex numbers, by transposition of the
program that JAX makes of it:

    @isr.pytree
    @dataclasses.dataclass(frozen=True)
    class RowSums(isr.Operator):  # what a line scanner sees
        def forward(self, x):
            return x.sum(2, keepdims=True)

        def domain(self, y):
            return jax.ShapeDtypeStruct((*y.shape[:2], 64, y.shape[3]), y.dtype)

Its fields are pytree leaves, and may be learned, or static (`metadata={"static": True}`). Anything
that offers `initial` and `gradient` can take its place in `solver.unroll`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Inexact

from ..trees import pytree

Image = Inexact[Array, "n H W c"]
Observation = Inexact[Array, "n ..."]


class Operator:
    """Base of linear operators, of which only `forward` has to be written.

    With the inner product <a, b> = sum conj(a) b,

        <A x, y> = <x, A^H y>                     adjoint
        A^H (A v - y)                             gradient, that of 1/2 |A v - y|^2
        A^H y                                     initial

    Where A makes complex numbers of a real image, the inner product is the real part of that, and
    A^H y is real.

    Attributes:
        scale: sides of an image are so many times those of the observation; 1 unless a subclass
            says otherwise.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> class Double(isr.Operator):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> float(Double().adjoint(jnp.ones((1, 2, 2, 1))).sum())
        8.0
    """

    scale: Any = 1

    def forward(self, x: Image) -> Observation:
        """A x, by a function that is linear in x."""
        raise NotImplementedError(f"{type(self).__name__} needs a method forward(x)")

    def domain(self, y: Observation) -> jax.ShapeDtypeStruct:
        """Shape and type of the images that y is of: y's own, with `scale` times the sides."""
        n, h, w, *rest = y.shape
        return jax.ShapeDtypeStruct((n, h * self.scale, w * self.scale, *rest), y.dtype)

    def adjoint(self, y: Observation) -> Image:
        """A^H y."""
        y = jnp.asarray(y)
        return self.adjoint_onto(self.domain(y), y)

    def adjoint_onto(self, like: Array | jax.ShapeDtypeStruct, y: Observation) -> Image:
        """A^H y, for images of this shape and type."""
        structure = jax.ShapeDtypeStruct(like.shape, like.dtype)
        observed = jax.eval_shape(self.forward, structure)
        transposed = jax.linear_transpose(self.forward, structure)
        # JAX's transpose is A^T, and A^H y = conj(A^T conj(y)).
        return jnp.conj(transposed(jnp.conj(y).astype(observed.dtype))[0])

    def gradient(self, v: Image, y: Observation) -> Image:
        """A^H (A v - y)."""
        v = jnp.asarray(v)
        return self.adjoint_onto(v, self.forward(v) - y)

    def initial(self, y: Observation) -> Image:
        """The image from which iterations start, A^H y (zero filling, of undersampled data)."""
        return self.adjoint(y)

    def __matmul__(self, inner: "Operator") -> "Composition":
        """A @ B, the operator that applies B first."""
        return Composition(self, inner)


@pytree
@dataclasses.dataclass(frozen=True)
class Composition(Operator):
    """A B, made by A @ B: first `inner`, then `outer`. Iterations start from B's image of A's.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> mask = isr.Mask(jnp.arange(4.0).reshape(2, 2, 1))
        >>> print((mask @ mask).forward(jnp.ones((1, 2, 2, 1)))[0, :, :, 0])
        [[0. 1.]
         [4. 9.]]
    """

    outer: Any
    inner: Any

    @property
    def scale(self) -> int:
        """Of both together."""
        return self.outer.scale * self.inner.scale

    def forward(self, x: Image) -> Observation:
        """A B x."""
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Observation) -> Image:
        """B^H A^H y."""
        return self.inner.adjoint(self.outer.adjoint(y))

    def initial(self, y: Observation) -> Image:
        """B's initial image of A's."""
        return self.inner.initial(self.outer.initial(y))


@pytree
@dataclasses.dataclass(frozen=True)
class Scaled(Operator):
    """The same operator with a data term of another weight: gradient(v, y) = step A^H (A v - y).

    The step of the iteration where that is not an argument, as in `reconstruct`; it may be learned.

    Attributes:
        operator: A.
        step: positive; below 2 / |A|^2 (see `operator_norm`) iterations converge without a prior.

    Example:
        >>> import isrrescnet_jax as isr, jax.numpy as jnp
        >>> one = jnp.ones((1, 2, 2, 1))
        >>> float(isr.Scaled(isr.Mask(one[0]), 0.5).gradient(3 * one, one).mean())
        1.0
    """

    operator: Any
    step: Float[ArrayLike, ""]

    @property
    def scale(self) -> int:
        """That of the operator."""
        return self.operator.scale

    def forward(self, x: Image) -> Observation:
        """A x."""
        return self.operator.forward(x)

    def adjoint(self, y: Observation) -> Image:
        """A^H y."""
        return self.operator.adjoint(y)

    def gradient(self, v: Image, y: Observation) -> Image:
        """step A^H (A v - y)."""
        return self.step * self.operator.gradient(v, y)

    def initial(self, y: Observation) -> Image:
        """As the operator."""
        return self.operator.initial(y)
