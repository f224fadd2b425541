"""Transparent pictures look on any background as if they had been put on it before."""

import numpy as np
import pytest
from conftest import optimized
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy import ndimage

import isrrescnet_jax as isr
import isrrescnet_jax.transparency
from isrrescnet_jax import images
from isrrescnet_jax.transparency import restore
from isrrescnet_jax.upscaler import Upscaler

N = 32  # a result that fills a window
BACKGROUNDS = (255, 0, 128)


@pytest.fixture(scope="module")
def x4() -> Upscaler:
    upscaler = Upscaler(isr.load_weights("x4"))
    with optimized():  # the one program of this size
        upscaler(np.zeros((N, N, 3), np.float32))
    return upscaler


def disk(softness: float) -> np.ndarray:
    """Opacity of a disk, (N, N) in 0...255, whose edge is so many pixels wide."""
    centre = (N - 1) / 2
    rows, columns = np.mgrid[:N, :N] - centre
    distance = np.hypot(rows, columns) - 12
    return np.rint(255 * np.clip(0.5 - distance / max(softness, 1e-6), 0, 1)).astype(np.uint8)


def file_of(kind: str, color: tuple[int, ...], alpha: np.ndarray, path) -> np.ndarray:
    """Write a disk on transparent black; what colour it has in the file, grey or RGB."""
    grey = np.full(1, color[0])
    visible = (alpha > 0)[..., None]
    if kind == "palette":
        image = Image.fromarray(alpha)  # an entry for each opacity
        image.putpalette(b"\0\0\0" + bytes(color) * 255, "RGB")
        image.info["transparency"] = bytes(range(256))
        image.frombytes(alpha.tobytes())
        image.save(path, transparency=bytes(range(256)))
        return np.array(color)
    color = grey if kind.startswith("LA") else np.array(color)
    picture = images.Picture(
        (visible * color).astype(np.float32),
        alpha.astype(np.float32),
        16 if kind.endswith("16") else 8,
    )
    images.write(picture, path)
    return color


def over(color: np.ndarray, alpha: np.ndarray, background: float) -> np.ndarray:
    opacity = alpha[..., None] / np.float32(255)
    return (opacity * color + (1 - opacity) * np.float32(background)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "color"),
    [("RGBA", (255, 255, 255)), ("RGBA", (0, 0, 0)), ("RGBA", (30, 200, 250))]
    + [(kind, (200, 60, 30)) for kind in ("RGBA", "RGBA16", "LA", "LA16", "palette")],
)
@pytest.mark.parametrize("softness", [0, 4, 10])
def test_on_any_background(x4, tmp_path, kind, color, softness):
    alpha = disk(softness)
    color = file_of(kind, color, alpha, tmp_path / "x.png")
    picture = images.read(tmp_path / "x.png")
    assert picture.bits == (16 if kind.endswith("16") else 8)
    images.write(images.enlarged(x4, picture, 4), tmp_path / "y.png")
    result = images.read(tmp_path / "y.png")

    spread = ndimage.maximum_filter(alpha, 9) - ndimage.minimum_filter(alpha, 9)
    edge = (spread > 0).repeat(4, 0).repeat(4, 1)
    for background in BACKGROUNDS:
        got = over(result.color, result.alpha, background)
        first = over(picture.color, picture.alpha, background)
        assert (got >= np.minimum(color, background) - 8).all()
        assert (got <= np.maximum(color, background) + 8).all()
        error = np.abs(got - np.clip(x4(first), 0, 255))
        assert error[~edge].max() <= 2
        # At hard edges nothing could, see below.
        if softness:
            assert error[edge].max() <= 8 and error[edge].mean() <= 2


def test_no_picture_could_agree_with_all_backgrounds_at_hard_edges(x4):
    """Composites of one picture are affine in the background; the network puts a hard edge where
    the brighter side is larger, or smaller, by the background."""
    first = (over(np.array((200, 60, 30)), disk(0), background) for background in BACKGROUNDS)
    white, black, grey = (np.clip(x4(picture), 0, 255) for picture in first)
    share = BACKGROUNDS[2] / 255
    off = np.abs(grey - share * white - (1 - share) * black)
    assert off.max() > 8 + 8  # so that one of three is off by more than 8


