import dataclasses
import types
import warnings

import numpy as np
import pytest
from conftest import exact, photo

import isrrescnet_jax as isr
from isrrescnet_jax.upscaler import Upscaler, fastest_dtype

RGB = photo(9, 12)[0]


@pytest.fixture(scope="module")
def grey(small):
    import jax

    config = dataclasses.replace(small.config, channels=1)
    return isr.init_weights(config, jax.random.key(1))


def test_upscale_is_reconstruct_rounded(small):
    solution = isr.reconstruct(small, RGB[None])
    expected = np.clip(np.rint(solution.image[0]), 0, 255).astype(np.uint8)
    got = isr.upscale(RGB, weights=small)
    assert got.dtype == np.uint8 and got.shape == (18, 24, 3)
    assert (got != expected).mean() < 1e-3


@pytest.mark.parametrize("shape", [(), (1,), (2,), (3,), (4,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_types_and_channels_are_kept(small, shape, dtype):
    unit = 257 if dtype == np.uint16 else 1
    image = np.full((9, 12, *shape), 100 * unit, dtype)
    out = isr.upscale(image, 2, weights=small)
    assert out.dtype == dtype and out.shape == (18, 24, *shape)
    if shape in ((2,), (4,)):
        np.testing.assert_allclose(out[..., -1], 100 * unit, rtol=1e-5)


def test_16_bits_are_8_bits_with_finer_steps(small):
    eight = isr.upscale(RGB, weights=small).astype(float)
    sixteen = isr.upscale(RGB.astype(np.uint16) * 257, weights=small) / 257
    assert np.abs(eight - sixteen).max() <= 0.51


def test_grey_pictures_and_grey_weights(small, grey):
    color = isr.upscale(np.repeat(RGB[..., :1], 3, 2).astype(np.float32), weights=small)
    one = isr.upscale(RGB[..., 0].astype(np.float32), weights=small)
    np.testing.assert_allclose(one, color.mean(-1), atol=1e-3)
    planes = isr.upscale(RGB.astype(np.float32), weights=grey)
    blue = isr.upscale(RGB[..., 2].astype(np.float32), weights=grey)
    np.testing.assert_allclose(planes[..., 2], blue, atol=1e-3)


def test_ensemble_is_the_mean_of_the_eight(small):
    total = np.zeros((18, 24, 3))
    for transpose in (False, True):
        for rows in (1, -1):
            for columns in (1, -1):
                x = RGB[::rows, ::columns]
                y = Upscaler(small)(x.swapaxes(0, 1) if transpose else x)
                total += (y.swapaxes(0, 1) if transpose else y)[::rows, ::columns]
    np.testing.assert_allclose(Upscaler(small, ensemble=True)(RGB), total / 8, atol=1e-3)


@pytest.mark.parametrize("ensemble", [False, True])
def test_many_pictures_at_once(small, grey, ensemble):
    pictures = [RGB, RGB[:5, :, :1], RGB.swapaxes(0, 1), RGB[::-1], RGB[:1, :1]]
    for weights in (small, grey):
        upscaler, alone = (
            Upscaler(weights, ensemble=ensemble, batch=2),
            Upscaler(weights, ensemble=ensemble),
        )
        assert not upscaler.singly and alone.singly  # on a CPU
        for found, picture in zip(upscaler.each(pictures), pictures, strict=True):
            np.testing.assert_allclose(
                found, Upscaler(weights, ensemble=ensemble)(picture), atol=1e-3
            )
    assert upscaler.each([]) == []


def test_the_ensemble_supposes_a_symmetric_kernel(small):
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    with warnings.catch_warnings(action="error"):
        Upscaler(small, operator=isr.Blur(2, kernel), ensemble=True)
        Upscaler(small, operator=isr.Blur(2, np.eye(3) / 3))
    for uneven in (np.outer([1, 2, 1], [2, 1, 1]) / 16, np.stack([kernel] * 2 + [np.eye(3)])):
        with pytest.warns(UserWarning, match="not symmetric"):
            Upscaler(small, operator=isr.Blur(2, uneven), ensemble=True)


def test_bfloat16_is_float32_on_a_cpu(small):
    with pytest.warns(UserWarning, match="slower than float32 on a CPU"):
        upscaler = Upscaler(small, dtype="bfloat16")
    np.testing.assert_array_equal(upscaler(RGB), Upscaler(small)(RGB))
    gpu = types.SimpleNamespace(platform="gpu")
    assert fastest_dtype("bfloat16", gpu) == fastest_dtype("auto", gpu) == "bfloat16"
    with warnings.catch_warnings(action="error"):
        assert Upscaler(small, dtype="auto").dtype == "float32"
    assert fastest_dtype(None) is None and fastest_dtype("float32") == "float32"


def test_options_reach_the_network(small):
    plain = Upscaler(small)(RGB)
    np.testing.assert_allclose(Upscaler(small, tile=8)(RGB), plain, atol=0.01)
    for other in (
        Upscaler(small, noise=20.0),
        Upscaler(small, iterations=1),
        Upscaler(small, operator=isr.Bilinear(2)),
    ):
        assert np.abs(other(RGB) - plain).max() > 1e-3
    assert Upscaler(small, scale=3)(RGB).shape == (27, 36, 3)
    told = []
    trace = Upscaler(small).trace(RGB, lambda *numbers: told.append(numbers))
    assert told == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_allclose(trace.iterates[-1, 0], plain, atol=1e-3)


def test_bad_input_says_what_is_wrong(small):
    with pytest.raises(ValueError, match=r"\(h, w\)"):
        isr.upscale(np.zeros((4, 4, 5), np.uint8), weights=small)
    with pytest.raises(ValueError, match="uint8"):
        isr.upscale(np.zeros((4, 4, 3), np.int64), weights=small)
    with pytest.raises(ValueError, match="do not agree"):
        Upscaler(small, 2, isr.Bicubic(3))
    with pytest.raises(ValueError, match="tile"):
        Upscaler(small, tile=0)
    with pytest.raises(ValueError, match="batch"):
        Upscaler(small, batch=0)
    with pytest.raises(ValueError, match="shipped"):
        isr.upscale(RGB, 2, weights="x7")
    with pytest.raises(ValueError, match="a picture"):
        Upscaler(small)(np.zeros((0, 4, 3)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_exact_physics_is_the_same_in_all_orientations_and_not_dark_at_the_border(small, scale):
    # Without its network a model is all physics: then the ensemble changes nothing.
    network = small.params["network"]
    silent = network["decoder"] | {"g": np.zeros(8, np.float32)}
    params = small.params | {"network": network | {"decoder": silent}}
    y = photo(9, 14)[0].astype(np.float32)

    def apart(weights):
        plain = Upscaler(weights, scale)(y)
        return plain, np.abs(Upscaler(weights, scale, ensemble=True)(y) - plain).max()

    config = dataclasses.replace(small.config, scale=scale)
    assert apart(exact(isr.Weights(params, config), step=scale**2))[1] < 1e-3
    assert apart(isr.Weights(params, config))[1] > 1
    flat, _ = apart(exact(isr.Weights(params, config)))
    border = np.abs(flat[[0, -1]].mean() - y[[0, -1]].mean())
    assert border < 2
