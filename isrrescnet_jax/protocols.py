"""What an operator, a prior and a way back are: anything that has these methods.

The library's own fulfil them without inheriting, and so may yours. Everything in the loop is a
pytree or static: make a dataclass of your own one with `isr.pytree`, and a prior from a function
and its parameters with `jax.tree_util.Partial`. CONTRIBUTING.md has a complete example of each.
"""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Array, Float, Inexact


@runtime_checkable
class DataTerm(Protocol):
    """How y came about: what the iterations need to know of an operator.

    A pytree. Images are (n, height, width, channels); y is of any shape. The operators of the
    library offer more (see `isr.Operator`, the base for one's own).

    >>> import isrrescnet_jax as isr
    >>> isinstance(isr.Bicubic(4), isr.DataTerm), isinstance("bicubic", isr.DataTerm)
    (True, False)
    """

    def initial(self, y: Inexact[Array, "n ..."], /) -> Inexact[Array, "n H W c"]:
        """x_0, from which the iterations start."""
        ...

    def gradient(
        self, v: Inexact[Array, "n H W c"], y: Inexact[Array, "n ..."], /
    ) -> Inexact[Array, "n H W c"]:
        """Of the data term at v: D^T (D v - y), or what stands for it."""
        ...


@runtime_checkable
class Prior(Protocol):
    """What the iterations take away besides: N(z; sigma, alpha), of the shape of z.

    A pytree, so that the loss can be differentiated with respect to its parameters.

    >>> import jax, isrrescnet_jax as isr
    >>> isinstance(jax.tree_util.Partial(lambda z, sigma, alpha: 0 * z), isr.Prior)
    True
    """

    def __call__(
        self,
        z: Inexact[Array, "n H W c"],
        sigma: Float[Array, " n"],
        alpha: Float[Array, ""],
        /,
    ) -> Inexact[Array, "n H W c"]:
        """N, with `sigma` the noise level of each image and `alpha` that of the iteration."""
        ...


@runtime_checkable
class Backward(Protocol):
    """How gradients flow through the iterations; static, or a pytree.

    >>> import isrrescnet_jax as isr
    >>> isinstance(isr.Truncated(5, 5), isr.Backward)
    True
    """

    def run(
        self,
        iterate: Callable[[Any, Any, Any], tuple[Any, Any]],
        context: Any,
        carry: Any,
        xs: Any,
        /,
    ) -> tuple[Any, Any]:
        """(carry, outputs) after every x of `xs`; without differentiation, what `lax.scan` gives.

        Args:
            iterate: pure, (context, carry, x) -> (carry, output).
            context: all that `iterate` depends on: operator, prior, data. An implementation with a
                derivative of its own (an implicit one, say) sees every input here.
            carry: the last two iterates.
            xs: (alpha, w), with one row for each iteration.
        """
        ...
