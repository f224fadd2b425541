from functools import partial

import jax
import numpy as np
import pytest
from conftest import photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.prior.network import LearnedPrior
from isrrescnet_jax.solver.tiling import TiledPrior, window_starts


@given(st.integers(1, 200), st.integers(1, 80), st.integers(0, 30))
def test_windows_cover_every_tile_with_its_halo(length, tile, halo):
    window, windows, tiles = window_starts(length, tile, halo)
    size = min(tile, length)
    covered = np.zeros(length, bool)
    for first, start in zip(windows, tiles, strict=True):
        covered[start : start + size] = True
        assert 0 <= first <= first + window <= length
        # A whole halo on each side, or the border of the image.
        assert first <= max(start - halo, 0)
        assert first + window >= min(start + size + halo, length)
    assert covered.all()


@partial(jax.jit, static_argnames="tile")
def residual(weights, z, tile=None):
    prior = LearnedPrior.from_weights(weights)
    return (prior if tile is None else TiledPrior(prior, tile)).residual(z)


@settings(max_examples=8)
@given(st.integers(2, 60), st.integers(2, 60), st.integers(1, 40))
def test_tiled_residual_equals_the_whole_one(small, h, w, tile):
    z = photo(h, w, n=2).astype(np.float32)
    whole = residual(small, z)
    np.testing.assert_allclose(residual(small, z, tile), whole, atol=1e-4 * np.abs(whole).max())


def test_a_shorter_halo_would_show():
    # Else the test above could not fail.
    config = isr.ModelConfig(features=8, depth=2, feedback_steps=2, iterations=1)
    weights = isr.init_weights(config, jax.random.key(0))
    z = photo(64, 64).astype(np.float32)
    whole = residual(weights, z)
    blind = isr.Weights(weights.params, config)
    halo = type(config).halo
    try:
        type(config).halo = property(lambda self: 4)
        jax.clear_caches()
        seams = np.abs(residual(blind, z, 16) - whole).max()
    finally:
        type(config).halo = halo
        jax.clear_caches()
    assert seams > 1e-3 * np.abs(whole).max()


@pytest.mark.parametrize("operator", [isr.Bicubic(3), isr.Bilinear(3), isr.Decimation(3)])
def test_whole_reconstruction_is_the_same_in_tiles(small, operator):
    lr = photo(13, 11).astype(np.float32)
    prior = TiledPrior(LearnedPrior.from_weights(small), 16)
    run = jax.jit(isr.reconstruct)
    tiled = run(small, lr, operator=operator, prior=prior).image
    np.testing.assert_allclose(tiled, run(small, lr, operator=operator).image, atol=0.01)


def test_rejects_empty_tiles(small):
    with pytest.raises(ValueError, match="at least 1"):
        TiledPrior(LearnedPrior.from_weights(small), 0).residual(np.zeros((1, 4, 4, 3), "f4"))