def test_hard_edges_of_alpha_are_about_as_sharp_as_those_of_a_grey_picture(x4):
    alpha = disk(0).astype(np.float32)
    grey = np.clip(x4(alpha[..., None])[..., 0], 0, 255)
    for color in ((0, 0, 0), (200, 60, 30), (30, 200, 250), (255, 255, 255)):
        _, big = restore(x4, np.full((N, N, 3), color, np.float32), alpha)
        between, expected = (((a > 25) & (a < 230)).mean() for a in (big, grey))
        assert between <= 1.4 * expected


@pytest.mark.parametrize("value", [0.0, 77.3, 255.0])
def test_flat_alpha_stays_what_it_is(value):
    alpha = np.full((5, 6), value, np.float32)
    seen = []

    def model(color):
        seen.append(color)
        return color.repeat(3, 0).repeat(3, 1)

    _, big = restore(model, np.zeros((5, 6, 3), np.float32), alpha)
    np.testing.assert_array_equal(big, np.full((15, 18), np.float32(value)))
    assert len(seen) == 1  # alpha needs no work


def test_colours_go_on_under_transparent_pixels():
    color = np.zeros((1, 30, 1), np.float32)
    color[0, :, 0] = [9] * 14 + [20, 30] + [9] * 14
    alpha = np.zeros((1, 30), np.float32)
    alpha[0, 14:16] = 255
    big, opacity = restore(lambda picture: picture, color, alpha)
    np.testing.assert_allclose(big[0, :, 0], [20] * 15 + [30] * 15, atol=1e-2)
    np.testing.assert_allclose(opacity, alpha, atol=1e-2)
    nothing = np.zeros_like(alpha)
    np.testing.assert_array_equal(restore(lambda picture: picture, color, nothing)[0], color)


@pytest.mark.parametrize("faint", [1, 5, 15])
def test_a_border_that_is_hardly_seen_stays_so(x4, faint):
    alpha = np.maximum(disk(0), faint).astype(np.float32)
    white = np.where(alpha > faint, np.float32(255), np.float32(0))[..., None].repeat(3, 2)
    color, opacity = restore(x4, white, alpha)
    assert over(color, opacity, 255).min() >= over(white, alpha, 255).min() - 8


def test_a_large_picture_goes_in_parts(monkeypatch):
    rng = np.random.default_rng(1)
    color, alpha = (rng.uniform(0, 255, shape).astype(np.float32) for shape in [(9, 7, 3), (9, 7)])

    def model(picture):
        return np.square(picture.repeat(2, 0).repeat(2, 1)) / 255

    whole = restore(model, color, alpha)
    eight = restore(model, color.astype(np.uint8), alpha.astype(np.uint8))
    assert all(result.dtype == np.float32 for result in (*whole, *eight))
    monkeypatch.setattr(isrrescnet_jax.transparency, "_AT_ONCE", 60)
    for a, b in zip(whole, restore(model, color, alpha), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.ptp(whole[1]) > 100


@settings(max_examples=50, deadline=None)
@given(
    colors=arrays(np.float32, (2, 3, 3), elements=st.floats(0, 255, width=32)),
    alpha=arrays(np.float32, (2, 3), elements=st.floats(1, 255, width=32)),
)
def test_what_a_picture_can_show_it_shows(colors, alpha):
    """A model that leaves pictures as they are: the composites are those of the picture."""
    color, opacity = restore(lambda picture: picture, colors, alpha)
    for background in BACKGROUNDS:
        got, expected = over(color, opacity, background), over(colors, alpha, background)
        np.testing.assert_allclose(got, expected, atol=0.05)


def test_what_lies_under_transparent_pixels_is_not_seen(small):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (9, 10, 4), np.uint8)
    image[:, 6:, 3] = 0
    other = image.copy()
    other[:, 6:, :3] = 77
    a, b = (isr.upscale(x, weights=small) for x in (image, other))
    np.testing.assert_array_equal(a, b)
    assert a.shape == (18, 20, 4)
