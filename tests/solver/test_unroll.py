import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_problem as problems
from conftest import exact, photo

import isrrescnet_jax as isr
from isrrescnet_jax.solver.iteration import clip

LR = jnp.asarray(photo(9, 8, n=2), jnp.float32)


@partial(jax.jit, static_argnames=("iterations", "trace", "noise"))
def run(weights, lr, **options):
    return isr.reconstruct(weights, lr, **options)


def test_solution(small):
    solution = run(small, LR, trace=True)
    assert solution.image.shape == (2, 18, 16, 3)
    assert solution.iterates.shape == (3, 2, 18, 16, 3)
    np.testing.assert_array_equal(solution.iterates[-1], solution.image)
    np.testing.assert_allclose(
        solution.initial, isr.Bicubic(2, reference=True).initial(LR), rtol=1e-5
    )
    np.testing.assert_allclose(solution.sigma, isr.noise_level(LR), rtol=1e-6)
    assert run(small, LR).iterates is None
    assert solution.image.min() >= 0 and solution.image.max() <= 255


def test_fewer_iterations_are_the_first_and_more_repeat_the_last(small):
    three = run(small, LR, trace=True)
    five = run(small, LR, trace=True, iterations=5)
    two = run(small, LR, trace=True, iterations=2)
    np.testing.assert_allclose(two.iterates, three.iterates[:2], atol=1e-4)
    np.testing.assert_allclose(five.iterates[:3], three.iterates, atol=1e-4)
    index = jnp.array([0, 1, 2, 2, 2])
    longer = {**small.params, **{k: small.params[k][index] for k in ("w", "alpha")}}
    config = dataclasses.replace(small.config, iterations=5)
    np.testing.assert_allclose(run(isr.Weights(longer, config), LR).image, five.image, atol=1e-4)


@pytest.mark.parametrize("operator", [isr.Bicubic(2), isr.Decimation(2)])
def test_iterations_that_do_not_move_may_go_first(small, operator):
    # D U = 1: after one data term D x = y, and every further one does nothing.
    alpha, w = small.params["alpha"][:1], small.params["w"][:1]
    idle = {"alpha": jnp.concatenate([jnp.full(3, -99.0), alpha]), "w": jnp.repeat(w, 4)}
    config = dataclasses.replace(small.config, iterations=4)
    longer = isr.Weights({**small.params, **idle}, config)
    lr = 90 + LR / 4  # so that no overshoot is clipped
    once = run(small, lr, operator=operator, iterations=1)
    np.testing.assert_allclose(run(longer, lr, operator=operator).image, once.image, atol=0.01)


def test_images_of_a_batch_are_independent(small):
    together = run(small, LR).image
    np.testing.assert_allclose(run(small, LR[1:]).image, together[1:], atol=1e-3)


def test_known_noise_level(small):
    estimated = run(small, LR)
    given = isr.reconstruct(small, LR, noise=estimated.sigma)
    np.testing.assert_allclose(given.image, estimated.image, atol=1e-3)
    silent = isr.reconstruct(small, LR, noise=0.0)
    assert not silent.sigma.any()
    assert np.abs(silent.image - estimated.image).max() > 0.1


def test_w_0_has_no_effect_and_momentum_does(small):
    changed = {**small.params, "w": small.params["w"].at[0].set(3.0)}
    same = run(isr.Weights(changed, small.config), LR)
    np.testing.assert_array_equal(same.image, run(small, LR).image)
    changed["w"] = small.params["w"].at[2].set(1.0)
    other = run(isr.Weights(changed, small.config), LR)
    assert np.abs(other.image - same.image).max() > 0.1


def test_a_larger_program_has_no_call_of_its_own(small):
    # Of which XLA would compute the forward pass of a training step again.
    step = jax.jit(lambda weights: isr.reconstruct(weights, LR).image.sum())
    program = str(jax.make_jaxpr(jax.grad(step))(small))
    assert "name=_run" not in program and "scan" in program


def test_vmap_and_jit_and_grad(small):
    stacked = jnp.stack([LR, LR[::-1]])
    mapped = jax.vmap(lambda lr: isr.reconstruct(small, lr).image)(stacked)
    np.testing.assert_allclose(mapped[0], run(small, LR).image, atol=1e-3)
    grads = jax.jit(jax.grad(lambda w, y: isr.reconstruct(w, y).image.mean()))(small, LR)
    assert jax.tree.structure(grads) == jax.tree.structure(small)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("operator", [isr.Bicubic(2), isr.Bilinear(2), isr.Decimation(2)])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 2)])
