"""Training in JAX and in PyTorch, side by side."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
import torch
from conftest import GOLDEN, photo

from convert import from_torch, to_torch
from convert.torch_model import from_state
from isrrescnet_jax import ModelConfig, init_weights
from isrrescnet_jax.data import DataConfig
from isrrescnet_jax.evaluation.degrade import degrade
from isrrescnet_jax.train import TrainConfig, init_state, objective, train_step

MODEL = ModelConfig(features=8, depth=2, feedback_steps=2, iterations=2, scale=2)
CONFIG = TrainConfig(
    model=MODEL, data=DataConfig(scale=2), learning_rate=1e-3, schedule="constant", ema_decay=0.0
)


def nchw(x, dtype):
    return torch.tensor(np.asarray(x, dtype).transpose(0, 3, 1, 2))


def batches(count):
    for seed in range(count):
        hr = photo(24, 24, n=2, seed=seed)
        yield {"lr": np.stack([degrade(image, 2) for image in hr]), "hr": hr}


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-3),
    "amsgrad": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
}


@pytest.mark.parametrize(
    ("optimizer", "dtype", "tolerance"),
    [
        ("sgd", "float64", 1e-8),
        ("amsgrad", "float64", 1e-8),
        # Rounding decides on which side of a kink of PReLU a feature lies, and biases are small.
        pytest.param("sgd", "float32", 0.05, marks=pytest.mark.slow),
        pytest.param("amsgrad", "float32", 0.05, marks=pytest.mark.slow),
    ],
)
def test_twenty_steps_stay_together(optimizer, dtype, tolerance):
    beta1 = 0.0 if optimizer == "sgd" else 0.9
    config = dataclasses.replace(CONFIG, optimizer=optimizer, beta1=beta1)
    with jax.enable_x64(dtype == "float64"):
        params = init_weights(MODEL, jax.random.key(0)).params
        params = jax.tree.map(lambda a: np.array(a, dtype), params)
        model = from_state(to_torch(params), MODEL.feedback_steps, getattr(torch, dtype))
        torch_optimizer = OPTIMIZERS[optimizer](model.parameters())
        state = init_state(config, params)
        step = jax.jit(functools.partial(train_step, recipe=config))
        for batch in batches(20):
            state, metrics = step(state, batch)
            torch_optimizer.zero_grad()
            image = model(nchw(batch["lr"], dtype), 2)["iterates"][-1]
            loss = torch.nn.functional.l1_loss(image, nchw(batch["hr"], dtype))
            loss.backward()
            torch_optimizer.step()
            np.testing.assert_allclose(metrics["loss"], loss.item(), rtol=min(tolerance, 1e-3))
        ours = to_torch(jax.device_get(state.params))
    assert ours["alpha"].dtype == dtype
    theirs = {name: value.numpy() for name, value in model.state_dict().items()}
    found = {
        name: float(np.linalg.norm(ours[name] - value) / np.linalg.norm(value))
        for name, value in theirs.items()
    }
    assert max(found.values()) < tolerance, found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x2_bicubic_batch3", "x4_bicubic_k10", "gray_x2_bicubic"])
def test_loss_and_gradients_on_the_golden_files(name):
    golden = np.load(GOLDEN / f"{name}.npz")
    steps = 2 if name.startswith("gray") else 4
    files = {"x2": "depth2_k5", "x4": "depth5_k10", "gray": "gray_depth3_k4_steps2"}
    state = torch.load(GOLDEN / f"{files[name.split('_')[0]]}.pth")["model_state_dict"]
    model = from_state(state, steps, torch.float64)
    scale, lr, target = int(golden["scale"]), golden["lr"], golden["target"]
    image = model(torch.tensor(lr, dtype=torch.float64), scale)["iterates"][-1]
    loss = torch.nn.functional.l1_loss(image, torch.tensor(target))
    loss.backward()
    grads = {k: p.grad.numpy() for k, p in model.named_parameters(remove_duplicate=False)}

    weights = from_torch(state, steps, scale)
    config = dataclasses.replace(CONFIG, model=weights.config, data=DataConfig(scale=scale))
    batch = {"lr": lr.transpose(0, 2, 3, 1), "hr": target.transpose(0, 2, 3, 1)}
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: np.asarray(a, np.float64), weights.params)
        function = jax.value_and_grad(functools.partial(objective, recipe=config), has_aux=True)
        (value, _), found = jax.jit(function)(params, batch)
        found = to_torch(jax.device_get(found))
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-4)  # computed in float32
    np.testing.assert_allclose(value, loss.item(), rtol=1e-9)
    for key, expected in grads.items():
        assert np.linalg.norm(found[key] - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-9, key
