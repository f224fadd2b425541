"""The numbers of the reference implementation, and the same from our PyTorch implementation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import GOLDEN, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_gradient import ReferenceAutograd

import isrrescnet_jax as isr

torch = pytest.importorskip("torch")
from convert import from_torch, to_torch, torch_model  # noqa: E402

OPERATORS = {"bicubic": isr.Bicubic, "bilinear": isr.Bilinear, "normal": isr.Decimation}
CHECKPOINTS = {
    "depth5_k10": [
        "x4_bicubic_k10",
        "x4_bicubic_first4",
        "x4_dark_below_one",
        "x4_no_noise_estimate",
    ],
    "depth2_k5": [
        "x2_bicubic_batch3",
        "x3_bicubic_odd",
        "x2_bilinear",
        "x4_bilinear",
        "x2_kernel3",
        "x3_kernel5",
        "x2_decimation",
    ],
    "gray_depth3_k4_steps2": ["gray_x2_bicubic"],
}
CASES = {case: checkpoint for checkpoint, cases in CHECKPOINTS.items() for case in cases}
WITH_GRADIENTS = ["x4_bicubic_k10", "x2_bicubic_batch3", "gray_x2_bicubic"]


def nhwc(x):
    return np.moveaxis(x, -3, -1)


def load(case):
    checkpoint = CASES[case]
    state = torch.load(GOLDEN / f"{checkpoint}.pth", weights_only=True)
    numbers = np.load(GOLDEN / f"{case}.npz")
    weights = from_torch(state, feedback_steps=2 if "steps2" in checkpoint else 4)
    return weights, {k: numbers[k] for k in numbers.files}


def operator_of(mode, scale, kernel=None):
    if mode == "kernel":
        return isr.Blur(scale, kernel, reference=True)
    return OPERATORS[mode](scale, reference=True)


def solve(weights, golden, **options):
    kernel = golden["kernel"][:, 0] if "kernel" in golden else None
    operator = operator_of(str(golden["mode"]), int(golden["scale"]), kernel)
    noise = "estimate" if golden["noise_estimation"] else 1.0
    run = jax.jit(
        lambda weights, lr: isr.reconstruct(
            weights,
            lr,
            operator=operator,
            noise=noise,
            iterations=int(golden["iterations"]),
            trace=True,
            **options,
        )
    )
    return operator, run(weights, nhwc(golden["lr"]))


@functools.cache
def solved(case):
    weights, golden = load(case)
    return weights, golden, *solve(weights, golden)


# --- golden numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_golden_values(case):
    _, golden, operator, solution = solved(case)
    iterates = nhwc(golden["iterates"])
    # Asked for: 0.02. Reached: 0.0008.
    np.testing.assert_allclose(solution.iterates, iterates, rtol=0, atol=0.002)
    np.testing.assert_allclose(solution.initial, nhwc(golden["initial"]), rtol=0, atol=5e-4)
    np.testing.assert_allclose(solution.sigma, golden["sigma"], rtol=1e-5, atol=1e-9)
    gradient = operator.gradient(nhwc(golden["initial"]), nhwc(golden["lr"]))
    np.testing.assert_allclose(gradient, nhwc(golden["gradient_at_initial"]), rtol=0, atol=5e-4)


def test_golden_bytes_pooled():
    def difference(case):
        _, golden, _, solution = solved(case)
        ours, theirs = solution.iterates[-1], nhwc(golden["iterates"])[-1]
        return np.ravel(np.abs(np.rint(ours) - np.rint(theirs)))

    wrong = np.concatenate([difference(case) for case in CASES])
    assert np.mean(wrong > 0) <= 1e-4 and wrong.max() <= 1


@pytest.mark.parametrize("case", CASES)
def test_golden_projection_ratio(case):
    weights, golden, operator, solution = solved(case)
    if int(golden["iterations"]) < 2:
        pytest.skip("one iteration")
    prior = isr.LearnedPrior.from_weights(weights)
    x = solution.initial  # the first iteration has no momentum
    z = x - operator.gradient(x, nhwc(golden["lr"]))
    size = np.linalg.norm(np.asarray(prior.residual(z)).reshape(len(z), -1), axis=1)
    alpha = float(weights.params["alpha"][0])
    radius = np.exp(alpha) * np.asarray(solution.sigma) * np.sqrt(x[0].size - 1)
    np.testing.assert_allclose(size / radius, golden["projection_ratio"][0], rtol=1e-4)


def loss_and_gradient(weights, golden, backward):
    lr, target = nhwc(golden["lr"]), nhwc(golden["target"])
    operator = isr.Bicubic(int(golden["scale"]))

    def loss(weights):
        solution = isr.reconstruct(weights, lr, operator=operator, backward=backward)
        return jnp.abs(solution.image - target).mean()

    value, gradient = jax.jit(jax.value_and_grad(loss))(weights)
    return float(value), to_torch(gradient.params)


def assert_gradients(ours, theirs, relative, floor=1e-6):
    assert set(theirs) <= set(ours)
    for name, reference in theirs.items():
        error = np.linalg.norm(np.asarray(ours[name], np.float64) - reference)
        assert error <= relative * np.linalg.norm(reference) + floor, name


@pytest.mark.parametrize("case", WITH_GRADIENTS)
def test_golden_gradients(case):
    # The golden gradients hold an error of the reference, reproduced here: see reference_gradient.
    weights, golden = load(case)
    value, gradient = loss_and_gradient(weights, golden, ReferenceAutograd())
    np.testing.assert_allclose(value, golden["loss"], rtol=1e-5)
    names = {k.removeprefix("grad/"): v for k, v in golden.items() if k.startswith("grad/")}
    assert len(names) > 20
    assert_gradients(gradient, names, 1e-3)


@pytest.mark.parametrize("case", WITH_GRADIENTS[1:])
def test_true_gradients_equal_pytorch(case):
    # In double precision: in single, a residual near 0 flips the sign of its term of the loss.
    with jax.enable_x64(True):
        weights, golden = load(case)
        weights = jax.tree.map(lambda a: a.astype(np.float64), weights)
        golden |= {name: golden[name].astype(np.float64) for name in ("lr", "target")}
        _, ours = loss_and_gradient(weights, golden, isr.Full())
    steps = weights.config.feedback_steps
    model = torch_model.from_state(to_torch(weights.params), steps, torch.float64)
    out = model(torch.from_numpy(golden["lr"]), int(golden["scale"]))["iterates"][-1]
    (out - torch.from_numpy(golden["target"])).abs().mean().backward()
    theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
    assert_gradients(ours, theirs, 1e-8)


# --- against PyTorch ----------------------------------------------------------------------------


def random_weights(depth, iterations, channels, seed=0):
    config = isr.ModelConfig(channels, 8, depth, 2, iterations)
    weights = isr.init_weights(config, jax.random.key(seed))
    return jax.tree.map(lambda a: np.asarray(a, np.float64), weights)


def extreme(kind, n, h, w, c, seed):
    rng = np.random.default_rng(seed)
    match kind:
        case "constant":
            return np.full((n, h, w, c), 77.0)
        case "black":
            return np.zeros((n, h, w, c))
        case "white":
            return np.full((n, h, w, c), 255.0)
        case "checkerboard":
            board = (np.indices((h, w)).sum(0) % 2 * 255.0)[None, :, :, None]
            return np.broadcast_to(board, (n, h, w, c)).copy()
        case "noise":
            return rng.uniform(0, 255, (n, h, w, c))
        case _:
            return photo(h, w, n, seed)[..., :c].astype(np.float64)


KINDS = ["photo", "photo", "noise", "checkerboard", "constant", "black", "white"]


@settings(max_examples=10)
@given(
    mode=st.sampled_from(["bicubic", "bilinear", "kernel", "normal"]),
    scale=st.sampled_from([2, 3, 4]),
    h=st.integers(8, 19),
    w=st.integers(8, 19),
    n=st.integers(1, 3),
    depth=st.integers(1, 3),
    iterations=st.integers(1, 4),
    channels=st.sampled_from([1, 3]),
    kind=st.sampled_from(KINDS),
)
def test_equals_pytorch_in_double_precision(
    mode, scale, h, w, n, depth, iterations, channels, kind
):
    with jax.enable_x64(True):
        weights = random_weights(depth, iterations, channels)
        lr = extreme(kind, n, h, w, channels, seed=h * w)
        kernel = np.random.default_rng(1).uniform(0, 0.08, (channels, 5, 5))
        # A flat image has a noise level of rounding errors: any two differ. Known instead.
        noise = 3.0 if kind in ("constant", "black", "white", "checkerboard") else None
        theirs = torch_model.reconstruct(
            to_torch(weights.params),
            torch.from_numpy(np.moveaxis(lr, -1, 1).copy()),
            scale,
            mode,
            kernel,
            noise=noise,
            feedback_steps=2,
        )
        solution = jax.jit(isr.reconstruct, static_argnames=("trace", "noise"))(
            weights,
            lr,
            operator=operator_of(mode, scale, kernel),
            noise=noise or "estimate",
            trace=True,
        )
        assert solution.image.dtype == np.float64
        np.testing.assert_allclose(
            solution.iterates, nhwc(theirs["iterates"].numpy()), rtol=0, atol=1e-7
        )
        np.testing.assert_allclose(solution.sigma, theirs["sigma"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["bicubic", "bilinear", "kernel", "normal"])
def test_gradients_equal_pytorch_in_double_precision(mode):
    with jax.enable_x64(True):
        weights = random_weights(2, 3, 3)
        lr = np.concatenate([extreme(kind, 1, 9, 11, 3, seed=5) for kind in ("photo", "noise")])
        kernel = np.random.default_rng(1).uniform(0, 0.08, (3, 3, 3))
        target = extreme("photo", 2, 18, 22, 3, seed=6)

        def loss(weights, lr):
            operator = operator_of(mode, 2, kernel)
            solution = isr.reconstruct(weights, lr, operator=operator, trace=True)
            return jnp.abs(solution.iterates - target).mean()

        ours, ours_lr = jax.jit(jax.grad(loss, (0, 1)))(weights, lr)
        model = torch_model.from_state(to_torch(weights.params), 2, torch.float64)
        lr_torch = torch.from_numpy(np.moveaxis(lr, -1, 1).copy()).requires_grad_()
        kernel_torch = torch.from_numpy(kernel)[:, None]
        out = model(lr_torch, 2, mode, kernel_torch)["iterates"]
        (out - torch.from_numpy(np.moveaxis(target, -1, 1).copy())).abs().mean().backward()
        theirs = {name: p.grad.numpy() for name, p in model.named_parameters()}
        assert_gradients(to_torch(ours.params), theirs, 1e-8, 1e-10)
        np.testing.assert_allclose(ours_lr, nhwc(lr_torch.grad.numpy()), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["constant", "black", "white"])
def test_flat_images_with_their_own_noise_level_are_finite(kind):
    # PyTorch gives NaN where sigma is exactly 0.
    weights = jax.tree.map(jnp.float32, random_weights(2, 3, 3))
    solution = jax.jit(isr.reconstruct, static_argnames="trace")(
        weights,
        extreme(kind, 1, 10, 9, 3, 0).astype(np.float32),
        operator=isr.Bicubic(2),
        trace=True,
    )
    assert np.isfinite(solution.iterates).all() and solution.sigma[0] < 1e-3
