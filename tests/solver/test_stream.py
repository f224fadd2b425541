import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import exact, photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.prior.network import LearnedPrior
from isrrescnet_jax.prior.projection import shrinkage
from isrrescnet_jax.solver import stream
from isrrescnet_jax.solver.canvas import Canvas
from isrrescnet_jax.solver.iteration import accept, propose
from isrrescnet_jax.solver.stream import Stream, bands
from isrrescnet_jax.upscaler import Upscaler

OPERATORS = [
    isr.Bicubic(2),
    isr.Bicubic(3),
    isr.Bilinear(2),
    isr.Decimation(4),
    isr.Blur(2, np.full((5, 5), 1 / 25, np.float32)),
]
whole = jax.jit(lambda w, y, operator: isr.reconstruct(w, y[None], operator=operator).image[0])


@given(st.integers(1, 300), st.integers(1, 60), st.integers(0, 40))
def test_bands_cover_the_image_once_with_their_margin(height, rows, margin):
    parts = bands(height, rows + 2 * margin, margin)
    owns = np.concatenate([np.arange(height)[band.write()] for band in parts])
    np.testing.assert_array_equal(owns, np.arange(height))
    assert len({band.count for band in parts}) == 1
    for band in parts:
        assert 0 <= band.first <= max(band.own.start - margin, 0)
        last = band.first + band.count
        assert min(band.own.stop + margin, height) <= last <= height
        read = np.arange(height)[band.read()]
        np.testing.assert_array_equal(read[band.inner()], np.arange(height)[band.write()])


def equals_whole(weights, operator, physics, h, w, rows, tile, on_disk):
    weights = exact(weights, 2.0) if physics else weights
    y = photo(h, w)[0].astype(np.float32)
    folder = Path(stream.tempfile.gettempdir()) if on_disk else None
    got = Stream(Canvas(weights, operator, tile=tile), folder, rows)(y)
    np.testing.assert_allclose(got.image, whole(weights, y, operator), atol=0.001)


# Every operator, number of rows and tile is here, and all of their combinations among those that
# are drawn below.
@pytest.mark.parametrize(
    "operator, physics, h, w, rows, tile, on_disk",
    [
        (OPERATORS[0], True, 70, 23, 20, 16, True),
        (OPERATORS[1], False, 41, 31, 7, 40, False),
        (OPERATORS[2], False, 47, 2, 20, "auto", True),
        (OPERATORS[3], True, 15, 40, 7, 16, False),
        (OPERATORS[4], True, 69, 11, 64, 40, True),
        (OPERATORS[4], False, 1, 17, 7, "auto", False),
    ],
)
def test_equals_the_whole_reconstruction(small, operator, physics, h, w, rows, tile, on_disk):
    equals_whole(small, operator, physics, h, w, rows, tile, on_disk)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(OPERATORS),
    st.booleans(),
    st.integers(1, 70),
    st.integers(2, 40),
    st.sampled_from([7, 20, 64]),
    st.sampled_from([16, 40, "auto"]),
    st.booleans(),
)
def test_equals_it_however_they_are_combined(small, operator, physics, h, w, rows, tile, on_disk):
    equals_whole(small, operator, physics, h, w, rows, tile, on_disk)


def test_bands_share_one_program(small):
    before = stream.propose._cache_size()
    Stream(Canvas(small, isr.Bicubic(2), tile=40), None, 9)(photo(70, 31)[0])
    assert stream.propose._cache_size() == before + 1


@pytest.fixture(scope="module")
def deep():
    """K = 3, and a halo as wide as the official one."""
    config = isr.ModelConfig(features=4, iterations=3, scale=2)
    return exact(isr.init_weights(config, jax.random.key(3)))


