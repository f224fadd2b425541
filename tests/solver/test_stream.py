import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest
from conftest import exact, photo
from hypothesis import given, settings
from hypothesis import strategies as st

import isrrescnet_jax as isr
from isrrescnet_jax.prior import network
from isrrescnet_jax.solver.stream import (
    SIDES,
    Streamer,
    _residual,
    choose_tile,
    footprint,
    free_memory,
    plan,
)
from isrrescnet_jax.solver.tiling import window_starts
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


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(OPERATORS),
    st.sampled_from([None, 1.0, 3.5]),
    st.integers(2, 41),
    st.integers(2, 41),
    st.sampled_from([1, 7, 16, 31, 64, "auto"]),
)
def test_equals_the_whole_reconstruction(small, operator, step, h, w, tile):
    # Of both kinds of physics; the step only goes with the exact one here.
    small = small if step is None else exact(small, step)
    y = photo(h, w)[0].astype(np.float32)
    expected = whole(small, y, operator)
    got = Streamer(small, operator, tile=tile)(y).image
    np.testing.assert_allclose(got, expected, atol=0.01)
    rounded = (np.rint(image).astype(int) for image in (got, expected))
    assert np.mean(np.not_equal(*rounded)) <= max(1e-4, 3 / got.size)


def test_the_official_network_in_tiles_too(official_small):
    y = photo(30, 47)[0].astype(np.float32)
    expected = whole(official_small, y, isr.Bicubic(4))
    got = Streamer(official_small, isr.Bicubic(4), tile=64)(y).image
    np.testing.assert_allclose(got, expected, atol=0.01)


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
    got = Streamer(weights, isr.Bicubic(3), tile=tile)(y).image
    np.testing.assert_allclose(got, whole(weights, y, isr.Bicubic(3)), atol=0.01)


def test_one_pixel_noise_and_trace(small):
    for shape in ((1, 1), (1, 5), (3, 1)):
        y = photo(*shape)[0].astype(np.float32)
        for noise in ("estimate", 7.5):
            expected = whole(small, y, isr.Bicubic(4), noise=noise)
            got = Streamer(small, isr.Bicubic(4), noise)(y)
            np.testing.assert_allclose(got.image, expected, atol=0.01)
            assert got.iterates is None
    y = photo(9, 14)[0].astype(np.float32)
    expected = isr.reconstruct(small, y[None], operator=isr.Bilinear(2), trace=True)
    got = Streamer(small, isr.Bilinear(2))(y, trace=True)
    np.testing.assert_allclose(got.iterates, expected.iterates[:, 0], atol=0.01)
    np.testing.assert_allclose(got.initial, expected.initial[0], atol=1e-3)
    np.testing.assert_allclose(got.sigma, expected.sigma[0], rtol=1e-4)


@contextlib.contextmanager
def compilations():
    """A list that grows by one for every program that is compiled."""
    compiled = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_fifty_sizes_share_a_few_programs(small):
    # In a network of its own, so that no other test has compiled for it.
    config = dataclasses.replace(small.config, features=5)
    weights = isr.init_weights(config, jax.random.key(0))
    upscaler = Upscaler(weights)
    sizes = [(8 + 7 * i % 50, 5 + 11 * i % 45) for i in range(50)]
    assert len(set(sizes)) == 50
    windows = {upscaler._streamer.plan(2 * min(s), 2 * max(s)).window for s in sizes}
    assert len(windows) <= 4
    upscaler(photo(4, 4)[0])  # what all sizes need: fused kernels

    before = _residual._cache_size()
    with compilations() as compiled:
        for size in sizes:
            upscaler(photo(*size)[0])
    # The smallest window was there already, and nothing else was compiled.
    assert _residual._cache_size() - before == len(windows) - 1
    assert len(compiled) == len(windows) - 1

    # The network does not depend on the operator, and no operator is compiled.
    weights = exact(weights, step=4.0)
    blur = isr.Blur(2, np.full((4, 4), 1 / 16, np.float32))
    for operator in (isr.Decimation(2), isr.Bicubic(2), isr.Bilinear(2), blur):
        upscaler = Upscaler(weights, operator=operator)
        upscaler(photo(4, 4)[0])
        with compilations() as compiled:
            for size in sizes[:8]:
                upscaler(photo(*size)[0])
        assert not compiled, operator


