import math

import numpy as np
import pytest
import torch
from conftest import GOLDEN, photo
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.data import astronaut

from isrrescnet_jax.evaluation.degrade import degrade, modcrop, resize

borders = pytest.mark.parametrize("border", ["symmetric", "replicate"])


@borders
def test_equals_matlab(border):
    with np.load(GOLDEN / "degrade_corner.npz") as golden:
        # The last two rows and columns would depend on pixels that are not stored.
        np.testing.assert_array_equal(degrade(golden["hr"], 4, border)[:6, :6], golden[border])


def by_definition(image: np.ndarray, scale: int, border: str) -> np.ndarray:
    """One channel, one pixel and one tap after the other."""

    def keys(t):
        t = abs(t)
        if t <= 1:
            return 1.5 * t**3 - 2.5 * t**2 + 1
        return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0

    def outside(i, n):
        if border == "replicate":
            return min(max(i, 0), n - 1)
        while not 0 <= i < n:
            i = -1 - i if i < 0 else 2 * n - 1 - i
        return i

    def reduce(line):
        out = []
        for j in range(len(line) // scale):
            centre = scale * (j + 0.5) - 0.5
            taps = range(math.ceil(centre - 2 * scale), math.floor(centre + 2 * scale) + 1)
            weights = [keys((i - centre) / scale) for i in taps]
            values = [float(line[outside(i, len(line))]) for i in taps]
            mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
            out.append(min(max(math.floor(mean + 0.5), 0), 255))
        return out

    tall = np.array([reduce(column) for column in image.T]).T
    return np.array([reduce(row) for row in tall])


@borders
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_equals_the_definition(scale, border):
    rng = np.random.default_rng(scale)
    image = rng.integers(0, 256, (5 * scale, 7 * scale), dtype=np.uint8)
    difference = degrade(image, scale, border).astype(int) - by_definition(image, scale, border)
    # Sums in another order may round a tie the other way, but hardly ever.
    assert np.abs(difference).max() <= 1 and np.mean(difference != 0) < 0.03


def test_images_smaller_than_the_kernel():
    image = np.random.default_rng(0).integers(0, 256, (4, 8), dtype=np.uint8)
    for border in ("symmetric", "replicate"):
        np.testing.assert_array_equal(degrade(image, 4, border), by_definition(image, 4, border))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_agrees_with_pillow_inside(scale):
    # Half the contrast: nothing overshoots and is clipped between the passes.
    image = modcrop(astronaut()[:200, 120:300] // 2 + 64, scale)
    size = (image.shape[1] // scale, image.shape[0] // scale)
    for channel in range(3):  # Pillow stretches the same kernel, but cuts it off at borders
        plane = Image.fromarray(image[..., channel].astype(np.float32))
        expected = np.asarray(plane.resize(size, Image.Resampling.BICUBIC))
        difference = degrade(image, scale)[..., channel] - expected
        assert np.abs(difference[3:-3, 3:-3]).max() < 1.3  # rounded twice


@given(st.sampled_from([2, 3, 4]), st.integers(4, 40), st.integers(4, 40), st.integers(0, 255))
def test_shape_and_constants(scale, h, w, value):
    lr = degrade(np.full((h, w, 3), value, np.uint8), scale)
    assert lr.shape == (h // scale, w // scale, 3) and lr.dtype == np.uint8
    assert (lr == value).all()


@borders
@pytest.mark.parametrize("scale", [2, 4])
def test_treats_all_sides_alike(scale, border):
    image = photo(48, 36)[0]
    lr = degrade(image, scale, border)
    for flip in (np.s_[::-1], np.s_[:, ::-1]):
        np.testing.assert_array_equal(degrade(image[flip], scale, border), lr[flip])


def test_channels_are_independent():
    image = photo(24, 20)[0]
    lr = degrade(image, 2)
    np.testing.assert_array_equal(lr[..., 1], degrade(image[..., 1], 2))
    np.testing.assert_array_equal(lr[..., 1:2], degrade(image[..., 1:2], 2))


def test_cuts_what_does_not_fit():
    image = photo(26, 23)[0]
    np.testing.assert_array_equal(modcrop(image, 4), image[:24, :20])
    np.testing.assert_array_equal(degrade(image, 4), degrade(image[:24, :20], 4))


def test_halves_are_rounded_up_and_between_the_passes():
    # By symmetry two pixels become their mean: 0.5 -> 1 and 2.5 -> 3, not to even.
    assert degrade(np.array([[0, 0], [1, 1]], np.uint8), 2) == 1
    assert degrade(np.array([[2, 2], [3, 3]], np.uint8), 2) == 3
    # Rows first: means 0.5 and 0 of the columns, rounded to 1 and 0; their mean is 1, not 0.25.
    assert degrade(np.array([[0, 0], [1, 0]], np.uint8), 2) == 1


def test_resize_enlarges_too():
    image = photo(12, 10)[0]
    large = resize(image, 48, 40)
    assert large.shape == (48, 40, 3) and large.dtype == np.uint8
    assert np.abs(degrade(large, 4).astype(int) - image).mean() < 12
    np.testing.assert_array_equal(resize(image, 12, 10), image)


def test_blur_is_a_correlation_before_the_reduction():
    image = photo(20, 28)[0]
    kernel = np.random.default_rng(1).dirichlet(np.ones(25)).reshape(5, 5)
    planes = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float64))[:, None]
    padded = torch.nn.functional.pad(planes, (2, 2, 2, 2), mode="replicate")
    blurred = torch.nn.functional.conv2d(padded, torch.from_numpy(kernel)[None, None])
    blurred = np.floor(blurred[:, 0].numpy().transpose(1, 2, 0) + 0.5).astype(np.uint8)
    expected = degrade(blurred, 2, "replicate")
    np.testing.assert_array_equal(degrade(image, 2, "replicate", kernel), expected)
    assert (degrade(image, 2, "symmetric", kernel) != expected).any()


def test_a_single_pixel_does_not_blur():
    image = photo(16, 16)[0]
    for border in ("symmetric", "replicate"):
        lr = degrade(image, 2, border, kernel=np.pad([[1.0]], 1))
        np.testing.assert_array_equal(lr, degrade(image, 2, border))


def test_noise_is_seeded_and_of_the_level_asked_for():
    flat = np.full((400, 400), 128, np.uint8)
    a, b = degrade(flat, 2, noise=10.0, seed=1), degrade(flat, 2, noise=10.0, seed=1)
    np.testing.assert_array_equal(a, b)
    assert (a != degrade(flat, 2, noise=10.0, seed=2)).any()
    assert a.std() == pytest.approx(10, rel=0.02) and a.mean() == pytest.approx(128, abs=0.2)
    # White: neighbours know nothing of each other.
    assert abs(np.corrcoef(a[:, 1:].ravel(), a[:, :-1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hr": np.zeros((8, 8))}, "uint8"),
        ({"hr": np.zeros((1, 8, 8, 3), np.uint8)}, r"\(h, w, c\)"),
        ({"hr": np.zeros((3, 8), np.uint8)}, "8x3 pixels is too small for scale 4"),
        ({"scale": 0}, "at least 1"),
        ({"border": "wrap"}, "border"),
        ({"border": "wrap", "kernel": np.ones((1, 1))}, "border"),
        ({"kernel": np.ones((2, 2))}, r"odd k, not \(2, 2\)"),
        ({"kernel": np.ones((3, 5))}, "odd k"),
        ({"kernel": np.full((3, 3), np.nan)}, "finite"),
        ({"noise": -1.0}, "noise"),
        ({"noise": float("nan")}, "noise"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_bad_input(arguments, message):
    good = {"hr": np.zeros((8, 8), np.uint8), "scale": 4}
    with pytest.raises(ValueError, match=message):
        degrade(**good | arguments)