def test_small_images_where_the_reference_fails_are_finite(small, operator, shape):
    solution = run(small, jnp.asarray(photo(*shape), jnp.float32), operator=operator)
    assert solution.image.shape == (1, 2 * shape[0], 2 * shape[1], 3)
    assert np.isfinite(solution.image).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_images_are_finite_with_finite_gradients(small, value):
    def loss(weights, lr):
        return isr.reconstruct(weights, lr, noise=0.0).image.mean()

    lr = jnp.full((1, 8, 8, 3), value, jnp.float32)
    out, grads = jax.jit(jax.value_and_grad(loss))(small, lr)
    assert np.isfinite(out) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_the_physics_of_the_weights_is_followed(small):
    weights = exact(small, step=3.0)
    lr = jnp.asarray(photo(9, 8), jnp.float32)
    got = run(weights, lr)
    given = run(weights, lr, operator=isr.Bicubic(2, reference=False))
    np.testing.assert_array_equal(got.image, given.image)
    np.testing.assert_array_equal(got.image, run(weights, lr, operator=isr.Bicubic(2)).image)
    # By hand: exact operator, step 3.
    operator = isr.Bicubic(2, reference=False)
    prior = isr.LearnedPrior.from_weights(weights)
    x = operator.initial(lr)
    z = x - 3.0 * operator.gradient(x, lr)
    z = z - prior(z, got.sigma, weights.params["alpha"][0])
    first = run(weights, lr, iterations=1).image
    np.testing.assert_allclose(first, np.clip(z, 0, 255), atol=1e-3)
    assert np.abs(first - run(small, lr, iterations=1).image).max() > 1


def test_another_physics_has_to_be_asked_for_and_is_warned_of(small):
    lr = jnp.asarray(photo(8, 8), jnp.float32)
    for weights, reference in ((small, False), (exact(small), True)):
        with pytest.warns(UserWarning, match=f"trained with {weights.config.physics} physics"):
            other = isr.reconstruct(weights, lr, operator=isr.Bicubic(2, reference=reference))
        assert np.abs(other.image - isr.reconstruct(weights, lr).image).max() > 1


def test_own_operator_and_prior_in_the_same_loop():
    # Iterative back projection: a true operator, no prior, no momentum.
    y = jnp.asarray(photo(10, 12), jnp.float32)

    def nothing(z, sigma, alpha):
        return jnp.zeros_like(z)

    quiet = {"alpha": jnp.zeros(60), "w": jnp.full(60, -jnp.inf), "sigma": jnp.zeros(1)}
    operator = isr.Bilinear(2, reference=False)
    solution = isr.unroll(y, operator, jax.tree_util.Partial(nothing), trace=True, **quiet)
    misfit = [float(jnp.abs(operator.forward(x) - y).mean()) for x in solution.iterates]
    assert misfit[-1] < 0.2 * misfit[0]


def test_own_way_of_going_backward(small):
    class Frozen:
        def run(self, step, context, carry, xs):
            context = jax.lax.stop_gradient(context)
            return isr.Full().run(step, context, carry, jax.lax.stop_gradient(xs))

    grads = jax.grad(lambda w: isr.reconstruct(w, LR, backward=Frozen()).image.sum())(small)
    assert not any(np.any(g) for g in jax.tree.leaves(grads))


def test_clip_passes_the_gradient_on_its_bounds():
    grad = jax.vmap(jax.grad(clip))(jnp.array([-1.0, 0.0, 100.0, 255.0, 256.0]))
    np.testing.assert_array_equal(grad, [0, 1, 1, 1, 0])


def test_integers(small):
    # Another program than that of floats, and so rounded in another way.
    image = run(small, photo(9, 8, n=2)).image
    np.testing.assert_allclose(image, run(small, LR).image, atol=1e-3)


@pytest.mark.usefixtures("unchecked")
def test_bad_arguments(small):
    with pytest.raises(ValueError, match=r"must be \(n, h, w, 3\)"):
        isr.reconstruct(small, LR[0])
    with pytest.raises(ValueError, match=r"must be \(n, h, w, 3\)"):
        isr.reconstruct(small, LR[..., :1])
    with pytest.raises(ValueError, match="at least 1"):
        isr.reconstruct(small, LR, iterations=0)
    with pytest.raises(ValueError, match="estimate"):
        isr.reconstruct(small, LR, noise="guess")
    nameless = isr.Weights(small.params, dataclasses.replace(small.config, scale=None))
    with pytest.raises(ValueError, match="operator=Bicubic"):
        isr.reconstruct(nameless, LR)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("way", [isr.Full(), isr.Until(), isr.Window(2, 1), isr.Implicit()])
def test_schedules_of_different_lengths_are_refused_by_every_way(way):
    parts = problems.inputs()
    with pytest.raises(ValueError, match=r"one length, not \(3,\) and \(2,\)"):
        problems.solve(parts | {"w": parts["w"][:2]}, way)
