"""One step: what it optimises, on what it depends, and against PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo

from isrrescnet_jax import Bicubic, ModelConfig, Weights, init_weights, reconstruct
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.train import Recipe, TrainConfig, init_state, objective, train_step

MODEL = ModelConfig(features=8, depth=1, feedback_steps=1, iterations=2, scale=2)
CONFIG = TrainConfig(model=MODEL, data=DataConfig(scale=2, patch=32, batch=4), learning_rate=5e-3)
HR = photo(32, 32, n=4)
BATCH = {"lr": np.stack([degrade(hr, 2) for hr in HR]), "hr": HR}
PARAMS = init_weights(MODEL, jax.random.key(0)).params


def waves(parts, z, sigma, alpha):
    g, bias = parts
    return jnp.exp(alpha) * (g * jnp.sin(z / 9) + bias)


def wavy(weights):
    """A prior that is compiled in no time: not linear, with parameters that every step shares."""
    decoder = weights.params["network"]["decoder"]
    return jax.tree_util.Partial(waves, (1 + decoder["g"][:3], decoder["bias"]))


@functools.cache
def loss_and_grad(iterations=None, prior=None, **fields):
    recipe = Recipe(dataclasses.replace(CONFIG, **fields), prior=prior)
    function = functools.partial(objective, recipe=recipe, iterations=iterations)
    (loss, found), grad = jax.jit(jax.value_and_grad(function, has_aux=True))(PARAMS, BATCH)
    return loss, grad, found


def assert_close(a, b, tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.linalg.norm(x - y) <= tolerance * np.linalg.norm(y) + 1e-6


def test_checkpointing_does_not_change_the_gradient():
    full, checkpointed = loss_and_grad(backward="full"), loss_and_grad()
    np.testing.assert_allclose(full[0], checkpointed[0], rtol=1e-6)
    assert_close(full[1], checkpointed[1], 1e-5)


def test_truncated_halves_the_loss_and_cuts_the_gradient_at_the_intermediate_point():
    y = jnp.asarray(BATCH["lr"], jnp.float32)

    def by_hand(params):
        weights = Weights(params, MODEL)
        first = reconstruct(weights, y, prior=wavy(weights), iterations=1)
        x0, x1 = jax.lax.stop_gradient((first.initial, first.image))
        v = x1 + jnp.exp(params["w"][1]) * (x1 - x0)
        z = v - Bicubic(2, reference=True).gradient(v, y)
        second = jnp.clip(z - wavy(weights)(z, first.sigma, params["alpha"][1]), 0, 255)
        error = lambda x: jnp.mean(jnp.abs(x - BATCH["hr"]))  # noqa: E731
        return 0.5 * error(first.image) + error(second)

    expected = jax.jit(jax.value_and_grad(by_hand))(PARAMS)
    loss, grad, _ = loss_and_grad(prior=wavy, backward="truncated", k1=1, k2=1)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    assert_close(grad, expected[1], 1e-4)
    whole = loss_and_grad(prior=wavy, iterate_weights=(0.5, 1.0))
    np.testing.assert_allclose(loss, whole[0], rtol=1e-5)
    assert np.linalg.norm(grad["alpha"] - whole[1]["alpha"]) > 1e-2 * np.linalg.norm(grad["alpha"])


def test_loss_on_all_iterates_is_the_sum_of_the_losses():
    both = loss_and_grad(prior=wavy, iterate_weights=(0.5, 1.0))
    last, first = loss_and_grad(prior=wavy), loss_and_grad(1, prior=wavy)
    np.testing.assert_allclose(both[0], 0.5 * first[0] + last[0], rtol=1e-5)
    total = jax.tree.map(lambda a, b: 0.5 * a + b, first[1], last[1])
    assert_close(both[1], total, 1e-4)


def test_random_trains_the_iterate_that_the_step_draws():
    config = dataclasses.replace(CONFIG, backward="random", k2=2)
    draw = jax.jit(jax.vmap(lambda step: config.backward_rule(2, step).end))
    draws = draw(np.arange(300)).tolist()
    assert 0.6 < draws.count(1) / 300 < 0.73  # 1 : 1/2
    recipe = Recipe(config, prior=wavy)
    function = jax.jit(jax.grad(functools.partial(objective, recipe=recipe), has_aux=True))
    for end in (1, 2):
        grad = function(PARAMS, BATCH, step=draws.index(end))[0]
        assert_close(grad, loss_and_grad(end, prior=wavy)[1], 1e-4)


def test_iterations_not_run_learn_nothing():
    grad = loss_and_grad(1, prior=wavy)[1]
    assert not grad["alpha"][1] and np.linalg.norm(grad["network"]["decoder"]["g"]) > 0


def test_bfloat16_features_change_the_loss_little():
    exact, rough = loss_and_grad()[0], loss_and_grad(dtype="bfloat16")[0]
    assert rough != exact
    np.testing.assert_allclose(rough, exact, rtol=0.02)


def group(params, name):
    """All directions v, all lengths g, or all others, as one vector."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    keys = [path[-1].key if path[-1].key in ("v", "g") else "other" for path, _ in leaves]
    pairs = zip(keys, leaves, strict=True)
    return np.concatenate([np.ravel(leaf) for key, (_, leaf) in pairs if key == name])


