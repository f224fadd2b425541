"""Linear maps along one axis of an image: sparse matrices, and those of interpolation by s.

Both ways of a map are written by hand: what JAX makes of a gather is a scatter, which no processor
does well. One primitive knows which belong together, and has derivatives of any order.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Inexact, Int

from ..representation import in_one_line
from ..trees import pytree

Length = Any  # int, or what JAX has in its place where sizes are symbolic

# --- a map and its transpose ----------------------------------------------------------------------

_along = Primitive("along")


def _apply(x: Array, *arrays: Array, forth: Callable, axis: int, length: Length, **_: Any) -> Array:
    """forth(x, *arrays), linear in x; `length` is that of the axis afterwards."""
    return forth(x, *arrays, axis=axis, length=length)


_compiled = jax.jit(_apply, static_argnames=("forth", "back", "axis", "length", "apart"))


def _on_cpu(*arrays: Array, apart: bool, **how: Any) -> Array:
    """If `apart`, not fused with what comes next: that computed it again for each of its terms."""
    if not apart:
        return _apply(*arrays, **how)
    # An optimisation barrier is gone by the time XLA fuses on a CPU; a call may stay.
    with set_xla_metadata(inlineable="false"):
        return _compiled(*arrays, apart=apart, **how)


_along.def_impl(_compiled)
mlir.register_lowering(_along, mlir.lower_fun(_apply, multiple_results=False))
mlir.register_lowering(_along, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")


@_along.def_abstract_eval
def _shape(x, *_, axis, length, **__):
    return x.update(shape=(*x.shape[:axis], length, *x.shape[axis + 1 :]))


def _jvp(primals: Any, tangents: Any, **how: Any) -> tuple[Any, Any]:
    (x, *arrays), (dx, *_) = primals, tangents  # sizes are not differentiated
    out = _along.bind(x, *arrays, **how)
    if isinstance(dx, ad.Zero):
        return out, ad.Zero(jax.typeof(out).to_tangent_aval())
    return out, _along.bind(dx, *arrays, **how)


def _transpose(
    ct: Any, x: Any, *arrays: Any, forth: Callable, back: Callable, **how: Any
) -> list[Any]:
    nothing = [None] * len(arrays)
    if isinstance(ct, ad.Zero):
        return [ad.Zero(x.aval), *nothing]
    how["length"] = x.aval.shape[how["axis"]]
    return [_along.bind(ct, *arrays, forth=back, back=forth, **how), *nothing]


def _batch(arrays: Any, dims: Any, *, axis: int, **how: Any) -> tuple[Any, int]:
    if any(dim is not None for dim in dims[1:]):  # a map for each: images of several sizes
        return jax.vmap(functools.partial(_apply, axis=axis, **how), dims)(*arrays), 0
    (x, *arrays), dim = arrays, dims[0]
    return _along.bind(jnp.moveaxis(x, dim, 0), *arrays, axis=axis + 1, **how), 0


ad.primitive_jvps[_along] = _jvp
ad.primitive_transposes[_along] = _transpose
batching.primitive_batchers[_along] = _batch


# --- sparse matrices ------------------------------------------------------------------------------


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Taps:
    """A sparse matrix for one axis: out[i] = sum_t weight[i, t] in[index[i, t]].

    Its transpose lies beside it in the same form, so that both ways are gathers.

    Attributes:
        index, weight: of the matrix.
        back_index, back_weight: of its transpose.
        rate: inputs and outputs for each low-resolution pixel; see `part`.
    """

    index: Int[Array | np.ndarray, "o t"]
    weight: Float[Array | np.ndarray, "o t"]
    back_index: Int[Array | np.ndarray, "i b"]
    back_weight: Float[Array | np.ndarray, "i b"]
    rate: tuple[int, int] = dataclasses.field(default=(1, 1), metadata={"static": True})

    __repr__ = in_one_line

    @property
    def inputs(self) -> Length:
        """Columns of the matrix."""
        return self.back_index.shape[0]

    @property
    def outputs(self) -> Length:
        """Its rows."""
        return self.index.shape[0]

    def __call__(self, x: Inexact[Array, "..."], axis: int) -> Inexact[Array, "..."]:
        """Apply along `axis`."""
        index, back_index = jnp.asarray(self.index), jnp.asarray(self.back_index)
        weight, back_weight = (jnp.asarray(w, x.dtype) for w in (self.weight, self.back_weight))
        arrays = (x, index, weight, back_index, back_weight)
        how = {"forth": _gather, "back": _back, "apart": False}
        return _along.bind(*arrays, **how, axis=axis, length=self.outputs)

    def part(self, first: int, count: int) -> "Taps":
        """The matrix for low-resolution pixels `first` ... `first` + `count` of the axis alone.

        What reaches beyond them is taken from the nearest pixel, so the outermost outputs are not
        those of the whole.
        """
        ins, outs = self.rate
        extra = self.outputs - self.inputs // ins * outs

        def cut(index, weight, start, stop, offset, length):
            return np.clip(index[start:stop] - offset, 0, length - 1), weight[start:stop]

        out = (first * outs, (first + count) * outs + extra)
        inside = (first * ins, (first + count) * ins)
        forth = cut(self.index, self.weight, *out, inside[0], inside[1] - inside[0])
        back = cut(self.back_index, self.back_weight, *inside, out[0], out[1] - out[0])
        return Taps(*forth, *back, self.rate)


def _gather(x: Array, index: Array, weight: Array, *_: Array, axis: int, length: Length) -> Array:
    shape = [1] * x.ndim
    shape[axis] = length
    terms = [
        jnp.take(x, index[:, t], axis=axis, mode="clip") * weight[:, t].reshape(shape)
        for t in range(index.shape[1])
    ]
    return functools.reduce(jnp.add, terms)


def _back(x: Array, index: Array, weight: Array, *back: Array, axis: int, length: Length) -> Array:
    return _gather(x, *back, axis=axis, length=length)


def sparse(
    index: Int[np.ndarray, "o t"],
    weight: Float[np.ndarray, "o t"],
    inputs: int,
    rate: tuple[int, int] = (1, 1),
) -> Taps:
    """`Taps` of `inputs` columns, with the transpose that belongs to them."""
    index = np.clip(index, 0, inputs - 1).astype(np.int32)
    row = np.repeat(np.arange(len(index)), index.shape[1])
    used = weight.ravel() != 0
    # By columns; entries that an edge has doubled are added.
    keys, where = np.unique((index.ravel() * len(index) + row)[used], return_inverse=True)
    values = np.bincount(where.ravel(), weight.ravel()[used].astype(float), len(keys))
    column, row = np.divmod(keys, len(index))
    place = np.arange(len(keys)) - np.searchsorted(column, column)
    back = np.zeros((inputs, place.max(initial=0) + 1))
    back_index = back.astype(np.int32)
    back[column, place], back_index[column, place] = values, row
    return Taps(index, weight, back_index, back, rate)


# --- interpolation by a whole number --------------------------------------------------------------


@pytree
@dataclasses.dataclass(frozen=True, eq=False)
class Band:
    """A matrix between an axis and one of s times as many pixels, nonzero near its diagonal only.

    Pixel i of the small image goes with those of the large one from s i - m on, for a margin m:

        small[i] = sum_t weight[i, t] large[s i + t - m],     0 <= t < s + 2 m,

    or, enlarging, the transpose of this. Both ways are products of slices that lie together in
    memory, and weights are free for each pixel, which is what borders need.

    Attributes:
        weight: zero where it meets no pixel.
        scale: s.
        enlarges: from the small to the large image.
    """

    weight: Float[Array | np.ndarray, "n t"]
    scale: int = dataclasses.field(metadata={"static": True})
    enlarges: bool = dataclasses.field(default=False, metadata={"static": True})

    __repr__ = in_one_line

    @property
    def inputs(self) -> Length:
        """Columns of the matrix."""
        return self.weight.shape[0] * (1 if self.enlarges else self.scale)

    @property
    def outputs(self) -> Length:
        """Its rows."""
        return self.weight.shape[0] * (self.scale if self.enlarges else 1)

    def __call__(self, x: Inexact[Array, "..."], axis: int) -> Inexact[Array, "..."]:
        """Apply along `axis`."""
        forth, back = (_enlarge, _reduce) if self.enlarges else (_reduce, _enlarge)
        how = {"forth": forth, "back": back, "apart": True}
        weight = jnp.asarray(self.weight, x.dtype)
        return _along.bind(x, weight, **how, axis=axis, length=self.outputs)

    def part(self, first: int, count: int) -> "Band":
        """The matrix for pixels `first` ... `first` + `count` of the small image alone.

        What reaches beyond them is lost, so the outermost outputs are not those of the whole.
        """
        return dataclasses.replace(self, weight=self.weight[first : first + count])


def _flat(x: Array, axis: int, *blocks: Length) -> Array:
    """The axis in blocks, and one axis each before and behind: long rows for the processor."""
    before, behind = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    return x.reshape(before, *blocks, behind)


def _parts(n: Length, reach: int) -> Iterator[tuple[Length, Length]]:
    """The two ends and what is between, which sees no pixel beyond and needs no padded image."""
    return itertools.pairwise((0, reach, n - reach, n) if n > 2 * reach > 0 else (0, n))


def _around(x: Array, axis: int, first: Length, stop: Length, reach: int) -> Array:
    """Pixels `first` ... `stop` of the axis and `reach` more on both sides, zeros beyond."""
    n, zeros = x.shape[axis], [(0, 0, 0)] * x.ndim
    zeros[axis] = (max(reach - first, 0), max(stop + reach - n, 0), 0)
    x = lax.slice_in_dim(x, max(first - reach, 0), min(stop + reach, n), axis=axis)
    return lax.pad(x, jnp.zeros((), x.dtype), zeros)  # jnp.pad would be a call


def _reduce(x: Array, weight: Array, *, axis: int, length: Length) -> Array:
    """small[i] = sum_t weight[i, t] large[s i + t - m]."""
    (n, taps), s = weight.shape, x.shape[axis] // length
    margin = (taps - s) // 2
    reach = -(-margin // s)
    places = [divmod(t - margin + reach * s, s) for t in range(taps)]
    large, parts = _flat(x, axis, n, s), []
    for first, stop in _parts(n, reach):
        near, own = _around(large, 1, first, stop, reach), weight[first:stop, :, None]
        terms = [
            near[:, a : a + stop - first, phase] * own[:, t] for t, (a, phase) in enumerate(places)
        ]
        parts.append(functools.reduce(jnp.add, terms))
    return lax.concatenate(parts, 1).reshape(*x.shape[:axis], length, *x.shape[axis + 1 :])


def _enlarge(y: Array, weight: Array, *, axis: int, length: Length) -> Array:
    """large[s j + p] = sum_a weight[j + a, p - s a + m] small[j + a]."""
    (n, taps), s = weight.shape, length // y.shape[axis]
    margin = (taps - s) // 2
    reach = -(-margin // s)
    fill = reach * s - margin  # whole blocks
    weight = lax.pad(weight, jnp.zeros((), weight.dtype), [(0, 0, 0), (fill, fill, 0)])
    weight, small, parts = weight.reshape(n, -1, s, 1), _flat(y, axis, n), []
    for first, stop in _parts(n, reach):
        near, own = (
            _around(array, along, first, stop, reach) for array, along in ((small, 1), (weight, 0))
        )
        terms = [
            near[:, a : a + stop - first, None] * own[a : a + stop - first, 2 * reach - a]
            for a in range(2 * reach + 1)
        ]
        parts.append(functools.reduce(jnp.add, terms))
    return lax.concatenate(parts, 1).reshape(*y.shape[:axis], length, *y.shape[axis + 1 :])
