"""3x3 correlation with half of the multiplications, for processors that are short of them.

Winograd's minimal filtering F(4, 3), along the rows of the image: four neighbouring output rows
y = A^T [(G g) * (B^T d)] come from six input rows d and the three rows g of the kernel, with six
products instead of twelve, and each product is a correlation along a row. (Winograd, "Arithmetic
complexity of computations", 1980; Lavin & Gray, "Fast algorithms for convolutional neural
networks", CVPR 2016.)

The gradient of the kernel is the transpose of this: G^T of the sums over all groups of
(A y) x (B^T d), again with half of the products.

The polynomials behind it are evaluated at 0, +-1/sqrt(2), +-sqrt(2) and infinity. With these points
the result is as accurate in float32 as that of the plain sum (root mean square error 5.7e-7 and
4.3e-7 of values of order one); with the usual 0, +-1, +-2 it has 1.5 times the error.
"""

import functools

import numpy as np
from jax import lax
from jax import numpy as jnp
from jaxtyping import Array, Float

ROWS = 4  # output rows of a group
POINTS = (0.0, 2**-0.5, -(2**-0.5), 2**0.5, -(2**0.5))


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T (4, 6), G (6, 3) and B^T (6, 6) for POINTS and infinity.

    With p_i the points: A^T[q, i] = p_i^q, G[i, j] = p_i^j / prod_(l != i) (p_i - p_l), and row i
    of B^T has the coefficients of prod_(l != i) (x - p_l); the point at infinity has the leading
    coefficients, and the product over all l.
    """
    p = np.asarray(POINTS)
    others = [np.delete(p, i) for i in range(len(p))]
    scale = np.array([np.prod(x - o) for x, o in zip(p, others, strict=True)])
    at = np.zeros((ROWS, len(p) + 1))
    at[:, :-1] = p ** np.arange(ROWS)[:, None]
    at[-1, -1] = 1
    g = np.zeros((len(p) + 1, 3))
    g[:-1] = p[:, None] ** np.arange(3) / scale[:, None]
    g[-1, -1] = 1
    bt = np.zeros((len(p) + 1,) * 2)
    bt[:-1, :-1] = [np.poly(o)[::-1] for o in others]
    bt[-1] = np.poly(p)[::-1]
    return at, g, bt


_AT, _G, _BT = matrices()


def _sums(matrix: np.ndarray, arrays: list[Array]) -> list[Array]:
    """matrix @ arrays, elementwise in the arrays, so that it fuses with what makes and takes them.

    Zero coefficients cost nothing; those that are not are exact zeros of the construction.
    """
    zero = 1e-9
    return [
        functools.reduce(
            jnp.add,
            [
                a if abs(c - 1) < zero else a * a.dtype.type(c)
                for c, a in zip(row, arrays, strict=True)
                if abs(c) > zero
            ],
        )
        for row in matrix
    ]


def _split(x: Float[Array, "n h w c"]) -> list[Float[Array, "n h4 w c"]]:
    """The rows 0, 4, 8, ..., then 1, 5, 9, ..., and so on."""
    n, h, w, c = x.shape
    groups = x.reshape(n, h // ROWS, ROWS, w, c)
    return [groups[:, :, q] for q in range(ROWS)]


def _whole(x: Float[Array, "n h w c"]) -> Float[Array, "n h4 w c"]:
    """With as many rows of zeros below as make whole groups; at least float32."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    missing = -(-x.shape[1] // ROWS) * ROWS - x.shape[1]  # with `%`, no sum of symbolic sizes
    return jnp.pad(x, ((0, 0), (0, missing), (0, 0), (0, 0))) if missing else x


def _transformed(x: Float[Array, "n h w c"]) -> list[Float[Array, "n h4 w c"]]:
    """B^T d of every group of rows, zeros around the image."""
    rows = _split(x)

    def moved(a, by):  # to the next group of rows, or back
        return lax.pad(a, a.dtype.type(0), ((0, 0, 0), (by, -by, 0), (0, 0, 0), (0, 0, 0)))

    return _sums(_BT, [moved(rows[-1], 1), *rows, moved(rows[0], -1)])


