"""Values that hold arrays print in one line, whatever their leaves are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.images.picture import Picture
from isrrescnet_jax.representation import short, thousands
from isrrescnet_jax.train import TrainConfig, init_state

CONFIG = TrainConfig(model=isr.ModelConfig(scale=2), data=DataConfig(scale=2))


def test_arrays_are_their_types_and_shapes():
    assert short(np.zeros((2, 3), np.uint16)) == "u16[2,3]"
    assert short(jnp.zeros((), jnp.bfloat16)) == "bf16[]"
    assert short(np.zeros(4, bool)) == "bool[4]"
    assert short(jax.ShapeDtypeStruct((1, 2), jnp.complex64)) == "c64[1,2]"
    assert short(jax.random.key(0)) == "key<fry>[]"
    assert short(np.float32(0.5)) == "0.5"
    assert [thousands(n) for n in (0, 999, 1000, 388_823)] == ["0", "999", "1 k", "389 k"]


def test_weights(small):
    assert repr(small) == "Weights(x2, K=3, reference, 4 k parameters)"
    bare = isr.Weights({}, isr.ModelConfig(iterations=1, physics="exact"))
    assert repr(bare) == "Weights(any scale, K=1, exact, 0 parameters)"
    # As a tree of anything: what `vmap` takes for `in_axes`, and what JAX itself makes of it.
    assert repr(jax.tree.map(lambda _: None, small)).endswith("reference, 0 parameters)")
    assert repr(jax.eval_shape(lambda: small)) == repr(small)


def test_solutions(small):
    lr = jnp.zeros((1, 8, 9, 3))
    solution = jax.eval_shape(lambda w, y: isr.reconstruct(w, y, trace=True), small, lr)
    assert repr(solution) == (
        "Solution(image=f32[1,16,18,3], iterates=f32[3,1,16,18,3], "
        "initial=f32[1,16,18,3], sigma=f32[1], iterations=i32[], residual=f32[1], "
        "converged=bool[1])"
    )
    seen = []
    x = jnp.ones((1, 2, 2, 3))
    jax.jit(lambda x: seen.append(repr(isr.Solution(x, None, x, x[:, 0, 0, 0]))) or x)(x)
    assert seen == [
        "Solution(image=f32[1,2,2,3], iterates=None, initial=f32[1,2,2,3], sigma=f32[1], "
        "iterations=None, residual=None, converged=None)"
    ]


@pytest.mark.parametrize(
    "value",
    [
        lambda weights: isr.LearnedPrior.from_weights(weights),
        lambda weights: isr.Upscaler(weights),
        lambda weights: isr.Blur(2, jnp.ones((3, 5, 5)) / 25),
        lambda weights: isr.Bicubic(2, reference=True).at(9, 8),
        lambda weights: isr.Window(jnp.arange(50), 2),
        lambda weights: init_state(CONFIG, weights.params),
        lambda weights: Picture(np.zeros((9, 9, 3), np.float32)),
    ],
)
def test_no_numbers_of_arrays(small, value):
    made = value(small)
    assert repr(made).startswith(f"{type(made).__name__}(")
    assert "\n" not in repr(made) and "..." not in repr(made) and "0., " not in repr(made)
    assert len(repr(made)) < 500