@given(st.integers(2, 900), st.integers(2, 900), st.sampled_from([32, 100, 512, 2**31]))
def test_plans_cover_the_picture_at_a_bounded_cost(height, width, tile):
    p = plan(height, width, 44, tile)
    rows = {(part[0], own[0]) for part, own in p.places}
    columns = {(part[1], own[1]) for part, own in p.places}
    axes = [
        (height, p.window[0], p.part[0], p.tile[0], rows),
        (width, p.window[1], p.part[1], p.tile[1], columns),
    ]
    for length, window, part, own, starts in axes:
        covered = np.zeros(length, bool)
        for first, start in starts:
            covered[start : start + own] = True
            assert 0 <= first <= first + part <= length and part + 4 <= window
            assert first <= max(start - 44, 0) and first + part >= min(start + own + 44, length)
        assert covered.all()
    needed = [length + 4 if length <= tile else tile + 92 for length in (height, width)]
    assert max(p.window) <= max(132, 1.56 * max(needed))
    assert min(p.window) <= max(132, 1.56 * min(needed), 1.56 * max(p.window) / 2 + 4)


def test_no_size_needs_more_than_thirteen_programs():
    sides = range(2, 900, 7)
    windows = {plan(h, w, 44, 512).window for h in sides for w in sides if h <= w}
    assert len(windows) <= 13


def test_upright_pictures_are_turned(small):
    # The same program, and the same result but for rounding, as the other way round.
    y = photo(40, 21)[0].astype(np.float32)
    streamer = Streamer(small, isr.Bicubic(3))
    np.testing.assert_allclose(streamer(y).image, whole(small, y, isr.Bicubic(3)), atol=0.01)
    before = _residual._cache_size()
    streamer(y.swapaxes(0, 1))
    assert _residual._cache_size() == before


def test_memory_decides_on_the_tile(small):
    config = isr.ModelConfig()
    assert choose_tile(config, None) == choose_tile(config, 8 * 2**30) == 512
    sizes = [choose_tile(config, m * 2**20) for m in (200, 400, 800, 2000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    for tile, m in zip(sizes, (200, 400, 800, 2000), strict=True):
        assert 2 * footprint(config, tile + 92) <= m * 2**20
    assert choose_tile(config, 600 * 2**20, "bfloat16") >= choose_tile(config, 600 * 2**20)
    with pytest.raises(ValueError, match="not enough"):
        choose_tile(config, 2**20)
    assert free_memory(jax.devices()[0]) > 2**20

    y = photo(60, 60)[0].astype(np.float32)
    loose = Streamer(small, isr.Bicubic(4))
    tight = Streamer(small, isr.Bicubic(4), max_memory=6 * 2**20)
    assert len(loose.plan(240, 240).places) == 1 < len(tight.plan(240, 240).places)
    np.testing.assert_allclose(tight(y).image, loose(y).image, atol=0.01)
    with pytest.raises(ValueError, match="not enough"):
        Streamer(small, isr.Bicubic(4), max_memory=2**20)(y)


def test_the_footprint_is_what_the_compiler_plans():
    config = isr.ModelConfig(iterations=1)
    kernels = jax.eval_shape(
        lambda: network.fuse(isr.init_weights(config, jax.random.key(0)).params["network"])
    )
    window = jax.ShapeDtypeStruct((1, 196, 196, 3), np.float32)
    size = (jax.ShapeDtypeStruct((), np.int32),) * 2
    memory = _residual.lower(config, None, kernels, window, size).compile().memory_analysis()
    used = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert 0.5 * footprint(config, 196) <= used <= footprint(config, 196)


def test_sides_grow_by_at_most_a_half():
    assert all(a < b <= 1.56 * a for a, b in zip(SIDES[1:], SIDES[2:], strict=False))


def test_window_starts_of_short_axes():
    assert window_starts(10, 20, 3)[0] == 10
