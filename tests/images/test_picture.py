import numpy as np

from isrrescnet_jax.images import as_rgb, to_uint8


def test_to_uint8_rounds_half_to_even_and_saturates():
    x = np.array([-1e9, -0.6, 0.5, 1.5, 2.5, 2.500001, 254.5, 255.4, 1e9, np.inf])
    expected = [0, 0, 0, 2, 2, 3, 254, 255, 255, 255]
    np.testing.assert_array_equal(to_uint8(x), expected)
    assert to_uint8(x).dtype == np.uint8
    np.testing.assert_array_equal(to_uint8(np.arange(256, dtype=np.uint8)), np.arange(256))
    few = np.arange(7, dtype=np.uint8)
    assert to_uint8(few) is few


def test_as_rgb_repeats_grey_and_leaves_out_transparency():
    rng = np.random.default_rng(0)
    rgba = rng.integers(0, 256, (5, 7, 4), np.uint8)
    grey = rgba[..., 0].repeat(3).reshape(5, 7, 3)
    for image, expected in (
        (rgba[..., 0], grey),
        (rgba[..., :1], grey),
        (rgba[..., [0, 3]], grey),
        (rgba[..., :3], rgba[..., :3]),
        (rgba, rgba[..., :3]),
        (rgba.astype(np.float32) + 0.4, rgba[..., :3]),
    ):
        found = as_rgb(image)
        assert found.dtype == np.uint8 and found.strides[-1] == 1
        np.testing.assert_array_equal(found, expected)
