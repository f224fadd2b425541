import dataclasses
import functools

import jax
import numpy as np
import pytest
from conftest import exact, photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from experiments.harness import compiled_programs
from isrrescnet_jax.solver.canvas import Canvas, iterate
from isrrescnet_jax.upscaler import Upscaler


@functools.partial(jax.jit, static_argnames="noise")
def reconstructed(weights, y, operator, noise="estimate"):
    return isr.reconstruct(weights, y[None], operator=operator, noise=noise).image[0]


def whole(weights, y, operator, noise="estimate"):
    return np.asarray(reconstructed(weights, y, operator, noise))


OPERATORS = [
    isr.Bicubic(2),
    isr.Bicubic(3),
    isr.Bicubic(4),
    isr.Bilinear(2),
    isr.Decimation(3),
    isr.Blur(2, np.full((3, 3), 1 / 9, np.float32)),
]


def equals_whole(weights, operator, step, h, w, tile):
    # Of both kinds of physics; the step only goes with the exact one here.
    weights = weights if step is None else exact(weights, step)
    y = photo(h, w)[0].astype(np.float32)
    expected = whole(weights, y, operator)
    got = Canvas(weights, operator, tile=tile)(y).image
    np.testing.assert_allclose(got, expected, atol=0.001)
    rounded = (np.rint(image).astype(int) for image in (got, expected))
    assert np.mean(np.not_equal(*rounded)) <= max(1e-4, 3 / got.size)


STEPS, TILES = [None, 1.0, 3.5], [1, 7, 16, 31, 64, "auto"]


# Every operator, step and tile is here, and all of their combinations among those that are drawn
# below.
@pytest.mark.parametrize("h, w", [(2, 41), (41, 23)])
@pytest.mark.parametrize("operator, step, tile", [*zip(OPERATORS, 2 * STEPS, TILES, strict=True)])
def test_equals_the_whole_reconstruction(small, operator, step, tile, h, w):
    equals_whole(small, operator, step, h, w, tile)


@pytest.mark.parametrize("tile", ["auto", 31])
@pytest.mark.parametrize("platform", ["cuda", "default"])
def test_as_on_other_devices(small, tile, platform, monkeypatch):
    # Windows as a whole, with what GPUs and TPUs run where they differ.
    monkeypatch.setattr(Canvas, "strips", False)
    ways = lambda *args, **ways: ways.get(platform, ways["default"])(*args)  # noqa: E731
    for operator in OPERATORS[1], OPERATORS[5]:
        y = photo(30, 23)[0].astype(np.float32)
        expected = whole(small, y, operator)
        with monkeypatch.context() as context:
            context.setattr(jax.lax, "platform_dependent", ways)
            jax.clear_caches()
            got = Canvas(small, operator, tile=tile)(y).image
        np.testing.assert_allclose(got, expected, atol=0.001)
    jax.clear_caches()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(OPERATORS),
    st.sampled_from(STEPS),
    st.integers(2, 41),
    st.integers(2, 41),
    st.sampled_from(TILES),
)
def test_equals_it_however_they_are_combined(small, operator, step, h, w, tile):
    equals_whole(small, operator, step, h, w, tile)


def test_the_official_network_in_tiles_too(official_small):
    y = photo(30, 47)[0].astype(np.float32)
    expected = whole(official_small, y, isr.Bicubic(4))
    got = Canvas(official_small, isr.Bicubic(4), tile=64)(y).image
    np.testing.assert_allclose(got, expected, atol=0.001)


@pytest.fixture(scope="module")
def official_small():
    """The depth, and so the halo, of the official network with fewer features."""
    return isr.init_weights(isr.ModelConfig(features=8, iterations=2, scale=4), jax.random.key(3))


@pytest.mark.parametrize("tile", [37, "auto"])
def test_wide_networks_too(tile):
    # 32 features or more take another path through the processor, see `winograd`.
    config = isr.ModelConfig(features=32, depth=1, feedback_steps=2, iterations=2, scale=3)
    weights = isr.init_weights(config, jax.random.key(4))
    y = photo(19, 26)[0].astype(np.float32)
    got = Canvas(weights, isr.Bicubic(3), tile=tile)(y).image
    np.testing.assert_allclose(got, whole(weights, y, isr.Bicubic(3)), atol=0.001)


