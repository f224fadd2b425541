"""No value is taken for one of another class, whatever it holds."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.trees import pytree


@pytree
@dataclasses.dataclass(frozen=True)
class Pair:
    name: str = dataclasses.field(metadata={"static": True})
    first: jax.Array
    second: jax.Array | None = None


@pytest.mark.parametrize(
    "values",
    [
        [kind(2, reference=True) for kind in (isr.Bicubic, isr.Bilinear, isr.Decimation)],
        [isr.Unconstrained(), isr.NonNegative(), isr.Plain()],
        [isr.Full(2), isr.Checkpointed(2)],
        [isr.Truncated(2, 3), isr.Anderson(2, 3)],
    ],
)
def test_classes_with_the_same_fields_differ(values):
    structures = [jax.tree.structure(value) for value in values]
    assert all(a != b for a, b in itertools.combinations(structures, 2))
    assert structures == [jax.tree.structure(dataclasses.replace(value)) for value in values]


def test_fields_are_children_unless_they_are_static():
    pair = Pair("a", jnp.ones(2))
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(pair)] == [".first"]
    doubled = jax.jit(lambda p: jax.tree.map(lambda a: 2 * a, p))(pair)
    assert doubled.name == "a" and doubled.first.tolist() == [2, 2] and doubled.second is None
    assert jax.tree.structure(pair) != jax.tree.structure(dataclasses.replace(pair, name="b"))


def test_values_with_arrays_can_be_compared():
    mask = jnp.arange(4.0).reshape(2, 2, 1)
    for kind in (
        isr.Mask,
        isr.Fourier,
        lambda m: isr.Convolution(m[..., 0]),
        lambda m: isr.Scaled(isr.Mask(m), 0.5),
    ):
        assert kind(mask) == kind(mask + 0) and kind(mask) != kind(mask + 1)
    assert isr.Mask(mask) != isr.Fourier(mask) and isr.Mask(mask) != 3
    assert isr.Random(2, jax.random.key(0)) == isr.Random(2, jax.random.key(0))
    assert isr.Random(2, jax.random.key(0)) != isr.Random(2, jax.random.key(1))
    weights = isr.load_weights("x4")
    assert weights == isr.load_weights("x4") and weights != isr.load_weights("x2")
    assert jax.jit(lambda m: isr.Mask(m) == isr.Mask(m))(mask)
    plain = isr.Iteration(mask[None], isr.Mask(mask), len, jnp.ones(1))
    assert plain == isr.Iteration(mask[None], isr.Mask(mask), len, jnp.ones(1))
    assert plain != isr.Iteration(mask[None], isr.Mask(mask), max, jnp.ones(1))
