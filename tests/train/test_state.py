"""The optimisers against PyTorch's, the schedules, curricula, and what a recipe refuses."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from isrrescnet_jax import Bicubic, ModelConfig, init_weights
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.train import Recipe, TrainConfig, init_state, learning_rate, make_optimizer
from isrrescnet_jax.train.optimizer import check_optimizer

BASE = TrainConfig(learning_rate=1e-2, schedule="constant", weight_decay=0.1)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("adam", lambda p: torch.optim.Adam(p, 1e-2)),
        ("amsgrad", lambda p: torch.optim.Adam(p, 1e-2, amsgrad=True)),
        ("sgd", lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9)),
    ],
)
def test_optimizers_equal_pytorch(name, make):
    rng = np.random.default_rng(0)
    start = rng.normal(size=7).astype(np.float32)
    optimizer = make_optimizer(dataclasses.replace(BASE, optimizer=name))
    params = {"p": jnp.asarray(start)}
    state = optimizer.init(params)
    reference = torch.nn.Parameter(torch.tensor(start))
    torch_optimizer = make([reference])
    for i in range(20):
        # Large gradients first: the maximum of AMSGrad must remember them as PyTorch does.
        grad = (rng.normal(size=7) * (10 if i < 3 else 0.1)).astype(np.float32)
        updates, state = optimizer.update({"p": jnp.asarray(grad)}, state, params)
        params = optax.apply_updates(params, updates)
        reference.grad = torch.tensor(grad)
        torch_optimizer.step()
    np.testing.assert_allclose(params["p"], reference.detach(), rtol=2e-5, atol=1e-6)


def test_weight_decay_touches_only_lengths():
    params = {"conv": {"g": jnp.ones(3), "v": jnp.ones(3)}, "alpha": jnp.ones(2)}
    optimizer = make_optimizer(dataclasses.replace(BASE, optimizer="adamw"))
    zero = {"conv": {"g": jnp.zeros(3), "v": jnp.zeros(3)}, "alpha": jnp.zeros(2)}
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["conv"]["g"], -1e-2 * 0.1, rtol=1e-6)
    assert not updates["conv"]["v"].any() and not updates["alpha"].any()


SMALL = init_weights(ModelConfig(features=8, depth=1, iterations=3), jax.random.key(0)).params


def random_gradients(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), SMALL)


def leaves(tree):
    """(last key, leaf) of all."""
    return [(path[-1].key, leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def test_muon_makes_all_directions_of_a_matrix_learn_at_one_speed():
    optimizer = make_optimizer(dataclasses.replace(BASE, optimizer="muon"))
    gradients = random_gradients()
    updates, _ = jax.jit(optimizer.update)(gradients, optimizer.init(SMALL), SMALL)
    # The rest is Adam's, which is given the same here, with Nesterov's momentum.
    adam = optax.adam(1e-2, nesterov=True)
    expected, _ = adam.update(gradients, adam.init(SMALL), SMALL)
    for (name, update), (_, other), (_, gradient) in zip(
        leaves(updates), leaves(expected), leaves(gradients), strict=True
    ):
        if name != "v":
            np.testing.assert_allclose(update, other, rtol=1e-5)
            continue
        matrix = np.asarray(update).reshape(-1, update.shape[3])
        sizes = np.linalg.svd(matrix, compute_uv=False)
        factor = max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
        assert sizes.min() / (1e-2 * factor) > 0.6 and sizes.max() / (1e-2 * factor) < 1.3
        # Against the gradient: its singular vectors stay.
        u, _, v = np.linalg.svd(gradient.reshape(matrix.shape), full_matrices=False)
        cosine = np.sum(matrix * -(u @ v)) / np.linalg.norm(matrix) / np.linalg.norm(u @ v)
        assert cosine > 0.95


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_the_schedule_of_the_iterations_can_be_left_as_it_is(name):
    config = dataclasses.replace(BASE, optimizer=name, train_schedule=False)
    optimizer = make_optimizer(config)
    updates, _ = optimizer.update(random_gradients(), optimizer.init(SMALL), SMALL)
    assert not updates["alpha"].any() and not updates["w"].any()
    assert all(leaf.any() for leaf in jax.tree.leaves(updates["network"]))


def test_an_optimizer_of_ones_own_is_clipped_and_made_of_the_configuration():
    made = Recipe(BASE, optimizer=lambda config: optax.sgd(config.learning_rate))
    gradient = {"p": jnp.asarray([30.0, 40.0])}
    for recipe, expected in [
        (made, [-0.3, -0.4]),
        (Recipe(BASE, optimizer=optax.sgd(1.0)), [-30, -40]),
        (
            dataclasses.replace(made, config=dataclasses.replace(BASE, clip_norm=1.0)),
            [-6e-3, -8e-3],
        ),
    ]:
        optimizer = make_optimizer(recipe)
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
        np.testing.assert_allclose(updates["p"], expected, rtol=1e-5)
    with pytest.raises(ValueError, match="optimizer.config. gives no optax.Grad.* but float"):
        make_optimizer(Recipe(BASE, optimizer=lambda config: config.learning_rate))


def transformation(update, init=lambda params: jnp.zeros(3)):
    return optax.GradientTransformation(init, update)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (optax.masked(optax.sgd(1.0), {"network": True}), "ValueError: "),
        (optax.partition({"a": optax.sgd(1.0)}, lambda p: "b"), "no corresponding"),
        (transformation(lambda g, s, p=None: (g["network"], s)), "an update .* alpha is None"),
        (
            transformation(lambda g, s, p=None: (g, s[:2])),
            r"state .* is \(2,\) float32, not \(3,\)",
        ),
        (transformation(lambda g, s, p=None: (g, s), lambda p: jax.random.key(0)), "random key"),
    ],
)
def test_an_optimizer_that_does_not_fit_is_found_out(optimizer, words):
    shapes = jax.eval_shape(lambda: SMALL)
    with pytest.raises(ValueError, match=f"^the optimizer does not fit.*{words}") as error:
        check_optimizer(optimizer, shapes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("optimizer", ["muon", "adam", "amsgrad", "adamw", "sgd"])
def test_ours_fit(optimizer):
    shapes = jax.eval_shape(lambda: SMALL)
    for train_schedule in (True, False):
        config = TrainConfig(optimizer=optimizer, train_schedule=train_schedule, clip_norm=1.0)
        check_optimizer(make_optimizer(config), shapes)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"config": {"steps": 3}}, "config must be a TrainConfig, not {'steps': 3}"),
        ({"optimizer": "adam"}, "optimizer must be an optax.Grad.*, not 'adam'"),
        ({"operator": 3}, "operator must have a scale and .*, unlike 3"),
        ({"operator": Bicubic(2)}, "operator is of scale 2, the training of 4"),
        ({"prior": {}}, "prior must be a function of the weights, not {}"),
        ({"loss": "l1"}, "loss must be a function of images and targets, not 'l1'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_of_another_kind_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**{"config": BASE, **values})


def test_one_operator_is_not_for_several_scales():
    config = TrainConfig(data=DataConfig(patch=48), scales=(2, 4))
    with pytest.raises(ValueError, match="operator is of scale 4, the training of 2, 4"):
        Recipe(config, operator=Bicubic(4))


def test_clipping_bounds_the_gradient():
    config = dataclasses.replace(BASE, optimizer="sgd", beta1=0.0, clip_norm=1.0)
    optimizer = make_optimizer(config)
    grad = {"p": jnp.asarray([30.0, 40.0])}
    updates, _ = optimizer.update(grad, optimizer.init(grad), grad)
    np.testing.assert_allclose(updates["p"], [-0.006, -0.008], rtol=1e-5)


def test_schedules():
    warmed = TrainConfig(learning_rate=1.0, milestones=(10, 20), warmup_steps=4, steps=30)
    stepped = dataclasses.replace(warmed, schedule="stepped")
    rate = learning_rate(stepped)
    got = [float(rate(step)) for step in (0, 2, 4, 9, 11, 21)]
    np.testing.assert_allclose(got, [0, 0.5, 1, 1, 0.1, 0.01], rtol=1e-6)
    cosine = learning_rate(dataclasses.replace(stepped, schedule="cosine"))
    got = [float(cosine(step)) for step in (4, 17, 30)]
    np.testing.assert_allclose(got, [1, 0.5, 0], atol=1e-6)


def test_curriculum_and_loss_weights():
    config = TrainConfig(curriculum=((100, 5), (0, 2), (200, 10)))
    assert [config.iterations_at(s) for s in (0, 99, 100, 199, 200, 10**6)] == [2, 2, 5, 5, 10, 10]
    assert TrainConfig().iterations_at(0) == 10
    config = TrainConfig(
        model=ModelConfig(scale=4),
        data=DataConfig(scale=4, patch=48),
        scales=(2, 3, 4),
        backward="random",
        k2=1,
        feedback_curriculum=((0, 1), (5, 4)),
        patch_curriculum=((6, 96),),
        window_curriculum=((2, 3), (1, 2)),
    )
    at = [
        (config.scale_at(s), config.feedback_steps_at(s), config.patch_at(s), config.window_at(s))
        for s in range(7)
    ]
    assert at == [
        *[(2, 1, 48, 1), (3, 1, 48, 2), (4, 1, 48, 3), (2, 1, 48, 3)],
        *[(3, 1, 48, 3), (4, 4, 48, 3), (2, 4, 96, 3)],
    ]
    assert TrainConfig(iterate_weights=(0.5, 1.0)).loss_weights(3).tolist() == [0, 0.5, 1]
    recipe = TrainConfig(backward="truncated")
    assert recipe.loss_weights(10).tolist() == [0, 0, 0, 0, 0.5, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": ModelConfig()}, "scale"),
        ({"steps": 0}, "steps"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"clip_norm": -1.0}, "clip_norm"),
        ({"warmup_steps": 10**9}, "warmup_steps"),
        ({"iterate_weights": (0.0,)}, "iterate_weights"),
        ({"iterate_weights": (1.0, 1.0), "backward": "truncated"}, "intermediate_weight"),
        ({"iterate_weights": (1.0, 1.0), "backward": "random"}, "random"),
        ({"curriculum": ((0, 11),)}, "curriculum"),
        ({"curriculum": ((3, 1), (3, 2))}, "curriculum: a step appears twice"),
        ({"feedback_curriculum": ((0, 5),)}, "feedback_curriculum: .0, 5. .* 1 to 4"),
        ({"feedback_curriculum": ((-1, 1),)}, "feedback_curriculum"),
        ({"patch_curriculum": ((0, 30),)}, "multiples of the scale 4: 30"),
        ({"patch_curriculum": ((0, 0),)}, "patch_curriculum: .0, 0. .* at least 1"),
        ({"window_curriculum": ((0, 0),), "backward": "random"}, "window_curriculum"),
        ({"window_curriculum": ((0, 1),)}, "no effect on backward = checkpointed"),
        ({"scales": (2, 3)}, "must have model.scale 4"),
        ({"scales": (2, 3, 4)}, "multiples of the scale 3: 128"),
        ({"scales": (2, 4, 8)}, "scales must be some of"),
        ({"scales": (2, 4), "data": DataConfig(lr="lr")}, "low-resolution images"),
        ({"k1": 0, "backward": "truncated"}, "k1"),
    ],
)
def test_impossible_recipes_are_refused(fields, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**fields)


def test_the_average_starts_at_the_parameters():
    state = init_state(BASE, {"p": np.ones(3, np.float32)})
    assert int(state.step) == 0
    # Weakly typed or shared, the state would cost a second compilation or could not be donated.
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    assert state.ema["p"] is not state.params["p"]
    np.testing.assert_array_equal(state.ema["p"], state.params["p"])
