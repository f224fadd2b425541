import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.restoration import denoise_nl_means

import isrrescnet_jax as isr
from experiments.harness import PHOTOGRAPH
from isrrescnet_jax.prior.ridge import STEP, ConvexRidge, init_ridge, shipped_params, squared_norm

ALL_SEEN = isr.Mask(1.0)


@jax.jit
def call(prior, z, sigma, alpha=0.0):
    """What is taken away from z."""
    return prior(z, jnp.full(1, sigma, z.dtype), jnp.asarray(alpha, z.dtype))


from_params = jax.jit(ConvexRidge.from_params)


def crop(side, top=10, left=30):
    """The face in the photograph."""
    image = np.asarray(Image.open(PHOTOGRAPH).convert("RGB"), np.float32)
    return image[None, top : top + side, left : left + side]


def solve(prior, y, sigma, backward, count=1, w=-jnp.inf, **options):
    options = {"alpha": jnp.zeros(count), "w": jnp.full(count, w), "step": STEP} | options
    level = jnp.full(len(y), sigma)
    return isr.unroll(y, ALL_SEEN, prior, sigma=level, backward=backward, **options)


def disturbed(seed, amount, size=5):
    """Parameters far from any that are trained, in double precision."""
    rng = np.random.default_rng(seed)
    params = init_ridge(jax.random.key(seed), filters=3, groups=2, size=size)
    return jax.tree.map(lambda a: np.float64(a) + amount * rng.normal(0, 1, a.shape), params)


@given(seed=st.integers(0, 99), amount=st.sampled_from([0.0, 0.3, 5.0]))
def test_the_jacobian_is_symmetric_between_zero_and_one(seed, amount):
    with jax.enable_x64(True):
        prior = from_params(disturbed(seed, amount))
        # Smaller than the filters, too: the border is where it could go wrong.
        z = jnp.asarray(photo(4, 6, seed=seed), float) * 0.2
        sigma = jnp.full(1, 0.5 + 50.0 * (seed % 3))

        def taken(flat):
            return prior(flat.reshape(z.shape), sigma, jnp.zeros(())).ravel()

        jacobian = np.asarray(jax.jit(jax.jacobian(taken))(z.ravel()))
        np.testing.assert_allclose(jacobian, jacobian.T, atol=1e-9)
        eigenvalues = np.linalg.eigvalsh(jacobian)
        assert eigenvalues.min() > -1e-9 and eigenvalues.max() < 1 + 1e-9


def test_it_is_the_gradient_of_its_value(x64):
    prior = from_params(disturbed(0, 0.3))
    z, sigma, alpha = jnp.asarray(photo(6, 7, n=2), float), jnp.array([1.0, 20.0]), jnp.zeros(())
    expected = jax.jit(jax.grad(lambda z: jnp.sum(prior.value(z, sigma, alpha))))(z)
    np.testing.assert_allclose(prior(z, sigma, alpha), expected, atol=1e-9)


@pytest.mark.parametrize("amount", [0.0, 5.0])
def test_the_bound_of_the_norm_is_close(amount, x64):
    filters = jnp.asarray(disturbed(1, amount, size=7)["filters"])
    n = 256
    at_all = np.fft.fft2(filters, (n, n), axes=(0, 1))
    largest = np.linalg.norm(at_all, 2, axis=(2, 3)).max() ** 2
    assert largest <= float(squared_norm(filters)) < 1.13 * largest
    # A difference has no response at frequency 0, which must not become a gradient without a value.
    difference = jnp.zeros((3, 3, 1, 1)).at[1, 1:].set(jnp.array([[[-1.0]], [[1.0]]]))
    assert np.isfinite(jax.grad(squared_norm)(difference)).all()