def test_parts_are_what_a_crop_with_its_margin_gives(deep):
    # The number for the whole image matters, and only that ties the crop to the rest.
    weights, operator = deep, isr.Bicubic(2, reference=False)
    y, sigma = photo(150, 170)[0].astype(np.float32), jnp.full(1, 0.5)
    got = Stream(Canvas(weights, operator, 0.5, 1, tile=48), None, 30)(y).image

    prior = LearnedPrior.from_weights(weights)
    alpha, w = weights.params["alpha"][0], weights.params["w"][0]

    @jax.jit
    def parts(y):
        x = operator.initial(y)
        return propose(operator, prior.residual, x, x, y, w)

    _, r = parts(y[None])
    shrink = shrinkage(jnp.sum(r**2), r.size, sigma, alpha)
    assert 0 < float(shrink[0]) < 0.9
    margin = 22 + operator.reach
    side = 12 + 2 * margin
    corners = [(0, 0), (18, 20), (20, 40), (58, 70), (100, 86), (149 - 12, 169 - 12)]
    for top, left in corners:  # a corner of the image, seams of bands and of tiles, the far edge
        # At least with its margin, or up to the edge; all of one size, for one program.
        a, b = (
            min(max(first - margin, 0), n - side)
            for first, n in zip((top, left), y.shape[:2], strict=True)
        )
        z, r = parts(y[None, a : a + side, b : b + side])
        crop = accept(z, r, shrink)[0, 2 * (top - a) :, 2 * (left - b) :][:24, :24]
        here = got[2 * top :, 2 * left :][:24, :24]
        np.testing.assert_allclose(here, crop[: here.shape[0], : here.shape[1]], atol=0.001)


def test_three_iterations_with_a_projection_that_acts(deep):
    y = photo(90, 70)[0].astype(np.float32)
    got = Stream(Canvas(deep, isr.Bicubic(2), 0.5, tile=48), None, 20)(y).image
    expected = isr.reconstruct(deep, y[None], noise=0.5).image[0]
    shrinks = []

    def prior(z, sigma, alpha):
        r = learned.residual(z)
        shrink = shrinkage(jnp.sum(r**2), r.size, sigma, alpha)
        jax.debug.callback(lambda value: shrinks.append(float(value[0])), shrink)
        return shrink * r

    learned = LearnedPrior.from_weights(deep)
    other = isr.reconstruct(deep, y[None], noise=0.5, prior=jax.tree_util.Partial(prior))
    np.testing.assert_allclose(other.image[0], expected, atol=0.001)
    assert len(shrinks) == 3 and max(shrinks) < 0.9
    np.testing.assert_allclose(got, expected, atol=0.001)


def test_little_memory_means_bands_and_files(small):
    y = photo(300, 40)[0].astype(np.float32)
    canvas = Canvas(small, isr.Bicubic(2), max_memory=5 * 2**20)
    assert not canvas.takes(300, 40)
    assert Stream.fitting(canvas, 300, 40).folder is not None
    assert Stream.fitting(Canvas(small, isr.Bicubic(2)), 300, 40).folder is None
    got = Upscaler(small, max_memory=5 * 2**20)(y)
    np.testing.assert_allclose(got, Upscaler(small)(y), atol=0.001)
    with pytest.raises(ValueError, match="not enough"):
        Upscaler(small, max_memory=2**18)(y)


def test_a_killed_run_leaves_no_file(tmp_path):
    code = """
import sys
import jax, numpy as np
import isrrescnet_jax as isr
from pathlib import Path
from isrrescnet_jax.solver.canvas import Canvas
from isrrescnet_jax.solver.stream import Stream
weights = isr.init_weights(isr.ModelConfig(features=4, depth=1, scale=2), jax.random.key(0))
print("begun", flush=True)
while True:
    Stream(Canvas(weights, isr.Bicubic(2)), Path(sys.argv[1]), 20)(np.ones((90, 60, 3), np.float32))
    print("round", flush=True)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(isr.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() and process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_before_anything_is_computed(small, tmp_path):
    with pytest.raises(OSError, match="."):
        stream.scratch((2**24, 2**20, 3), tmp_path)
    assert not list(tmp_path.iterdir())