def test_one_pixel_noise_and_trace(small):
    for shape in ((1, 1), (1, 5), (3, 1)):
        y = photo(*shape)[0].astype(np.float32)
        for noise in ("estimate", 7.5):
            expected = whole(small, y, isr.Bicubic(4), noise=noise)
            got = Canvas(small, isr.Bicubic(4), noise)(y)
            np.testing.assert_allclose(got.image, expected, atol=0.001)
            assert got.iterates is None
    y = photo(9, 14)[0].astype(np.float32)
    expected = isr.reconstruct(small, y[None], operator=isr.Bilinear(2), trace=True)
    got = Canvas(small, isr.Bilinear(2))(y, trace=True)
    np.testing.assert_allclose(got.iterates, expected.iterates[:, 0], atol=0.001)
    np.testing.assert_allclose(got.initial, expected.initial[0], atol=1e-3)
    np.testing.assert_allclose(got.sigma, expected.sigma[0], rtol=1e-4)


def test_fifty_sizes_share_a_few_programs(small):
    # A network of its own, so that no other test has compiled for it, with the official halo.
    deep = {"depth": 5, "feedback_steps": 4, "iterations": 1}
    config = dataclasses.replace(small.config, features=4, scale=4, **deep)
    weights = exact(isr.init_weights(config, jax.random.key(0)))
    sides = np.random.default_rng(0).integers(16, 65, (200, 2))  # 64 to 256 HR pixels
    sizes = list(dict.fromkeys(map(tuple, sides.tolist())))[:50]
    for tile in ("auto", 48):
        upscaler = Upscaler(weights, tile=tile)
        # Two images for each of the plans, lying and upright where there are both.
        plan = Canvas(weights, isr.Bicubic(4), tile=tile).plan
        plans = {size: plan(*(4 * side for side in size)) for size in sizes}
        chosen = {}
        for size, p in plans.items():
            chosen.setdefault((p.window, p.turned), size)
            chosen[p.window, p.turned, len(p.places)] = size
        upscaler(photo(4, 4)[0])  # what all sizes need: fused kernels
        with compiled_programs() as compiled:
            for size in set(chosen.values()):
                upscaler(photo(*size)[0])
        assert len(compiled) <= 4 < len(set(chosen.values()))


class Own:
    """An operator that knows nothing of canvases."""

    scale = 2

    def initial(self, y):
        return y.repeat(2, 1).repeat(2, 2)

    def gradient(self, v, y):
        return self.initial(v[:, ::2, ::2] - y)


def test_operators_of_other_kinds_are_compiled_for_each_size(small):
    own = jax.tree_util.register_static(type("Own", (Own,), {"__hash__": lambda _: 1}))()
    y = photo(13, 9)[0].astype(np.float32)
    got = Canvas(small, own)(y).image
    np.testing.assert_allclose(got, whole(small, y, own), atol=0.001)


def test_iterations_beyond_those_that_were_trained(small):
    y = photo(9, 14)[0].astype(np.float32)
    expected = isr.reconstruct(small, y[None], iterations=5).image[0]
    np.testing.assert_allclose(
        Canvas(small, isr.Bicubic(2), iterations=5)(y).image, expected, atol=0.001
    )


def test_memory_decides_on_the_window(small):
    y = photo(60, 60)[0].astype(np.float32)
    loose = Canvas(small, isr.Bicubic(4))
    tight = Canvas(small, isr.Bicubic(4), max_memory=12 * 2**20)
    assert tight.plan(240, 240).window < loose.plan(240, 240).window
    np.testing.assert_allclose(tight(y).image, loose(y).image, atol=0.001)
    with pytest.raises(ValueError, match="not enough"):
        Canvas(small, isr.Bicubic(4), max_memory=2**20)(y)


def test_one_program_of_each_canvas_whatever_the_numbers(small):
    before = iterate._cache_size()
    for noise in (1.0, 2.5):
        for iterations in (1, 4):
            Canvas(small, isr.Bicubic(2), noise, iterations)(photo(9, 14)[0])
    assert iterate._cache_size() <= before + 1