def test_mirrored_images_are_treated_alike(x64):
    prior, z = from_params(disturbed(2, 1.0)), jnp.asarray(photo(8, 9), float)
    for axis in (1, 2):
        mirrored = jnp.flip(call(prior, jnp.flip(z, axis), 9.0), axis)
        np.testing.assert_allclose(mirrored, call(prior, z, 9.0), atol=1e-9)


def test_a_flat_image_stays_and_more_is_taken_of_more_noise():
    prior, flat = ConvexRidge.shipped(), jnp.full((1, 16, 16, 3), 77.0)
    np.testing.assert_allclose(call(prior, flat, 15.0), 0, atol=1e-3)
    z = jnp.asarray(photo(16, 16), jnp.float32)
    taken = [float(np.linalg.norm(call(prior, z, sigma))) for sigma in (0.0, 1, 5, 15, 50)]
    assert taken[0] < 1e-3 and (np.diff(taken) > 0).all()
    told = call(prior, z, 5.0, np.log(3))
    np.testing.assert_allclose(told, call(prior, z, 15.0), rtol=1e-4, atol=1e-4)


def test_gradients_are_finite_without_noise_too():
    prior, z = ConvexRidge.shipped(), jnp.full((1, 8, 8, 3), 7.0)

    def loss(prior, z, sigma):
        return jnp.sum(prior(z, sigma, jnp.zeros(())) * z)

    gradients = jax.jit(jax.grad(loss, (0, 1, 2)))(prior, z, jnp.zeros(1))
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(gradients))


def test_it_is_mapped_over_images_and_over_priors():
    z = jnp.asarray(photo(8, 8, n=2), jnp.float32)
    priors = [from_params(disturbed(k, 0.1)) for k in range(2)]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *priors)
    both = jax.vmap(call, (0, 0, None))(stacked, z[:, None], 9.0)
    for k in range(2):
        np.testing.assert_allclose(both[k], call(priors[k], z[k : k + 1], 9.0), atol=1e-3)


@pytest.mark.parametrize("accelerate", [isr.Plain(), isr.Anderson(5)])
def test_iterations_converge(accelerate):
    y = crop(32) + np.random.default_rng(0).normal(0, 15, (1, 32, 32, 3)).astype(np.float32)
    found = solve(ConvexRidge.shipped(), y, 15.0, isr.Until(1e-5), accelerate=accelerate)
    assert found.converged.all() and int(found.iterations) < 200


def test_implicit_gradients_are_those_of_the_iterations(x64):
    pytest.importorskip("lineax")
    clean = jnp.asarray(crop(12), float)
    y = clean + np.random.default_rng(1).normal(0, 15, clean.shape)
    params = jax.tree.map(lambda a: jnp.asarray(a, float), shipped_params())

    def loss(inputs, backward, count):
        params, y = inputs
        prior = ConvexRidge.from_params(params)
        return jnp.mean((solve(prior, y, 15.0, backward, count).image - clean) ** 2)

    gradient = jax.jit(jax.grad(loss), static_argnums=(1, 2))
    implicit = gradient((params, y), isr.Implicit(tolerance=1e-7), 1)
    unrolled = gradient((params, y), isr.Full(), 250)
    for a, b in zip(jax.tree.leaves(implicit), jax.tree.leaves(unrolled), strict=True):
        assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(b)


def test_what_is_shipped_denoises_better_than_non_local_means():
    clean, sigma = crop(64), 15.0
    y = clean + np.random.default_rng(2).normal(0, sigma, clean.shape).astype(np.float32)
    found = solve(ConvexRidge.shipped(), y, sigma, isr.Until(1e-4), w=np.log(0.52))
    options = {"patch_size": 5, "patch_distance": 6, "sigma": sigma, "channel_axis": -1}
    means = [denoise_nl_means(y[0], h=h * sigma, **options) for h in (0.5, 0.6, 0.7)]
    error = np.mean((np.asarray(found.image) - clean) ** 2)
    others = min(np.mean((m - clean[0]) ** 2) for m in means)
    assert 10 * np.log10(others / error) > 0.5