STEP = jax.jit(functools.partial(train_step, recipe=CONFIG))


def decibels(images, targets):
    """Mean PSNR of images (n, h, w, c)."""
    errors = np.mean((np.asarray(images) - np.asarray(targets, float)) ** 2, (1, 2, 3))
    return np.mean(10 * np.log10(255**2 / errors))


def test_metrics_and_average():
    new, metrics = STEP(init_state(CONFIG, PARAMS), BATCH)
    loss, _, found = loss_and_grad()
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["psnr"], found["psnr"], rtol=1e-5)
    assert metrics["learning_rate"] == np.float32(5e-3)
    for name in ("v", "g", "other"):
        before, after = group(PARAMS, name), group(new.params, name)
        ratio = np.linalg.norm(after - before) / np.linalg.norm(before)
        np.testing.assert_allclose(metrics[f"update_ratio_{name}"], ratio, rtol=1e-3)
    assert int(new.step) == 1
    # In the first step the average gives nine tenths to the new parameters.
    average = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, PARAMS, new.params)
    assert_close(new.ema, average, 1e-6)


def test_it_learns_a_batch_by_heart():
    state = init_state(CONFIG, PARAMS)
    losses = []
    for _ in range(60):
        state, metrics = STEP(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


# --- values of a recipe -------------------------------------------------------------------------


@jax.tree_util.register_static
class Doubled:
    """An operator of one's own: twice the gradient of the exact bicubic one."""

    scale = 2
    inner = Bicubic(2, reference=False)

    def initial(self, y):
        return self.inner.initial(y)

    def gradient(self, v, y):
        return 2 * self.inner.gradient(v, y)


def scaled(factor, z, sigma, alpha):
    return factor * z


def scaling(weights):
    """A prior that takes a part of the image away, and has one parameter."""
    return jax.tree_util.Partial(scaled, weights.params["network"]["decoder"]["g"][0])


def worst_of_first_row(x, target):
    return jnp.abs(x - target)[:, 0].max((1, 2))


def test_operator_prior_and_loss_of_ones_own():
    recipe = Recipe(CONFIG, operator=Doubled(), prior=scaling, loss=worst_of_first_row)
    function = functools.partial(objective, recipe=recipe, iterations=1)
    (loss, found), grad = jax.jit(jax.value_and_grad(function, has_aux=True))(PARAMS, BATCH)

    @jax.jit
    def by_hand(y):
        x0 = Doubled().initial(y)
        z = x0 - Doubled().gradient(x0, y)
        return jnp.clip(z - PARAMS["network"]["decoder"]["g"][0] * z, 0, 255)

    expected = by_hand(np.float32(BATCH["lr"]))
    np.testing.assert_allclose(found["psnr"], decibels(expected, HR), rtol=1e-4)
    np.testing.assert_allclose(loss, worst_of_first_row(expected, HR).mean(), rtol=1e-4)
    moved = [path for path, leaf in jax.tree_util.tree_leaves_with_path(grad) if leaf.any()]
    assert [path[-2].key for path in moved] == ["decoder"]


def test_a_loss_that_is_not_one_number_per_image_is_refused():
    recipe = Recipe(CONFIG, prior=scaling, loss=lambda x, target: jnp.abs(x - target))
    with pytest.raises(ValueError, match=r"one number per image, \(4,\), not \(4, 32, 32, 3\)"):
        jax.eval_shape(functools.partial(objective, recipe=recipe), PARAMS, BATCH)


def test_the_scale_is_that_of_the_batch():
    function = functools.partial(objective, recipe=Recipe(CONFIG, prior=scaling), iterations=1)
    hr = photo(36, 36, n=2)
    for scale in (2, 3):
        lr = np.stack([degrade(image, scale) for image in hr])
        weights = Weights(PARAMS, dataclasses.replace(MODEL, scale=scale))
        alone = jax.jit(functools.partial(reconstruct, prior=scaling(weights), iterations=1))
        expected = alone(weights, np.float32(lr)).image
        found = jax.jit(function)(PARAMS, {"lr": lr, "hr": hr})[1]
        np.testing.assert_allclose(found["psnr"], decibels(expected, hr), rtol=1e-5)
    with pytest.raises(ValueError, match="not a multiple"):
        function(PARAMS, {"lr": lr, "hr": hr[:, :35]})


@pytest.mark.slow
def test_memory_hardly_depends_on_the_iterations_when_checkpointed():
    def megabytes(iterations, backward):
        model = dataclasses.replace(MODEL, features=32, iterations=iterations)
        config = dataclasses.replace(CONFIG, model=model, backward=backward)
        state = init_state(config, init_weights(model, jax.random.key(0)).params)
        program = jax.jit(functools.partial(train_step, recipe=config)).lower(state, BATCH)
        return program.compile().memory_analysis().temp_size_in_bytes / 2**20

    checkpointed = [megabytes(k, "checkpointed") for k in (5, 50)]
    assert checkpointed[1] < 1.6 * checkpointed[0]
    assert megabytes(20, "full") > 3 * megabytes(20, "checkpointed")