def _windows(x: Float[Array, "n h w c"]) -> list[Float[Array, "n h4 w c"]]:
    """The six rows that each group of output rows sees, without zeros around the image."""
    rows = _split(jnp.pad(x, ((0, 0), (0, ROWS - 2), (0, 0), (0, 0))))
    return [a[:, :-1] for a in rows] + [a[:, 1:] for a in rows[:2]]


def _along_rows(x: Float[Array, "n h w i"], kernel: Float[Array, "3 i o"]):
    """Correlation along each row. In one dimension XLA leaves it to the faster of its libraries."""
    n, h, w, c = x.shape
    layout = ("NWC", "WIO", "NWC")
    lines = x.reshape(n * h, w, c)
    y = lax.conv_general_dilated(lines, kernel, (1,), [(1, 1)], dimension_numbers=layout)
    return y.reshape(n, h, w, -1)


def correlate(
    x: Float[Array, "n h w i"], kernel: Float[Array, "3 3 i o"], rows: int = 1
) -> Float[Array, "n H w o"]:
    """3x3 correlation of the zero-padded image. Computes in float32 where the type is narrower.

    Args:
        rows: of zeros above and below; without any, x has two rows more than whole groups.
    """
    whole = _whole(x) if rows else x.astype(jnp.promote_types(x.dtype, jnp.float32))
    kernels = jnp.einsum("ti,ijcd->tjcd", _G.astype(whole.dtype), kernel.astype(whole.dtype))
    six = _transformed(whole) if rows else _sums(_BT, _windows(whole))
    products = [_along_rows(v, k) for v, k in zip(six, kernels, strict=True)]
    out = [y.astype(x.dtype) for y in _sums(_AT, products)]
    if rows:  # each of the four is made in one go, and copied to its place whole
        out = lax.optimization_barrier(out)
    y = jnp.stack(out, axis=2)
    return y.reshape(x.shape[0], -1, *y.shape[3:])[:, : x.shape[1] - 2 + 2 * rows]


def kernel_gradient(
    x: Float[Array, "n h w i"], g: Float[Array, "n h w o"]
) -> Float[Array, "3 3 i o"]:
    """The gradient of sum(g * correlate(x, kernel)) for the kernel.

    In strips of rows, which stay in the cache; each is one batch of matrix products, with the three
    shifts along a row stacked in the channels of x.
    """
    x, g = _whole(x), _whole(g)
    n, h, w, inputs = x.shape
    count = h // ROWS
    groups = max(
        d for d in range(1, count + 1) if count % d == 0 and (d * ROWS * w <= 4096 or d == 1)
    )
    x = jnp.pad(x, ((0, 0), (1, ROWS - 1), (1, 1), (0, 0)))

    def strip(total, index):
        corner = (index // (count // groups), index % (count // groups) * groups * ROWS, 0, 0)
        d = lax.dynamic_slice(x, corner, (1, groups * ROWS + 2, w + 2, inputs))
        d = jnp.stack(_sums(_BT, _windows(d)))
        d = jnp.concatenate([d[:, :, :, j : j + w] for j in range(3)], axis=-1)
        y = lax.dynamic_slice(g, corner, (1, groups * ROWS, w, g.shape[-1]))
        y = jnp.stack(_sums(_AT.T, _split(y)))
        d, y = (a.reshape(len(_BT), -1, a.shape[-1]) for a in (d, y))
        over = (((1,), (1,)), ((0,), (0,)))
        return total + lax.dot_general(d, y, over, precision="highest"), None

    total = jnp.zeros_like(x, shape=(len(_BT), 3 * inputs, g.shape[-1]))
    total, _ = lax.scan(strip, total, jnp.arange(n * (count // groups)))
    total = total.reshape(len(_BT), 3, inputs, -1)
    return jnp.einsum("ti,tjcd->ijcd", _G.astype(x.dtype), total, precision="highest")
