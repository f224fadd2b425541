"""The noise level as an input of the network, from the file to the image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exact, photo

import isrrescnet_jax as isr
from convert import to_torch
from convert.__main__ import main
from isrrescnet_jax.prior.network import ResidualNetwork
from isrrescnet_jax.solver.canvas import Canvas
from isrrescnet_jax.solver.stream import Stream
from isrrescnet_jax.weights import check_params, with_noise_input


@pytest.fixture(scope="module")
def noisy(small):
    """Fresh weights, whose slices for the noise level are not zero."""
    return isr.init_weights(dataclasses.replace(small.config, noise_input=True), jax.random.key(1))


def test_weights_given_the_input_compute_the_same(small):
    z = jnp.asarray(photo(9, 12, n=2), jnp.float32)
    sigma = jnp.array([0.0, 20.0])
    for weights in (small, jax.tree.map(np.asarray, small)):
        extended = with_noise_input(weights)
        assert extended.config == dataclasses.replace(small.config, noise_input=True)
        check_params(extended.params, extended.config)
        v, before = (w.params["network"]["encoder"]["v"] for w in (extended, weights))
        assert type(v) is type(before) and v.dtype == before.dtype
        assert with_noise_input(extended) is extended
        r, expected = (
            isr.LearnedPrior.from_weights(w).residual(z, sigma) for w in (extended, weights)
        )
        np.testing.assert_allclose(r, expected, atol=1e-4)
    assert not small.config.noise_input


def test_the_level_matters_image_by_image_and_must_be_given(noisy):
    assert noisy.params["network"]["encoder"]["v"].shape == (5, 5, 4, 8)
    prior = isr.LearnedPrior.from_weights(noisy)
    z = jnp.repeat(jnp.asarray(photo(9, 12), jnp.float32), 2, 0)
    r = prior.residual(z, jnp.array([0.0, 20.0]))
    assert np.abs(r[0] - r[1]).max() > 0.1
    np.testing.assert_allclose(r[1:], prior.residual(z[:1], jnp.array([20.0])), atol=1e-4)
    with pytest.raises(ValueError, match="give sigma"):
        prior.residual(z)
    # Of the kernel slice for the level alone: with a reflected border it is the same everywhere.
    network = ResidualNetwork(noisy.config, precision="highest")
    encode = lambda x: network.apply(  # noqa: E731
        {"params": prior.kernels}, x, method=lambda m, x: m.encoder(x)
    )
    level = jnp.zeros((1, 9, 12, 4)).at[..., 3].set(20)
    kernel = prior.kernels["encoder"]["kernel"]
    expected = np.broadcast_to(20 * kernel[:, :, 3].sum((0, 1)), (1, 9, 12, 8))
    np.testing.assert_allclose(encode(level), expected, atol=1e-4)


def test_gradients_reach_the_new_slices_through_the_iterations(small):
    lr = photo(6, 7)[0][None].astype(np.float32)

    @jax.jit
    @jax.grad
    def gradient(weights):
        return jnp.mean(isr.reconstruct(weights, lr, noise=5.0).image)

    found = gradient(with_noise_input(small)).params["network"]["encoder"]["v"]
    assert np.isfinite(found).all() and np.abs(found[:, :, 3]).max() > 0


@pytest.mark.parametrize("tile", [17, "auto"])
@pytest.mark.parametrize("noise", [12.0, "estimate"])
def test_canvas_and_bands_equal_the_whole(noisy, tile, noise):
    weights = exact(noisy)
    y = photo(33, 27)[0].astype(np.float32)
    expected = isr.reconstruct(weights, y[None], noise=noise).image[0]
    operator = isr.Bicubic(2)
    canvas = Canvas(weights, operator, noise, tile=tile)
    np.testing.assert_allclose(canvas(y).image, expected, atol=1e-3)
    np.testing.assert_allclose(Stream(canvas, None, 9)(y).image, expected, atol=1e-3)
    image = isr.upscale(y, weights=weights, noise=noise, tile=tile)
    np.testing.assert_allclose(image, expected, atol=1e-3)


def test_the_level_is_what_makes_the_difference_in_a_window(noisy):
    y = photo(20, 14)[0].astype(np.float32)
    # alpha so large that the projection does nothing: sigma acts through the encoder alone.
    free = isr.Weights(noisy.params | {"alpha": noisy.params["alpha"] + 20}, noisy.config)
    images = [isr.upscale(y, weights=free, noise=noise) for noise in (3.0, 30.0)]
    assert np.abs(images[0] - images[1]).max() > 0.1


def test_files_keep_it_and_the_official_format_has_no_place_for_it(tmp_path, noisy, capsys):
    path = tmp_path / "noisy.safetensors"
    isr.save_weights(noisy, path)
    loaded = isr.load_weights(path)
    assert loaded.config == noisy.config and loaded.config.noise_input
    jax.tree.map(np.testing.assert_array_equal, loaded.params, noisy.params)
    with pytest.raises(ValueError, match="noise input"):
        to_torch(noisy.params)
    pytest.importorskip("torch")
    with pytest.raises(SystemExit) as error:
        main([str(path), str(tmp_path / "noisy.pth")])
    said = capsys.readouterr().err
    assert error.value.code == 2 and said.count("\n") == 1 and "noise input" in said
    assert not (tmp_path / "noisy.pth").exists()
