"""JAX's transformations of a reconstruction and of the training loss, in double precision."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo

import isrrescnet_jax as isr
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import TrainConfig, objective

pytestmark = pytest.mark.usefixtures("x64")

MODEL = isr.ModelConfig(features=4, depth=1, feedback_steps=1, iterations=2, scale=2)
RECIPE = TrainConfig(
    model=MODEL, data=DataConfig(scale=2), backward="full", iterate_weights=(0.5, 1.0)
)


LR, HR = photo(6, 5, n=2).astype(np.float64), photo(12, 10, n=2, seed=1).astype(np.float64)


def params():
    """Such that residuals are some grey levels, and the projection cuts them."""
    fresh = isr.init_weights(MODEL, jax.random.key(0)).params
    return jax.tree.map(lambda a: np.asarray(a, np.float64), fresh)


def image(params, lr, **options):
    weights = isr.Weights(params, MODEL)
    return isr.reconstruct(weights, lr, noise=1.0, **options).image


def misfit(params):
    """A smooth function of what `reconstruct` gives."""
    return jnp.mean(jnp.square(image(params, LR) - HR)) / 100


def training_loss(params):
    return objective(params, {"lr": LR, "hr": HR}, recipe=RECIPE)[0]


functions = pytest.mark.parametrize("f", [misfit, training_loss])


def drawn(seed, tree):
    """A random direction."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(structure, [rng.normal(0, 0.1, np.shape(a)) for a in leaves])


def dot(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda a, b: jnp.sum(a * b), a, b)))


def difference(f, x, direction, h=1e-5):
    """The derivative in a direction, by central differences."""
    ahead, behind = (jax.tree.map(lambda a, d: a + s * d, x, direction) for s in (h, -h))  # noqa: B023
    return jax.tree.map(lambda a, b: (a - b) / (2 * h), f(ahead), f(behind))


def close(a, b, rtol=1e-6):
    def tensor(a, b):
        assert a.shape == b.shape and a.dtype == b.dtype == np.float64
        assert np.linalg.norm(a - b) <= rtol * np.linalg.norm(b)

    jax.tree.map(tensor, a, b)


def tree_close(ours, theirs, rtol=1e-10):
    """All leaves as one vector: some are nothing but rounding."""
    gap = jax.tree.map(jnp.subtract, ours, theirs)
    assert dot(gap, gap) <= rtol**2 * dot(theirs, theirs)


@pytest.mark.parametrize("backward", [isr.Full(), isr.Checkpointed()], ids=str)
def test_images_in_forward_and_in_reverse_mode(backward):
    x = (params(), LR)
    f = jax.jit(functools.partial(image, backward=backward))
    direction, cotangent = drawn(0, x), drawn(1, HR)

    @jax.jit
    def derivatives(x):
        tangent = jax.jvp(lambda x: f(*x), (x,), (direction,))[1]
        linear = jax.linearize(lambda x: f(*x), x)[1](direction)
        (gradient,) = jax.vjp(lambda x: f(*x), x)[1](cotangent)
        return tangent, linear, gradient

    tangent, linear, gradient = derivatives(x)
    close(tangent, difference(lambda x: f(*x), x, direction))
    close(linear, tangent, 1e-12)
    close(dot(gradient, direction), dot(cotangent, tangent), 1e-10)
    assert all(np.any(g) for g in jax.tree.leaves(gradient[0]["alpha"]))


@functions
def test_hessian_vector_products_in_every_order(f):
    x = params()
    u, v = drawn(2, x), drawn(3, x)

    def forward(f):
        return lambda x: jax.jvp(f, (x,), (v,))[1]

    def reverse(f):
        return lambda x: dot(jax.grad(f)(x), v)

    @jax.jit
    def products(x):
        return {
            "reverse over forward": jax.grad(forward(f))(x),
            "forward over reverse": jax.jvp(jax.grad(f), (x,), (v,))[1],
            "reverse over reverse": jax.grad(reverse(f))(x),
        }, jax.jvp(forward(f), (x,), (u,))[1]

    hessian, quadratic = products(x)
    expected = difference(jax.jit(jax.grad(f)), x, v)
    assert dot(expected, expected) > 0
    for product in hessian.values():
        tree_close(product, expected, 1e-6)
    close(quadratic, dot(hessian["forward over reverse"], u), 1e-9)


@functions
def test_jacobians_of_the_schedule(f):
    x = params()

    def of(schedule):
        return f(x | schedule)

    schedule = {name: x[name] for name in ("alpha", "w")}
    ahead, back = jax.jit(lambda s: (jax.jacfwd(of)(s), jax.jacrev(of)(s)))(schedule)
    for name in schedule:
        close(ahead[name], back[name], 1e-10)
    direction = drawn(4, schedule)
    close(dot(ahead, direction), difference(jax.jit(of), schedule, direction))
    assert ahead["alpha"].all() and ahead["w"][1] and not ahead["w"][0]  # which has no effect


@functions
def test_checkpoint(f):
    ours, plain = jax.jit(lambda x: (jax.grad(jax.checkpoint(f))(x), jax.grad(f)(x)))(params())
    tree_close(ours, plain)


def test_vmap_over_images_and_over_weights():
    x = params()
    both = jax.tree.map(lambda a, d: np.stack([a, a + d]), x, drawn(5, x))

    def loss(params, lr, hr):
        return jnp.mean(jnp.square(image(params, lr[None])[0] - hr))

    gradient = jax.value_and_grad(loss)
    mapped = jax.jit(jax.vmap(jax.vmap(gradient, (None, 0, 0)), (0, None, None)))(both, LR, HR)
    alone = jax.jit(gradient)
    for i, k in itertools.product(range(2), range(2)):
        expected = alone(jax.tree.map(lambda a, i=i: a[i], both), LR[k], HR[k])
        tree_close(jax.tree.map(lambda a, i=i, k=k: a[i, k], mapped), expected)


@functions
def test_export_and_back_with_its_gradient(f):
    x = params()
    exported = jax.export.export(jax.jit(f))(jax.tree.map(jax.typeof, x))
    again = jax.export.deserialize(exported.serialize(vjp_order=1))
    close(again.call(x), jax.jit(f)(x), 1e-12)
    ours, plain = jax.grad(again.call)(x), jax.jit(jax.grad(f))(x)
    tree_close(ours, plain)
