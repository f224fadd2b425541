import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import photo
from PIL import Image
from scipy import ndimage

from isrrescnet_jax.data.photo import gaussian_blur, jpeg, photo_degrade

EXAMPLE = Path(__file__).parents[2] / "examples/astronaut.png"


@pytest.fixture(scope="module")
def natural() -> np.ndarray:
    image = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    h, w = (length - length % 16 for length in image.shape[:2])
    return image[:h, :w]


def pillow(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file))


def test_the_blur_is_that_of_scipy_with_a_width_for_each_image():
    x = photo(30, 41, n=4).astype(np.float32)
    deviation = np.array([0.0, 0.4, 1.7, 3.0], np.float32)
    got = jax.jit(gaussian_blur)(x, deviation)
    np.testing.assert_array_equal(got[0], x[0])
    for image, before, d in zip(got[1:], x[1:], deviation[1:], strict=True):
        expected = ndimage.gaussian_filter(before, (d, d, 0), mode="nearest", radius=12)
        np.testing.assert_allclose(image, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["natural", "waves"])
def test_jpeg_is_what_a_file_gives_back(natural, kind):
    image = natural if kind == "natural" else photo(64, 48)[0]
    qualities = np.array([10, 40, 49, 50, 70, 90, 100])
    batch = np.repeat(image[None], len(qualities), 0).astype(np.float32)
    got = np.asarray(jax.jit(jpeg)(batch, qualities))
    assert got.min() >= 0 and got.max() <= 255 and np.array_equal(got, np.rint(got))
    for result, quality in zip(got, qualities, strict=True):
        # libjpeg's DCT is of whole numbers: now and then a coefficient falls on the other side.
        theirs = pillow(image, int(quality))
        assert np.abs(result - theirs).mean() < 0.4, quality
        if quality <= 90:
            assert np.abs(result - theirs).mean() < 0.2 * np.abs(theirs * 1.0 - image).mean()


def test_jpeg_needs_whole_blocks():
    with pytest.raises(ValueError, match="multiples of 16, not 24 and 32"):
        jpeg(jnp.zeros((1, 24, 32, 3)), jnp.full(1, 80))


def test_the_degradation_is_the_one_that_was_drawn():
    n = 200
    lr = np.full((n, 32, 32, 3), 127.3, np.float32)
    lr[:, :, 16:] = 40
    y, sigma = jax.jit(photo_degrade)(jax.random.key(0), lr)
    assert y.shape == lr.shape and sigma.shape == (n,)
    assert np.min(y) >= 0 and np.max(y) <= 255 and np.array_equal(y, np.rint(y))
    assert 0.4 < np.mean(sigma > 0) < 0.6 and 20 < sigma.max() <= 25
    # Uncompressed noise has the deviation that is returned; JPEG takes some of it away.
    found = np.std(y[:, :, :16], axis=(1, 2, 3))
    plain = np.abs(found - sigma) < 0.1 * sigma + 0.3
    assert (
        0.4 < np.mean(plain[sigma > 5]) < 0.7 and (found[sigma > 5] < 1.1 * sigma[sigma > 5]).all()
    )


def test_the_ranges_are_arguments():
    lr = jnp.float32(photo(32, 48, n=3))
    key = jax.random.key(1)
    y, sigma = photo_degrade(key, lr, noisy=0.0, compressed=0.0)
    np.testing.assert_array_equal(y, lr)
    np.testing.assert_array_equal(sigma, 0)
    y, _ = photo_degrade(key, lr, quality=(30, 30), noisy=0.0, compressed=1.0)
    np.testing.assert_array_equal(y, jpeg(jnp.asarray(lr), jnp.full(3, 30)))
    y, sigma = photo_degrade(key, lr, noise=(8.0, 8.0), noisy=1.0, compressed=0.0)
    np.testing.assert_array_equal(sigma, 8)
    assert 7 < np.std(y - lr) < 9
    again, _ = photo_degrade(key, lr, noise=(8.0, 8.0), noisy=1.0, compressed=0.0)
    np.testing.assert_array_equal(y, again)
